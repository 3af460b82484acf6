"""What can be seen of the daemon while it works: figures, health, and a loopback listener that tells them.

Theory of operation
-------------------
Nothing here is on the path of a message. The parts keep plain counters (one addition a batch, see `figures`), and whoever asks adds them
up. Two small tasks look at what no counter tells: how late the loop is (`watch.Watch.run_delay`), and whether the store could be written
now (`watch.Watch.run_store`), twice a second.

    figures.py      figures(parts): everything as one plain dict; ``chat status`` shows it
    watch.py        loop delay, rates, and why the daemon would not be ready
    prometheus.py   the same in Prometheus' text format
    server.py       GET /metrics, /healthz, /readyz on a listener of its own (``[metrics] address``)
"""

from chat.metrics.figures import figures
from chat.metrics.watch import Watch

__all__ = ["Watch", "figures"]
