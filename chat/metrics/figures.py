"""Everything that the daemon knows of itself, added up when somebody asks.

The counters are plain attributes of the parts: `Committer` (how long commits take, how large they are), `Router` (records, deliveries,
refusals), `Services` of the connections (frames in, refusals), `Guard` (passwords and tokens that were wrong), `OutboxPool` (who lags, who
was cut). What is now (connections, bytes that wait) is counted over the connections here: about 1 ms for 10,000.
"""

import resource
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from chat import __version__
from chat.histogram import Histogram
from chat.metrics.watch import cpu_s

if TYPE_CHECKING:
    from chat.daemon.parts import Parts

TRANSPORTS = ("tcp", "tls", "web")


def figures(parts: "Parts") -> dict[str, Any]:
    """A snapshot, as plain JSON data. Times are in seconds, sizes in bytes; names ending in ``_total`` count since the start."""
    links = parts.services.links
    desk, watch, pool, committer = parts.manager.desk, parts.watch, parts.pool, parts.committer
    router = desk.router
    refused = Counter(router.refused) + parts.services.refused
    problems = watch.problems()
    inbox = desk.inbox.statistics()
    return {
        "version": __version__,
        "uptime_s": round(time.time() - watch.started_s, 1),
        "ready": not problems,
        "problems": problems,
        "complaints": [watch.metrics_problem] if watch.metrics_problem else [],
        "connections": {**dict.fromkeys(TRANSPORTS, 0), **Counter(link.transport.kind for link in links)},
        "logged_in": sum(link.account != 0 for link in links),
        "sessions": len(desk.sessions),
        "people_online": len(router.online),
        "accounts": len(desk.state.accounts),
        "channels": len(desk.state.rooms),
        "frames_in_total": parts.services.frames_in,
        "records_total": router.records,
        "deliveries_total": router.told,
        "records_per_s": round(watch.records_per_s, 2),
        "deliveries_per_s": round(watch.deliveries_per_s, 2),
        "commit_s": _summary(committer.commit_s),
        "commit_size": _summary(committer.commit_size),
        "commit_failures": dict(committer.failures),
        "queue": {"inbox": inbox.current_buffer_used, "batches": committer.batches.statistics().current_buffer_used},
        "outbox_bytes": sum(link.outbox.pending_bytes for link in links),
        "lagging": sum(link.outbox.lagging for link in links),
        "lagging_total": pool.lagging,
        "cut_total": pool.cut,
        "auth_failures_total": parts.services.guard.failures,
        "rate_limited_total": refused["rate_limited"],
        "refused_total": dict(refused),
        "questions_open": len(desk.questions),
        "loop_delay_s": {"latest": round(watch.latest_delay_s, 5), "worst": round(watch.worst_delay_s, 5)},
        "cpu_s": round(cpu_s(), 2),
        "memory_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _summary(histogram: Histogram) -> dict[str, float]:
    mean = histogram.sum / histogram.count if histogram.count else 0.0
    return {
        "count": histogram.count,
        "mean": round(mean, 6),
        "p50": histogram.quantile(0.5),
        "p99": histogram.quantile(0.99),
    }
