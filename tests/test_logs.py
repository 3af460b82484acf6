"""The end of a log, and what follows, through rotations."""

import json
from itertools import islice

import pytest

from chat import logs
from chat.config import Log
from chat.log import RotatedFile, configure, get_logger


def entry(number, **fields):
    return json.dumps({"time": "2026-01-02T03:04:05.678Z", "level": "info", "event": f"event{number}", "part": "p", **fields}).encode()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "chat.log"


def test_a_line_is_readable_and_moves_no_cursor():
    assert logs.shown(entry(1, peer="a b", n=3)) == "2026-01-02 03:04:05 info    p: event1 peer=a b n=3"
    assert logs.shown(entry(1, x="\x1b[2J")) == "2026-01-02 03:04:05 info    p: event1 x=\\x1b[2J"
    assert logs.shown(b'{"event": "cut') == '{"event": "cut'
    assert logs.shown(b"\x1b[2J\xff") == "\\x1b[2J�"
    assert logs.shown(b"[1, 2]") == "[1, 2]"


def test_the_last_lines_come_from_older_files_too(file):
    for number, name in ((0, "chat.log.2"), (2, "chat.log.1"), (4, "chat.log")):
        file.with_name(name).write_bytes(entry(number) + b"\n" + entry(number + 1) + b"\n")
    for count in range(8):
        found = [json.loads(line)["event"] for line in logs.last(file, count, logs.end(file))]
        assert found == [f"event{n}" for n in range(max(0, 6 - count), 6)]


def test_without_a_file_it_is_said(file):
    with pytest.raises(FileNotFoundError):
        logs.last(file, 1, logs.end(file))


def test_following_misses_nothing_between_the_end_and_the_rotations(file):
    """Written while nobody looks, with a rotation after every few lines, by the log's own file."""
    writer = RotatedFile(file, max_bytes=300, keep=100)
    writer.write(entry(-1) + b"\n")
    written = 0

    def wait():
        nonlocal written
        for _ in range(2):  # at most one rotation between two looks
            writer.write(entry(written) + b"\n")
            written += 1

    following = logs.follow(file, logs.end(file), wait=wait)
    found = [json.loads(line)["event"] for line in islice(following, 50)]
    assert found == [f"event{n}" for n in range(50)]
    assert len(list(file.parent.iterdir())) > 10
    writer.close()


def test_following_waits_for_a_file_that_is_not_there_and_goes_on_when_it_was_cut(file):
    steps = iter(
        [
            lambda: file.write_bytes(b"one\n"),
            lambda: file.write_bytes(b"one\nhalf"),
            lambda: file.write_bytes(b"one\nhalf two\n"),
            lambda: file.write_bytes(b""),
            lambda: file.write_bytes(b"three\n"),
        ]
    )
    following = logs.follow(file, 0, wait=lambda: next(steps)() and None)
    assert list(islice(following, 3)) == [b"one", b"half two", b"three"]


def test_what_the_log_writes_can_be_read(file):
    configure(Log(), file=file)
    try:
        get_logger("part").info("happened", peer="somebody")
    finally:
        configure(Log())
    (line,) = logs.last(file, 5, logs.end(file))
    assert logs.shown(line).endswith("info    part: happened peer=somebody")
