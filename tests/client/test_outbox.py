"""The outbox on disk: kept until done, whatever tears the file."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat.client import outbox as module
from chat.client.outbox import Item, Outbox


def item(number, text="text"):
    return Item(cid=f"cid-{number}", to="#lobby", text=f"{text} {number}")


def test_what_is_not_done_is_there_again_in_order(tmp_path):
    box = Outbox(tmp_path / "outbox.jsonl")
    for number in range(5):
        box.put(item(number))
    box.done("cid-1")
    box.done("cid-3")
    again = Outbox(tmp_path / "outbox.jsonl")  # the first is not closed: a SIGKILL closes nothing
    assert [i.cid for i in again.items] == ["cid-0", "cid-2", "cid-4"]
    assert (tmp_path / "outbox.jsonl").stat().st_mode & 0o777 == 0o600


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(cut=st.integers(0, 400))
def test_cut_at_any_byte_it_loses_only_what_was_never_synced(tmp_path, cut):
    path = tmp_path / "outbox.jsonl"
    path.unlink(missing_ok=True)
    box = Outbox(path)
    ends = []
    for number in range(4):
        box.put(item(number))
        ends.append(path.stat().st_size)
    box.close()
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    again = Outbox(path)
    assert [i.cid for i in again.items] == [f"cid-{n}" for n, end in enumerate(ends) if end <= cut]
    again.put(item(9))
    assert Outbox(path).items[-1] == item(9)


def test_a_failed_sync_keeps_nothing(tmp_path, monkeypatch):
    box = Outbox(tmp_path / "outbox.jsonl")
    box.put(item(1))

    def full(fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            box.put(item(2))
    box.put(item(3))
    assert [i.cid for i in Outbox(tmp_path / "outbox.jsonl").items] == ["cid-1", "cid-3"]


def test_each_text_is_synced_before_put_returns(tmp_path, monkeypatch):
    box = Outbox(tmp_path / "outbox.jsonl")
    synced = []
    real = module.os.fsync

    def watching(fd):
        real(fd)
        synced.append((tmp_path / "outbox.jsonl").read_bytes())

    monkeypatch.setattr(module.os, "fsync", watching)
    box.put(item(7))
    assert b"cid-7" in synced[-1]


def test_it_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "COMPACT_BYTES", 500)
    box = Outbox(tmp_path / "outbox.jsonl")
    box.put(item(0, "stays"))
    for number in range(1, 60):
        box.put(item(number))
        box.done(f"cid-{number}")
    assert (tmp_path / "outbox.jsonl").stat().st_size < 1000
    assert [i.cid for i in Outbox(tmp_path / "outbox.jsonl").items] == ["cid-0"]
