"""The types of the fields of messages, with their bounds, and the decorator that makes a class a message."""

from typing import Annotated, Any, Final, TypeVar, dataclass_transform

import attrs
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
