"""What is kept on disk: pins, accounts, slots with their locks."""

import multiprocessing
import os

from chat.client.outbox import Item
from chat.client.servers import ClientStore

KEY = "example.org:7667"


def test_servers_are_remembered_and_nothing_is_forgotten_by_remembering_more(tmp_path):
    store = ClientStore(tmp_path)
    store.remember(KEY, pin="pin", name="Home")
    store.remember(KEY, account="Ann")
    store.remember(KEY, account="bob")
    store.remember(KEY, account="ann")
    known = ClientStore(tmp_path).server(KEY)
    assert (known.pin, known.name, known.accounts) == ("pin", "Home", ("ann", "bob"))
    assert ClientStore(tmp_path).server("other:1").pin is None


def test_everything_is_private(tmp_path):
    store = ClientStore(tmp_path / "a" / "client")
    store.remember(KEY, pin="pin")
    slot = store.open_slot(KEY, "../../Ann/é")
    slot.save_session(user="Ann", session="s", token="secret")
    slot.save_cursors({"#lobby": ("epoch0001", 4)})
    for path in (tmp_path / "a").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert slot.folder.parent.parent.parent == store.folder
    assert slot.load_cursors() == {"#lobby": ("epoch0001", 4)}
    slot.close()


def test_a_slot_is_one_clients_and_unsent_texts_come_first(tmp_path):
    store = ClientStore(tmp_path)
    first, second, third = (store.open_slot(KEY, "ann") for _ in range(3))
    assert [slot.folder.name for slot in (first, second, third)] == ["0", "1", "2"]
    second.save_session(user="ann", session="s", token="t")
    third.outbox.put(Item(cid="c", to="#lobby", text="unsent"))
    for slot in (first, second, third):
        slot.close()
    again = [store.open_slot(KEY, "ANN") for _ in range(3)]
    assert [slot.folder.name for slot in again] == ["2", "1", "0"]
    for slot in again:
        slot.close()


def names(tmp_path):
    return sorted(int(folder.name) for folder in next(tmp_path.glob("*/ann")).iterdir() if folder.is_dir())


def test_a_client_after_the_other_leaves_no_folders_behind(tmp_path):
    store = ClientStore(tmp_path)
    for _ in range(5):
        slot = store.open_slot(KEY, "ann")
        slot.save_session(user="ann", session="s", token="t")
        slot.close()
    assert names(tmp_path) == [0]


def test_old_folders_with_nothing_worth_keeping_are_taken_away(tmp_path):
    store = ClientStore(tmp_path)
    slots = [store.open_slot(KEY, "ann") for _ in range(7)]
    slots[2].save_session(user="ann", session="s", token="t")
    slots[3].outbox.put(Item(cid="c", to="#lobby", text="unsent"))
    slots[4].save_cursors({"#lobby": ("epoch0001", 4)})
    slots[5].save_session(user="ann", session="s", token="t")
    slots[5].forget_session()
    (slots[5].folder / ".cursors.json.77.new").touch()  # of a process that was killed
    (slots[0].folder / "foreign").write_text("not ours: it stays")
    for slot in slots[:6]:
        slot.close()
    again = store.open_slot(KEY, "ann")
    assert again.folder.name == "3"
    assert names(tmp_path) == [0, 2, 3, 4, 6], "6 is in use"
    slots[6].close()
    again.close()


def _open_and_close(folder, times):
    store = ClientStore(folder)
    for _ in range(times):
        slot = store.open_slot(KEY, "ann")
        (slot.folder / "mine").touch(exist_ok=False)  # nobody else has it, and it is there
        slot.outbox.put(Item(cid="c", to="#lobby", text="unsent"))
        slot.outbox.done("c")
        (slot.folder / "mine").unlink()
        slot.close()


def test_many_processes_get_a_slot_each_and_none_takes_anothers_away(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_open_and_close, args=(tmp_path, 40)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(names(tmp_path)) <= 4


def test_who_has_the_session_is_known_by_the_number_of_the_process(tmp_path):
    store = ClientStore(tmp_path)
    assert store.in_use(KEY, "ann") == []
    first, second = store.open_slot(KEY, "ann"), store.open_slot(KEY, "ann")
    first.save_session(user="ann", session="s", token="t")
    assert store.in_use(KEY, "Ann") == [os.getpid()], "the second has none"
    first.close()
    assert store.in_use(KEY, "ann") == []
    second.close()


def test_a_damaged_file_is_as_good_as_none(tmp_path):
    store = ClientStore(tmp_path)
    slot = store.open_slot(KEY, "ann")
    (slot.folder / "session.json").write_bytes(b'{"token": "x')
    (slot.folder / "cursors.json").write_bytes(b'{"#a": ["e"], "#b": ["epoch0001", 3], "#c": 7}')
    assert slot.session == {}
    assert slot.load_cursors() == {"#b": ("epoch0001", 3)}
    slot.close()
