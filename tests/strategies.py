"""Hypothesis strategies for everything that may be on the wire: every Request and Notice, made from its fields' types.

``requests`` and ``notices`` give valid messages of any class, ``message(cls)`` those of one. What they make may always be sent.
"""

import builtins
import itertools
import json
import types
import typing
from typing import Any, get_args, get_origin

from hypothesis import strategies as st
from msgspec import Meta

from chat.protocol import messages as m
from chat.protocol.codec import encode

# Half surrogate pairs are no text; C0, DEL and C1 are refused in requests.
LINE_CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"])
TEXT_CHARACTERS = st.one_of(LINE_CHARACTERS, st.sampled_from('\n\t"\\{}[]\u2028é😀\ufffe'))

lines = st.text(LINE_CHARACTERS, max_size=20)
texts = st.text(TEXT_CHARACTERS, min_size=1, max_size=60)
ints = st.integers(-m.MAX_INT, m.MAX_INT)
cids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
epochs = st.from_regex(r"[A-Za-z0-9]{8,32}", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | ints | st.floats(allow_nan=False, allow_infinity=False) | lines,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(lines, inner, max_size=3),
    max_leaves=6,
)


def of_type(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of one of the annotations that `chat.protocol.messages` uses, None where it allows it."""
    if annotation is m.Cid:
        return cids
    if annotation is m.Epoch:
        return epochs
    if annotation is m.Text:
        return texts
    if annotation is Any:
        return json_values.filter(lambda value: value is not None)  # null is absence
    if annotation is m.ChannelInfo:
        return message(annotation)
    if annotation is str:
        return lines
    if annotation is bool:
        return st.booleans()
    if annotation is float:
        return st.floats(0, 1e9) | st.integers(0, 1000).map(float)
    if annotation is type(None):
        return st.none()
    parts = get_args(annotation)
    if metadata := getattr(annotation, "__metadata__", None):
        bounds: Meta = metadata[0]
        if annotation.__origin__ is int:
            return st.integers(int(bounds.ge or 0), int(bounds.le or m.MAX_INT))
        return st.text(LINE_CHARACTERS, max_size=16) | st.just("i" * (bounds.max_length or 1))  # the string of an id
    match get_origin(annotation):
        case types.UnionType | typing.Union:
            return st.one_of([of_type(part) for part in parts])
        case builtins.list:
            return st.lists(of_type(parts[0]), max_size=4)
        case builtins.tuple:
            return st.tuples(*(of_type(part) for part in parts))
        case builtins.dict:
            return st.dictionaries(of_type(parts[0]), of_type(parts[1]), max_size=4)
        case typing.Literal:
            return st.sampled_from(parts)
    raise NotImplementedError(annotation)


def message(cls: type[Any]) -> st.SearchStrategy[Any]:
    """Valid messages of one class."""
    fields = {field.name: of_type(field.type) for field in m.fields_of(cls)}
    if cls is m.Command:
        fields["text"] = lines.filter(bool)  # one line, unlike other texts
    if cls is m.Send:
        one_of_two = st.tuples(lines, st.booleans())
        return st.tuples(st.fixed_dictionaries(fields), one_of_two).map(_addressed)
    return st.builds(cls, **fields)


def _addressed(drawn: Any) -> m.Send:
    values, (name, private) = drawn
    return m.Send(**{**values, "channel": None if private else name, "to": name if private else None})


requests: st.SearchStrategy[Any] = st.one_of([message(cls) for cls in m.REQUESTS.values()])
notices: st.SearchStrategy[Any] = st.one_of([message(cls) for cls in m.NOTICES.values()])
records: st.SearchStrategy[Any] = st.one_of([message(cls) for cls in m.RECORDS.values()])


@st.composite
def chunked(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """*data* cut anywhere: what a stream may hand out for it."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    edges = [0, *cuts, len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@st.composite
def garbage(draw: st.DrawFn) -> bytes:
    """Frames that are nearly right: bytes, JSON of any shape, and good frames with a part changed."""
    kind = draw(st.integers(0, 3))
    if kind == 0:
        return draw(st.binary(max_size=80))
    if kind == 1:
        types_ = st.sampled_from([*m.REQUESTS, *m.NOTICES]) | json_values
        keys = st.sampled_from(["id", "cid", "text", "channel", "to", "conv", "seq", "epoch", "cursors", "limit", "username"]) | lines
        return json.dumps({**draw(st.dictionaries(keys, json_values, max_size=6)), "type": draw(types_)}).encode()
    frame = bytearray(encode(draw(requests)))
    if kind == 2:
        place = draw(st.integers(0, len(frame) - 1))
        frame[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    else:
        del frame[draw(st.integers(0, len(frame))) :]
    return bytes(frame)
