"""What a person sees: one line that moves while it runs, and a page at the end. Plain text, with colours on a terminal."""

import os
import shutil
import sys
from typing import Final, TextIO

import trio

from chat.prove import trouble
from chat.prove.ledger import ALTERED, FAULTS
from chat.prove.run import Report, Run
from chat.prove.wires import NAMES

FRAME_S: Final = 0.1
PLAIN_S: Final = 5.0
BAR: Final = 20
EIGHTHS: Final = " ▏▎▍▌▋▊▉█"


class Paint:
    """Colours, where they are wanted (no NO_COLOR, a terminal)."""

    def __init__(self, stream: TextIO) -> None:
        self.on = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def __call__(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.on else text


def n(count: int) -> str:
    return f"{count:,}"


def some(count: int, one: str, many: str = "") -> str:
    return f"{n(count)} {one if count == 1 else many or one + 's'}"


# ---------------------------------------------------------------- while it runs


class Progress:
    """``watch`` for `run.prove`: a line that is drawn again on a terminal; else a line every `PLAIN_S` seconds."""

    def __init__(self, stream: TextIO) -> None:
        self._out = stream
        self._moving = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._paint = Paint(stream)

    async def __call__(self, run: Run) -> None:
        said, due_s = "", PLAIN_S
        try:
            while True:
                if self._moving:
                    self._draw(self._line(run))
                elif run.phase != said:
                    said = run.phase
                    self._say(said)
                elif said == "storm" and run.now_s() >= due_s:
                    due_s += PLAIN_S
                    self._say(f"{run.now_s():.0f} s of {run.plan.seconds:g} s: {counts(run)}")
                await trio.sleep(FRAME_S)
        finally:
            if self._moving:
                self._draw("")

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)

    def _draw(self, line: str) -> None:
        self._out.write("\r" + line + "\x1b[K")
        self._out.flush()

    def _line(self, run: Run) -> str:
        if run.phase != "storm":
            return self._paint("2", f"{run.phase} …")
        eighths = round(8 * BAR * min(1.0, max(0.0, run.now_s() / run.plan.seconds)))
        full, rest = divmod(eighths, 8)
        bar = ("█" * full + (EIGHTHS[rest] if full < BAR else "")).ljust(BAR)
        server = self._paint("32", "●") if run.server.up else self._paint("31", "✝")
        room = max(0, shutil.get_terminal_size().columns - BAR - 6)
        return f"{server} {self._paint('36', bar)}▏ {counts(run)[:room]}"


def counts(run: Run) -> str:
    ledger = run.ledger
    cuts = sum(run.counts[kind] for kind in (trouble.CUT, trouble.END, trouble.VANISH, trouble.LATE, trouble.NAP))
    found = sum(ledger.faults.values())
    return " · ".join(
        [
            some(ledger.acks, "ack"),
            some(sum(device.cursor.taken for device in run.devices), "delivery", "deliveries"),
            some(run.counts["retries"], "retry", "retries"),
            some(run.kills, "kill"),
            some(cuts, "cut"),
            some(run.counts[trouble.MOVE], "move"),
            some(found, "violation") if found else "nothing wrong",
        ]
    )


# ---------------------------------------------------------------- the end


def page(report: Report, stream: TextIO = sys.stdout) -> str:
    paint = Paint(stream)
    ways = ", ".join(NAMES[kind] for kind in report.kinds)
    happened = [f"{n(report.kills):>7} {'time' if report.kills == 1 else 'times'} SIGKILL{_under_way(report)}"]
    if report.drains:
        happened.append(f"{n(report.drains):>7} {'time' if report.drains == 1 else 'times'} SIGTERM, and started again")
    happened += [f"{n(report.troubles.get(kind, 0)):>7} {_meaning(report, kind)}" for kind in trouble.MEANING if report.troubles.get(kind)]
    came = [
        (report.acks, f"acks, of {some(report.texts, 'text')}"),
        (report.deliveries, f"deliveries, compared with {some(report.records, 'record')} of the history"),
        (report.retries, f"retries with the same cid, {n(report.echoes)} from another device; {n(report.dups)} were answered as the first"),
        (report.orphans, "texts had been stored when their ack was lost, and were not stored again"),
        (report.rate_limited, "answers rate_limited, each text stored later"),
        (report.resumes, f"resumes, {some(report.fills, 'stretch', 'stretches')} of what was missed read from the history"),
    ]
    who = f"{some(report.people, 'person', 'people')} on {some(report.devices, 'device')}"
    lines = [
        paint("1", f"chat prove: {who} for {report.seconds:g} s, over {ways}"),
        "",
        "What was done to them",
        *happened,
        "",
        "What came of it",
        *(f"{n(count):>7} {what}" for count, what in came),
        f"        longest recovery {_seconds(report.recovery_after_kill_s)} after a kill, start of the server included,"
        f" {_seconds(report.recovery_s)} after a cut",
        "",
    ]
    if report.silences:
        lines.insert(-1, f"{n(report.silences):>7} times nothing came from a server that was up, until the device dialled again")
    if report.violation is not None:
        lines += _explained(report, paint)
    told = [kind for kind in FAULTS if kind != ALTERED or report.faults[kind]]
    verdict = ", ".join(paint("31;1" if report.faults[kind] else "32", f"{kind} {n(report.faults[kind])}") for kind in told)
    lines.append(f"{paint('32;1', '✓') if report.green else paint('31;1', '✗')} {verdict}")
    again = f"schedule {report.schedule}, again: chat prove {report.again}"
    lines.append(paint("2", f"  seed {report.seed} ({again}); {report.took_s:g} s in all"))
    return "\n".join(lines)


def _explained(report: Report, paint: Paint) -> list[str]:
    violation = report.violation
    assert violation is not None
    lines = [paint("31;1", f"{violation.kind}: {violation.what}")]
    lines += [f"    {line}" for line in violation.story]
    if report.first is not None and report.first.what != violation.what:
        lines.append(f"first noticed, at {report.first.at_s:.2f} s: {report.first.kind}: {report.first.what}")
        lines += [f"    {line}" for line in report.first.story]
    if report.others:
        lines.append(f"    and {some(report.others, 'violation')} more, many of them for the same reason")
    if report.bug:
        lines += ["    the server's log says:", *(f"      {line}" for line in report.bug.splitlines())]
    return [*lines, ""]


def _meaning(report: Report, kind: str) -> str:
    if kind == trouble.DEAF:
        return f"{trouble.MEANING[kind]}: told `lagging` {some(report.lags, 'time')}, cut off {some(report.cut_off, 'time')}"
    return trouble.MEANING[kind]


def _under_way(report: Report) -> str:
    if not report.in_flight:
        return ""
    least, most = min(report.in_flight), max(report.in_flight)
    return f", while {least if least == most else f'{least} to {most}'} texts had no ack yet"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s"
