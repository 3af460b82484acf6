"""What the guide in the README shows works as it stands there."""

import re
from pathlib import Path

import chat
from chat.commands import facade
from chat.commands import plugins as loader

README = (Path(chat.__file__).parent.parent / "README.md").read_text()
GUIDE = README[README.index("## Write a command of your own") : README.index("## Architecture in a page")]


def test_the_example_and_its_test(tmp_path, monkeypatch):
    hello, test = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "hello.py").write_text(hello)
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(test, namespace)  # noqa: S102
    namespace["test_hello"]()


def test_all_that_is_named_is_there():
    """And all that is there for authors is named."""
    for name in re.findall(r"`(?:await )?ctx\.(\w+)", GUIDE):
        assert hasattr(facade.Context, name) or name == "store", name
    for name in vars(facade.Context) | vars(facade.Background):
        if not name.startswith("_") and name not in ("members_of",):
            assert re.search(rf"\b{name}\b", GUIDE), f"the guide does not name {name}"
    for name in ("get", "items", "set", "delete", "update"):
        assert hasattr(facade.Store, name)
        assert re.search(rf"\.{name}\(", GUIDE), name
    assert loader.ENTRY_POINTS in GUIDE
