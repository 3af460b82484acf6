"""Records in words: what was exported as JSON is all there for people too."""

import pytest

from chat.admin.pages import as_html, as_text
from chat.admin.show import when

TS = 1_700_000_000_000
UNTIL = 4_102_444_800_000


def record(kind, **more):
    return {"type": kind, "conv": "#lobby", "seq": 1, "ts": TS, "user": "bob", **more}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (record("left"), "* bob left"),
        (record("left", by="bob"), "* bob left"),
        (record("left", by=None, reason=None), "* bob left"),
        (record("left", by="ann"), "* bob was removed by ann"),
        (record("left", by="ann", reason="noise"), "* bob was removed by ann (noise)"),
        (record("left", by="ann", reason="<b>no\nise"), "* bob was removed by ann (<b>no\nise)"),
        (record("banned", by="ann"), "* bob was banned by ann"),
        (record("banned", by="ann", until=None, reason=""), "* bob was banned by ann"),
        (record("banned", by="ann", until=UNTIL), f"* bob was banned by ann until {when(UNTIL)}"),
        (record("banned", by="ann", until=UNTIL, reason="spam"), f"* bob was banned by ann until {when(UNTIL)} (spam)"),
    ],
)
def test_who_was_put_out_by_whom_until_when_and_why(row, told):
    assert next(as_text("#lobby", iter([row]))) == f"{when(TS)} " + told.replace("\n", "\n    ") + "\n"
    page = "".join(as_html("#lobby", iter([row])))
    assert told.replace("<", "&lt;").replace(">", "&gt;") + "</article>" in page
