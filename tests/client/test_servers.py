"""What is kept on disk: pins, accounts, slots with their locks."""

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


def test_a_damaged_file_is_as_good_as_none(tmp_path):
    store = ClientStore(tmp_path)
    slot = store.open_slot(KEY, "ann")
    (slot.folder / "session.json").write_bytes(b'{"token": "x')
    (slot.folder / "cursors.json").write_bytes(b'{"#a": ["e"], "#b": ["epoch0001", 3], "#c": 7}')
    assert slot.session == {}
    assert slot.load_cursors() == {"#b": ("epoch0001", 3)}
    slot.close()
