"""The document for client authors says what the code does: its tables against the classes, both ways, and its example played."""

import json
import re
import types
import typing
from pathlib import Path

import pytest

from chat import protocol
from chat.errors import CODES
from chat.protocol import messages as m
from chat.protocol import states
from chat.protocol.codec import decode_notice, encode
from chat.protocol.connection import Connection, Role
from chat.protocol.fields import fields_of

README = (Path(protocol.__file__).parent / "README.md").read_text()
HEADING = re.compile(r"^### `(\w+)` — (client → server|server → client|either side)$", re.MULTILINE)
DIRECTIONS = {"client → server": [m.REQUESTS], "server → client": [m.NOTICES], "either side": [m.REQUESTS, m.NOTICES]}


def sections():
    """(type, direction) → the text below its heading."""
    starts = list(HEADING.finditer(README))
    for match in starts:
        following = re.compile(r"^##", re.MULTILINE).search(README, match.end())
        yield (match[1], match[2]), README[match.end() : following.start() if following else None]


def table(text):
    """The rows of the table in *text*: field → (type, required)."""
    assert "| field | type | required | meaning |\n|---|---|---|---|\n" in text
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip().replace("\\|", "|") for cell in row] for row in rows]
    assert all(len(row) == 4 and row[2] in ("yes", "no") for row in cells)
    return {name: (type_, required == "yes") for name, type_, required, _ in cells}


def word(annotation):
    """What the tables call a type."""
    for known, name in ((m.Cid, "cid"), (m.Epoch, "epoch"), (m.Text, "text"), (m.Seq, "seq"), (m.Count, "count"), (m.Int, "integer")):
        if annotation is known:
            return name
    if annotation in (m.Id, m.Head):
        return "id" if annotation == m.Id else "head"
    plain = {str: "string", bool: "boolean", float: "number", typing.Any: "json", m.ChannelInfo: "channel"}
    if annotation in plain:
        return plain[annotation]
    parts = typing.get_args(annotation)
    match typing.get_origin(annotation):
        case origin if origin is list:
            return f"[{word(parts[0])}]"
        case origin if origin is dict:
            return f"{{{word(parts[1])}}}"
        case typing.Literal:
            return "|".join(f'"{part}"' for part in parts)
        case types.UnionType | typing.Union:
            given = [part for part in parts if part is not type(None)]
            return word(given[0] if len(given) == 1 else typing.Union[tuple(given)])  # noqa: UP007
    raise NotImplementedError(annotation)


def expected(cls):
    """A field is required on the wire unless it may be None."""
    return {
        field.name.removesuffix("_"): (word(field.type), type(None) not in typing.get_args(field.type))
        for field in fields_of(cls)
    }  # fmt: skip


SECTIONS = dict(sections())


@pytest.mark.parametrize("key", SECTIONS, ids=" ".join)
def test_each_table_has_the_fields_of_the_class(key):
    type_, direction = key
    for classes in DIRECTIONS[direction]:
        assert table(SECTIONS[key]) == expected(classes[type_])


def test_every_message_has_a_section_in_its_direction():
    documented = {(type_, id(classes)) for type_, direction in SECTIONS for classes in DIRECTIONS[direction]}
    assert documented == {(type_, id(classes)) for classes in (m.REQUESTS, m.NOTICES) for type_ in classes}
    assert len(list(HEADING.finditer(README))) == len(SECTIONS), "a heading twice"
    assert len(re.findall(r"^### ", README, re.MULTILINE)) == len(SECTIONS), "a heading that is no message"


def test_the_channels_of_a_session_are_documented():
    named = [f"{field.name}{'?' if field.optional else ''}" for field in fields_of(m.ChannelInfo)]
    for type_ in ("session", "resumed"):
        assert f"`{{{', '.join(named)}}}`" in SECTIONS[type_, "server → client"]


def test_the_error_codes_are_the_closed_list():
    errors = README[README.index("## 8. Errors") : README.index("## 9.")]
    assert set(re.findall(r"^\| `(\w+)` \|", errors, re.MULTILINE)) == CODES


def test_the_example_is_what_two_machines_say_to_each_other():
    blocks = re.findall(r"^```\n(.*?)^```", README[README.index("## 10.") :], re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        server = Connection(Role.SERVER)
        for line in block.splitlines():
            frame = line[2:].encode()
            if line.startswith("> "):
                (received,) = server.receive([frame])
                if '"text":"no cid"' in line:
                    answer = m.Error(id=received.id, code=received.code, message=received.message)
                else:
                    assert type(received) is m.REQUESTS[received.type]
                    assert json.loads(encode(received)) == json.loads(frame)
            else:
                notice = decode_notice(frame)
                assert json.loads(server.send(notice)) == json.loads(frame)
                if notice.type == "error":
                    assert notice == answer


def test_the_states_of_the_document_are_those_of_the_tables():
    life = README[README.index("## 2.") : README.index("## 3.")]
    rows = [line.split("|")[1:-1] for line in life.splitlines() if line.startswith("| ")][1:]
    State = states.State
    for row, state in zip(rows, [State.START, State.GREETED, State.OPENING, State.RESUMING], strict=False):
        assert set(re.findall(r"`(\w+)`", row[1])) == {cls.type for cls in states.TRANSITIONS[Role.CLIENT][state]}
    assert len(rows) == 5
