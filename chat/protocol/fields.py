"""The types of the fields of messages, with their bounds, the decorator that makes a class a message, and what there is to ask of one.

Messages are frozen attrs classes; the one that a server decodes all day, `Send`, is a msgspec Struct, which `fields_of` and `evolve` hide.
"""

from typing import Annotated, Any, Final, NamedTuple, TypeVar, dataclass_transform

import attrs
import msgspec
from msgspec import Meta

MAX_INT: Final = 2**53  # beyond it JSON numbers are not exact in every language

Int = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)]
Seq = Annotated[int, Meta(ge=0, le=MAX_INT)]
Count = Annotated[int, Meta(ge=1, le=MAX_INT)]
Id = Annotated[int, Meta(ge=-MAX_INT, le=MAX_INT)] | Annotated[str, Meta(max_length=64)]
Cid = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Epoch = Annotated[str, Meta(pattern=r"^[A-Za-z0-9]{8,32}\Z")]
Head = tuple[Epoch, Seq]
Text = Annotated[str, Meta(min_length=1)]
Line = str
Json = Any

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(attrs.field,))
def message(cls: type[_T]) -> type[_T]:
    """Makes a class a message. A plain alias of ``attrs.frozen`` would hide the constructors from mypy."""
    return attrs.frozen(kw_only=True)(cls)


class Field(NamedTuple):
    """One field of a message. ``required``: it has no default. The default of all others is None, or they are always sent."""

    name: str
    type: Any
    required: bool
    optional: bool  # its default is None: left out where it is absent


def fields_of(cls: type[Any]) -> list[Field]:
    """The fields of the message class *cls*, in their order."""
    if issubclass(cls, msgspec.Struct):
        return [Field(f.name, f.type, f.required, f.default is None) for f in msgspec.structs.fields(cls)]
    return [Field(f.name, f.type, f.default is attrs.NOTHING, f.default is None) for f in attrs.fields(cls)]


def evolve(message: _T, **changes: Any) -> _T:
    """A copy of *message* with other values in some fields."""
    if isinstance(message, msgspec.Struct):
        return msgspec.structs.replace(message, **changes)
    return attrs.evolve(message, **changes)  # type: ignore[misc]
