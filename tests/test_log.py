"""The structured log: what gets into a line, what never does, and how many lines there are."""

import io
import json
import logging
import os
import stat

import pytest
import structlog
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from chat import log
from chat.config import Log
from chat.log import LINES_PER_S, Output, RotatedFile, Throttle


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _put_back():
    before, handlers = structlog.get_config(), logging.getLogger().handlers[:]
    yield
    log.unbind_all()
    log.close()
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def stream():
    out = io.StringIO()
    log.configure(Log(level="debug"), stream=out)
    return out


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_an_object_with_its_context(stream):
    log.bind(connection=7, account="mia")
    log.get_logger("door").warning("refused", count=3, ratio=0.5, fine=True, nothing=None)
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning", "event": "refused", "part": "door", "connection": 7, "account": "mia",
        "count": 3, "ratio": 0.5, "fine": True, "nothing": None,
    }  # fmt: skip


async def test_context_belongs_to_the_task(stream):
    async def task(number):
        log.bind(connection=number)
        await trio.lowlevel.checkpoint()
        log.get_logger("x").info("told", number=number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(task, number)
    assert [line["connection"] == line["number"] for line in lines(stream)] == [True] * 5


@pytest.mark.parametrize("key", sorted(log.SECRET))
def test_secrets_are_redacted_wherever_they_stand(stream, key):
    log.get_logger("x").info("event", **{key: "hunter2"}, deep={"a": [{key: "hunter2"}]})
    assert "hunter2" not in stream.getvalue()
    assert lines(stream)[0][key] == "[redacted]"


def test_of_objects_only_the_class_is_told(stream):
    class Message:
        def __repr__(self):
            return "hunter2"

    log.get_logger("x").info("event", message=Message(), raw=b"hunter2", many={Message()})
    assert "hunter2" not in stream.getvalue()
    assert lines(stream)[0]["message"] == "<Message>"


def test_an_exception_is_told_without_what_it_may_quote(stream):
    try:
        try:
            {}["hunter2"]
        except KeyError as exc:
            raise ExceptionGroup("hunter2", [ValueError("hunter2"), OSError(28, "No space left on device")]) from exc
    except ExceptionGroup as exc:
        log.get_logger("x").error("internal_error", exc_info=exc, error_id=log.new_error_id())
    assert "hunter2" not in stream.getvalue()
    assert lines(stream)[0]["exception"] == "ValueError, OSError: [Errno 28] No space left on device"


def test_an_exception_is_told_with_its_places(stream):
    def deep():
        raise RuntimeError

    try:
        deep()
    except RuntimeError:
        log.get_logger("x").exception("internal_error")
    (line,) = lines(stream)
    assert line["level"] == "error"
    assert [place.split()[1] for place in line["where"]] == ["deep", "test_an_exception_is_told_with_its_places"]
    assert line["where"][0].startswith("test_log.py:")


@given(st.text(st.characters()))
@example("\x7f\x9b\u2028\u202e\r\n\x1b\ud800")
def test_no_control_character_gets_into_a_line(text):
    for out in (io.StringIO(), Terminal()):
        log.configure(Log(), stream=out)
        log.get_logger("x").info("event", name=text, **{"key" + text[:3]: 1})
        (line,) = out.getvalue()[:-1].split("\n")
        assert not any(ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u2028\u2029\u202e\u2066" for char in line)


def test_on_a_terminal_lines_are_short_and_readable():
    out = Terminal()
    log.configure(Log(), stream=out)
    log.get_logger("door").info("refused", address="10.0.0.1", count=2)
    assert out.getvalue()[8:] == " info    door: refused address=10.0.0.1 count=2\n"


@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(level, expected):
    out = io.StringIO()
    log.configure(Log(level=level), stream=out)
    logger = log.get_logger("x")
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)("event_" + name)
    assert len(lines(out)) == expected


def test_a_stream_that_is_gone_is_no_reason_to_stop(stream):
    stream.close()
    log.get_logger("x").error("event")


def test_libraries_come_the_same_way_without_their_arguments(stream):
    logging.getLogger("some.library").warning("bad frame %r", "hunter2")
    logging.getLogger("some.library").info("not told")
    (line,) = lines(stream)
    assert (line["event"], line["part"], line["format"], line["level"]) == ("library", "some.library", "bad frame %r", "warning")


# ---------------------------------------------------------------- how many lines


def test_at_most_so_many_lines_a_second_for_a_key_then_one_that_counts():
    now, out = [0.0], []
    put = Output(out.append, readable=False, clock=lambda: now[0])

    def tell(event):
        with pytest.raises(structlog.DropEvent):
            put(None, "info", {"event": event, "part": "door"})

    for _ in range(25):
        tell("a")
    tell("b")
    assert [json.loads(line)["event"] for line in out] == ["a"] * LINES_PER_S + ["b"]
    del out[:]
    now[0] = 1.0
    tell("a")
    assert [json.loads(line)["event"] for line in out] == ["suppressed", "a"]
    assert json.loads(out[0])["key"] == "door.a"
    assert json.loads(out[0])["count"] == 15
    for _ in range(11):
        tell("a")
    del out[:]
    put.flush()
    put.flush()
    assert [json.loads(line)["count"] for line in out] == [2]


def test_the_throttle_is_bounded():
    throttle = Throttle(lambda: 0.0)
    for number in range(3 * log.KEYS_KEPT):
        assert throttle.admit(str(number)) == (True, 0)
    assert len(throttle._windows) <= log.KEYS_KEPT


# ---------------------------------------------------------------- files


def test_a_file_is_private_and_rotated(tmp_path):
    path = tmp_path / "log" / "chat.log"
    file = RotatedFile(path, max_bytes=30, keep=2)
    for number in range(10):
        file.write(b"line %d of ten\n" % number)
    file.close()
    assert path.read_text() == "line 8 of ten\nline 9 of ten\n"
    assert (tmp_path / "log" / "chat.log.1").read_text() == "line 6 of ten\nline 7 of ten\n"
    assert sorted(item.name for item in path.parent.iterdir()) == ["chat.log", "chat.log.1", "chat.log.2"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_nothing_is_kept_when_nothing_is_to_be_kept(tmp_path):
    file = RotatedFile(tmp_path / "a", max_bytes=10, keep=0)
    for _ in range(5):
        file.write(b"12345678\n")
    file.close()
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").stat().st_size == 9


def test_an_old_file_is_continued_and_a_long_line_still_written(tmp_path):
    (tmp_path / "a").write_bytes(b"12345\n")
    file = RotatedFile(tmp_path / "a", max_bytes=10, keep=1)
    file.write(b"1234567890 longer than the limit\n")
    file.close()
    assert (tmp_path / "a.1").read_bytes() == b"12345\n"
    assert (tmp_path / "a").read_bytes() == b"1234567890 longer than the limit\n"


def test_configured_to_a_file_and_reopened(tmp_path):
    path = tmp_path / "chat.log"
    log.configure(Log(file=path), file=tmp_path / "not this one")
    log.get_logger("x").info("one")
    path.rename(tmp_path / "moved")
    log.reopen()
    log.get_logger("x").info("two")
    assert json.loads((tmp_path / "moved").read_text())["event"] == "one"
    assert json.loads(path.read_text())["event"] == "two"
    assert not (tmp_path / "not this one").exists()


def test_a_log_file_that_cannot_be_written_is_told_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        log.configure(Log(file=tmp_path / "file" / "chat.log"))
