"""The daemon: `main` is the composition root with its nurseries, `parts` makes the parts, `bootstrap` what happens once at the start.

`doors` are the listeners, `ticker` is what time brings about, `reload` what changes on SIGHUP.
"""

from chat.daemon.main import run

__all__ = ["run"]
