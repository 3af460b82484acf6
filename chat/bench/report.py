"""A measurement as a table, as the difference of two, as a picture."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

STAGES: Final = {
    "decode": "decode (frames to requests)",
    "decide": "decide (rights, rates, rooms)",
    "commit": "commit (SQLite, synced)",
    "route": "route (encode, outboxes)",
    "flush": "flush (sends; TLS: in the rest)",
    "rest": "rest (reading sockets, scheduling, TLS)",
}


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


FIGURES: Final[dict[str, tuple[str, Callable[[float], str]]]] = {
    "deliveries_per_s": ("deliveries/s", _number),
    "messages_per_s": ("messages/s", _number),
    "server_cpu_us_per_delivery": ("server CPU per delivery, µs", _number),
    "latency_p50_ms": ("latency p50, ms", _number),
    "latency_p99_ms": ("latency p99, ms", _number),
    "latency_p999_ms": ("latency p99.9, ms", _number),
    "latency_max_ms": ("latency max, ms", _number),
    "memory_per_session_bytes": ("memory per idle session, bytes", _number),
    "sessions_opened_per_s": ("sessions opened/s", _number),
    "opening_cpu_us": ("server CPU per opening, µs", _number),
    "sessions_resumed_per_s": ("sessions resumed/s", _number),
    "resuming_cpu_us": ("server CPU per resume, µs", _number),
    "server_cpu": ("server's processor in use", _share),
    "clients_cpu": ("clients' processors in use", _share),
}


def lines(report: dict[str, Any]) -> list[str]:
    """For a person."""
    machine = report["machine"]
    out = [
        report["workload"]["title"],
        f"{machine['processors']} processors ({machine['model']}), Python {machine['python']}, {machine['file_system']}",
        "",
    ]
    width = max(len(name) for name, _ in FIGURES.values()) + 2
    for key, (name, shown) in FIGURES.items():
        value = report["figures"].get(key)
        if value is not None:
            out.append(f"  {name:<{width}}{shown(value):>12}")
    checks = report["checks"]
    if "doubled" in checks:
        out += ["", f"  lost {checks['lost']} · doubled {checks['doubled']} · out of order {checks['reordered']}"]
        if checks["unacked"]:
            out.append(f"  {checks['unacked']} messages were not acknowledged in time")
        out += [f"  {n} times error {code}" for code, n in checks["errors"].items()]
    if report.get("stages"):
        out += ["", "  where the server's time goes"]
        out += [f"  {STAGES[part]:<{width + 8}}{_share(share):>4}  {_bar(share)}" for part, share in report["stages"].items()]
    if report["figures"].get("clients_are_the_limit"):
        out += ["", "  The clients were the limit: the rate is a lower bound. The CPU per delivery holds."]
    return out


def _bar(share: float) -> str:
    return "█" * round(30 * share)


def is_exact(report: dict[str, Any]) -> bool:
    """Was everything delivered, once and in order?"""
    checks = report["checks"]
    return not any(checks.get(key) for key in ("lost", "doubled", "reordered", "unacked", "errors"))


def load(path: Path) -> dict[str, Any]:
    """*Raises* ValueError, with the file's name, for what `chat bench --json` did not write; OSError."""
    try:
        report = json.loads(path.read_text("utf-8"))
        if not all(isinstance(report[key], dict) for key in ("workload", "figures", "checks", "machine")):
            raise KeyError("workload")
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is no report of chat bench --json") from None
    assert isinstance(report, dict)
    return report


def compare(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Both side by side, and the ratio."""
    width = max(len(name) for name, _ in FIGURES.values()) + 2
    out = []
    if a["workload"] != b["workload"]:
        out += [f"A: {a['workload']['title']}", f"B: {b['workload']['title']}", "These are different workloads.", ""]
    else:
        out += [a["workload"]["title"], ""]
    out.append(f"  {'':<{width}}{'A':>12}{'B':>12}{'B / A':>8}")
    for key, (name, shown) in FIGURES.items():
        x, y = a["figures"].get(key), b["figures"].get(key)
        if x is not None and y is not None:
            out.append(f"  {name:<{width}}{shown(x):>12}{shown(y):>12}{y / x if x else float('nan'):>8.2f}")
    for label, report in (("A", a), ("B", b)):
        if not is_exact(report):
            out.append(f"  {label} was not exact: {report['checks']}")
    return out


def plot(report: dict[str, Any], path: Path) -> None:
    """Latency and stages as a picture, .png or .svg. *Raises* ImportError where matplotlib is missing (``pip install 'chat[bench]'``)."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figures = report["figures"]
    latencies = {name: figures[key] for name, key in _LATENCIES.items() if figures.get(key) is not None}
    stages = report.get("stages") or {}
    panels = [panel for panel in (latencies, stages) if panel]
    figure, axes = pyplot.subplots(len(panels) or 1, 1, figsize=(8, 1.2 + 1.8 * (len(panels) or 1)), layout="constrained", squeeze=False)
    figure.suptitle(report["workload"]["title"], fontsize=10)
    rows = iter(axes[:, 0])
    if latencies:
        axis = next(rows)
        bars = axis.barh(list(latencies)[::-1], list(latencies.values())[::-1], color="#3a7bd5")
        axis.bar_label(bars, fmt="%.3g ms", padding=3)
        axis.set_xlabel("latency, ms")
        axis.margins(x=0.15)
    if stages:
        axis = next(rows)
        bars = axis.barh([STAGES[part] for part in stages][::-1], [100 * share for share in stages.values()][::-1], color="#d57f3a")
        axis.bar_label(bars, fmt="%.0f %%", padding=3)
        axis.set_xlabel("share of the server's CPU time, %")
        axis.margins(x=0.15)
    if not panels:
        axis = next(rows)
        axis.axis("off")
        axis.text(0, 1, "\n".join(lines(report)), family="monospace", va="top")
    figure.savefig(path)
    pyplot.close(figure)


_LATENCIES: Final = {"p50": "latency_p50_ms", "p99": "latency_p99_ms", "p99.9": "latency_p999_ms", "max": "latency_max_ms"}
