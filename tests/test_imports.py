"""Who may import whom: the rules of the architecture, read from the sources."""

import ast
from pathlib import Path

import attrs
import pytest

import chat

ROOT = Path(chat.__file__).parent


@attrs.frozen(kw_only=True)
class Rule:
    """The modules within *modules* import of chat only *only* (None: anything), and never anything of *never*.

    *types_too*: also not where only the type checker looks.
    """

    modules: tuple[str, ...]
    only: tuple[str, ...] | None = None
    never: tuple[str, ...] = ()
    types_too: bool = True


INNER = ("chat.connection", "chat.session", "chat.daemon")
DEALERS = ("chat.rooms.manager", "chat.rooms.router")
OUTER = ("chat.cli", "chat.daemon", "chat.background", "chat.frontends", "chat.client")
RULES = [
    Rule(modules=("chat.errors",), only=(), never=("trio", "attrs", "msgspec")),
    Rule(modules=("chat.protocol",), only=("chat.errors", "chat.protocol"), never=("trio",)),
    Rule(
        modules=("chat.rooms.state", "chat.rooms.policy", "chat.rooms.effects"),
        only=("chat.errors", "chat.protocol", "chat.rooms", "chat.colors"),
        never=(*DEALERS, "trio", "sqlite3", "psycopg", "socket"),
    ),
    Rule(modules=("chat.rooms",), never=("chat.transport", "chat.store", *OUTER), types_too=False),
    Rule(modules=("chat.commands",), never=(*DEALERS, "chat.transport", "chat.store", *OUTER), types_too=False),
    Rule(modules=("chat.connection", "chat.session"), never=("chat.store", "chat.commands", "chat.cluster", *OUTER), types_too=False),
    Rule(modules=("chat.transport",), never=("chat.rooms", "chat.store", "chat.commands", "chat.accounts", *INNER, *OUTER)),
    Rule(modules=("chat.store",), never=(*DEALERS, "chat.transport", "chat.commands", *INNER, *OUTER)),
    Rule(modules=("chat.prove",), only=("chat.prove",)),
    Rule(modules=("chat.client", "chat.frontends"), never=("chat.rooms", "chat.store", "chat.commands", "chat.accounts", *INNER)),
]


def imports(source, module, *, is_package=False, types_too=True):
    """The names that *source*, the text of *module*, imports, as full as the text tells."""
    package = module if is_package else module.rpartition(".")[0]
    found = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not types_too:
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            found.update(f"{base}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return found


def within(name, prefixes):
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def offences(rule, module, source, *, is_package=False):
    def wrong(name):
        if rule.only is not None and name != "chat" and within(name, ["chat"]) and not within(name, rule.only):
            return True
        return within(name, rule.never)

    return sorted(filter(wrong, imports(source, module, is_package=is_package, types_too=rule.types_too)))


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(["chat", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__")
        yield name, path


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.modules[0])
def test_a_part_imports_only_what_it_may(rule):
    wrong = {
        name: bad
        for name, path in modules()
        if within(name, rule.modules) and (bad := offences(rule, name, path.read_text(), is_package=path.name == "__init__.py"))
    }
    assert not wrong


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import trio", ["trio"]),
        ("import trio.testing as t", ["trio.testing"]),
        ("from trio import open_nursery", ["trio.open_nursery"]),
        ("def f():\n    import trio", ["trio"]),
        ("try:\n    import trio\nexcept ImportError: pass", ["trio"]),
        ("from chat import store", ["chat.store"]),
        ("from chat.store.base import Store", ["chat.store.base.Store"]),
        ("from ..store import base", ["chat.store.base"]),
        ("from .. import store", ["chat.store"]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import trio", ["trio"]),
        ("from chat.errors import ChatError\nfrom chat.protocol import codec\nfrom . import names\nimport json, attrs, triolike", []),
    ],
)
def test_the_check_sees_every_way_to_import(source, found):
    rule = Rule(modules=("chat.protocol",), only=("chat.errors", "chat.protocol"), never=("trio",))
    assert offences(rule, "chat.protocol.x", source) == found


def test_what_only_the_type_checker_reads_can_be_left_out():
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import trio\nelse:\n    import socket"
    rule = Rule(modules=("chat.rooms",), never=("trio", "socket"), types_too=False)
    assert offences(rule, "chat.rooms.x", source) == ["socket"]


def test_every_rule_is_about_something_that_there_is_or_will_be():
    assert {name for name, _ in modules()} >= {"chat.errors", "chat.protocol.codec", "chat.rooms.effects", "chat.store.base"}
