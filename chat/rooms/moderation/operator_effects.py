"""Effects of the operator's decisions, beside those in `chat.rooms.effects`. Plain data."""

import attrs


@attrs.frozen(kw_only=True)
class SetSuspended:
    """``at_ms`` None: not any more. A suspended account stays where it is, but nobody gets a session of it."""

    account: int
    at_ms: int | None
    reason: str | None = None


@attrs.frozen(kw_only=True)
class ForgetAccount:
    """Nobody's account from now on: its name becomes *name*, and all that is known of the person goes with the transaction, but for the
    records, which are erased in steps (`Writer.tidy`). ``keep_texts``: what the person said stays, under that name."""

    account: int
    name: str
    canonical: str
    skeleton: str
    password_hash: str = attrs.field(repr=False)
    keep_texts: bool
    at_ms: int


@attrs.frozen(kw_only=True)
class DropInvite:
    code: str = attrs.field(repr=False)


@attrs.frozen(kw_only=True)
class SetRetention:
    """How long records are kept, and how many bytes of text, in a room, or (None) wherever a room says nothing. None: for ever, or
    in a room: as on the server; 0 in a room: for ever, whatever the server says."""

    room: int | None
    keep_ms: int | None
    keep_bytes: int | None
