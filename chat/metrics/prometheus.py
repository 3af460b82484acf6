"""The figures in Prometheus' text format, through a registry of our own: nothing of the library's global one is told."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from chat.histogram import Histogram
from chat.metrics.figures import figures

if TYPE_CHECKING:
    from chat.daemon.parts import Parts

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
GAUGES: Final = {  # of the figures: what it is called, and what it means
    "logged_in": ("chat_logged_in", "Connections that have a session."),
    "sessions": ("chat_sessions", "Sessions that are held, connected or within the resume window."),
    "people_online": ("chat_people_online", "Accounts with at least one session that is held."),
    "accounts": ("chat_accounts", "Accounts."),
    "channels": ("chat_channels", "Channels."),
    "outbox_bytes": ("chat_outbox_bytes", "Bytes that wait for readers."),
    "lagging": ("chat_lagging", "Connections that read too slowly now."),
    "questions_open": ("chat_questions_open", "Questions of commands that wait for an answer."),
    "uptime_s": ("chat_uptime_seconds", "Since the daemon started."),
}
COUNTERS: Final = {
    "frames_in_total": ("chat_messages_in", "Frames that clients sent."),
    "records_total": ("chat_records", "Records (messages, joins, ...) that were stored and told."),
    "deliveries_total": ("chat_messages_out", "Records times the connections that they were told to."),
    "lagging_total": ("chat_lagged", "How often a connection was told that it reads too slowly."),
    "cut_total": ("chat_cut", "Connections that were cut off since they did not read."),
    "auth_failures_total": ("chat_auth_failures", "Wrong passwords and resume tokens."),
    "rate_limited_total": ("chat_rate_limited", "Requests that were refused since they came too fast."),
}


class Figures(Collector):
    def __init__(self, parts: "Parts") -> None:
        self._parts = parts

    def describe(self) -> list[Metric]:
        return []  # or registering would collect

    def collect(self) -> Iterator[Metric]:
        parts, found = self._parts, figures(self._parts)
        for key, (name, text) in GAUGES.items():
            yield GaugeMetricFamily(name, text, value=found[key])
        for key, (name, text) in COUNTERS.items():
            yield CounterMetricFamily(name, text, value=found[key])
        yield _by(GaugeMetricFamily, "chat_connections", "Connections.", "transport", found["connections"])
        yield _by(GaugeMetricFamily, "chat_queue", "What waits, by where: requests, batches for the store.", "where", found["queue"])
        yield _by(CounterMetricFamily, "chat_refused", "Refusals, by their code.", "code", found["refused_total"])
        yield _by(CounterMetricFamily, "chat_commit_failures", "Commits that failed, by their code.", "code", found["commit_failures"])
        yield GaugeMetricFamily("chat_ready", "1: a message would be taken and stored now.", value=float(found["ready"]))
        yield _histogram("chat_commit_seconds", "How long a commit takes.", parts.committer.commit_s)
        yield _histogram("chat_commit_actions", "How many actions are committed together.", parts.committer.commit_size)
        yield _histogram("chat_loop_delay_seconds", "How much later the event loop wakes than it was asked to.", parts.watch.loop_delay)
        yield CounterMetricFamily("process_cpu_seconds", "CPU time of the daemon.", value=found["cpu_s"])
        version = GaugeMetricFamily("chat_info", "The version.", labels=["version"])
        version.add_metric([found["version"]], 1)
        yield version


def exposition(parts: "Parts") -> Callable[[], bytes]:
    """*Returns* what renders a page of metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figures(parts))
    return lambda: generate_latest(registry)


def _by(family: Any, name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    metric: Metric = family(name, text, labels=[label])
    for value, count in sorted(values.items()):
        metric.add_metric([value], count)  # type: ignore[attr-defined]
    return metric


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    buckets, seen = [], 0
    for bound, count in zip(histogram.bounds, histogram.counts, strict=False):
        seen += count
        buckets.append((f"{float(bound):g}", seen))
    buckets.append(("+Inf", histogram.count))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=histogram.sum)
