"""What plugins get in the place of accounts and rooms: plain small objects, each a picture of one moment.

As annotations they are kinds of arguments, like `chat.commands.arguments.User` and ``Channel`` of the commands that chat comes with.
"""

from typing import ClassVar

import attrs

from chat.commands import arguments
from chat.rooms.state import Account, Room, State


@attrs.frozen(kw_only=True)
class User:
    """Somebody. Two are equal when they are the same account, whatever their name and role are by then.

    ``role`` is that on the server: "owner", "admin" or "user". ``channel_role`` that in the channel at hand: "owner", "moderator",
    "member", or None for who is not in it. ``id`` stays the same for ever: keep that, not the name.
    """

    argument_kind: ClassVar = arguments.USER

    id: int
    name: str = attrs.field(eq=False)
    color: str | None = attrs.field(eq=False)
    role: str = attrs.field(eq=False)
    channel_role: str | None = attrs.field(eq=False)
    online: bool = attrs.field(eq=False)

    def __str__(self) -> str:
        return self.name


@attrs.frozen(kw_only=True)
class Channel:
    """A channel. Equal by ``id``, as a `User` is. ``str()`` is its name with the ``#``."""

    argument_kind: ClassVar = arguments.CHANNEL

    id: int
    name: str = attrs.field(eq=False)
    topic: str = attrs.field(eq=False)
    private: bool = attrs.field(eq=False)

    def __str__(self) -> str:
        return f"#{self.name}"


def user_of(state: State, account: Account, room: Room | None) -> User:
    return User(
        id=account.id,
        name=account.name,
        color=account.color,
        role="user" if account.role == "member" else account.role,
        channel_role=room.members.get(account.id) if room is not None else None,
        online=state.is_online(account.id),
    )


def channel_of(room: Room) -> Channel:
    return Channel(id=room.id, name=room.name, topic=room.topic, private=room.private)
