"""The readable log of channels: its lines, its files, and that it is never waited for."""

import os
import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat import messagelog
from chat.messagelog import MessageLog, file_name, line
from chat.rooms.effects import Append, Placed

NAMES = {1: "mia", 2: "noah"}
TS = 1_700_000_000_000


def placed(seq, body, kind="message", author=1, reply_to=None):
    append = Append(conv=9, kind=kind, author=author, body=body, reply_to=reply_to)
    return Placed(append=append, conv=9, epoch="abcdefgh", seq=seq, ts=TS, cid=None)


def open_log(folder, name_of=NAMES.__getitem__, rotate_bytes=10**9):
    return MessageLog(folder, name_of, rotate_bytes=rotate_bytes, rotate_keep=2)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (placed(1, "hi"), "#1 <mia> hi"),
        (placed(2, "hi", reply_to=1), "#2 <mia> (to #1) hi"),
        (placed(3, "one\ntwo\tthree"), "#3 <mia> one\n    two\tthree"),
        (placed(4, {"user": 2}, "joined"), "#4 * noah joined"),
        (placed(5, {"user": 2}, "left"), "#5 * noah left"),
        (placed(6, {"user": 2, "by": 1, "reason": "spam"}, "left"), "#6 * noah was removed by mia: spam"),
        (placed(7, {"user": 2, "by": None}, "banned"), "#7 * noah was banned by the server"),
        (placed(8, {"user": 1, "text": "news"}, "topic"), "#8 * mia set the topic: news"),
        (placed(9, {"user": 2, "role": "moderator", "by": 1}, "role"), "#9 * noah is now moderator, by mia"),
        (placed(10, {"target": 3, "by": 1}, "deleted"), "#10 * #3 was deleted by mia"),
        (placed(11, {"x": 1}, "invented"), "#11 * invented"),
    ],
)
def test_lines(item, expected):
    assert line(item, NAMES.__getitem__) == f"2023-11-14 22:13:20Z {expected}\n"


@given(st.text())
def test_a_text_cannot_forge_a_line_or_move_a_cursor(text):
    first, *rest = line(placed(1, text), NAMES.__getitem__)[:-1].split("\n")
    assert first.startswith("2023-11-14 22:13:20Z #1 <mia> ")
    assert all(other.startswith("    ") for other in rest)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]", first + "".join(rest))


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=64))
def test_every_channel_has_a_file_inside_the_folder(name):
    found = file_name("#" + name)
    assert re.fullmatch(r"[A-Za-z0-9_~%-][A-Za-z0-9_.~%-]*\.log", found)
    assert len(found) <= 124


def test_different_channels_have_different_files():
    names = ["a", "A", ".", "..", "a/b", "a%2Fb", "ä" * 64, "ä" * 63 + "a", "ä" * 63]
    assert len({file_name("#" + name) for name in names}) == len(names)


def test_records_are_written_in_order_and_private_ones_never(tmp_path):
    with open_log(tmp_path / "log") as opened:
        for seq in range(1, 2001):
            opened.record("#lobby", placed(seq, f"text {seq}"))
            opened.record("@mia", placed(seq, "private"))
            opened.record("#other", placed(seq, "x"))
    assert sorted(os.listdir(tmp_path / "log")) == ["lobby.log", "other.log"]
    lines = (tmp_path / "log" / "lobby.log").read_text().splitlines()
    assert lines == [f"2023-11-14 22:13:20Z #{seq} <mia> text {seq}" for seq in range(1, 2001)]


def test_files_are_rotated(tmp_path):
    with open_log(tmp_path, rotate_bytes=4096) as opened:
        for seq in range(5000):
            opened.record("#lobby", placed(seq, "x"))
    assert sorted(os.listdir(tmp_path)) == ["lobby.log", "lobby.log.1", "lobby.log.2"]


def test_more_channels_than_open_files(tmp_path, monkeypatch):
    monkeypatch.setattr(messagelog, "MAX_OPEN_FILES", 2)
    with open_log(tmp_path) as opened:
        for seq in range(1, 5):
            for name in "abcde":
                opened.record("#" + name, placed(seq, "x"))
    assert [len((tmp_path / f"{name}.log").read_text().splitlines()) for name in "abcde"] == [4] * 5
    assert len(opened._files) == 2


def test_it_is_never_waited_for_and_bounded(tmp_path):
    stalled, go_on = threading.Event(), threading.Event()

    def name_of(account):
        stalled.set()
        assert go_on.wait(60)
        return NAMES[account]

    with open_log(tmp_path, name_of) as opened:
        opened.record("#lobby", placed(1, "first"))
        assert stalled.wait(60)
        text = "x" * 2**20
        for seq in range(2, 102):
            opened.record("#lobby", placed(seq, text))
        assert opened._queue.qsize() == 15, "what waits is bounded"
        go_on.set()
    lines = (tmp_path / "lobby.log").read_text().splitlines()
    assert len(lines) == 17
    assert any(found.endswith("* 85 records of this server were not logged") for found in lines)


def test_a_disk_that_fails_is_survived_and_told(tmp_path, capsys):
    (tmp_path / "log").write_text("a file where the folder should be")
    with open_log(tmp_path / "log") as opened:
        opened.record("#lobby", placed(1, "secret text"))
        opened.record("#lobby", placed(2, {"user": 77}, "joined"))
    told = capsys.readouterr().err
    assert "message_log_failed" in told
    assert "secret text" not in told


def test_an_odd_record_is_left_out(tmp_path):
    with open_log(tmp_path) as opened:
        opened.record("#lobby", placed(1, {"user": 77}, "joined"))
        opened.record("#lobby", placed(2, "after"))
    assert (tmp_path / "lobby.log").read_text().endswith("#2 <mia> after\n")
