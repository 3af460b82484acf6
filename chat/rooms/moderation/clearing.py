"""Taking messages away: the decision behind ``clear``.

The places stay: each message's text is erased in the store (`EraseTexts`), and a ``deleted`` record in the channel's own order tells of
it. So who was away gets it by the ordinary replay, and whoever reads the history finds a message without a text.
"""

from collections.abc import Sequence

from chat.rooms import effects as fx
from chat.rooms.moderation import audit
from chat.rooms.policy import require
from chat.rooms.state import Account, Room

AMOUNT_MAX = 500  # at once; each leaves a record


def clear(who: Account, room: Room, seqs: Sequence[int]) -> list[fx.Effect]:
    """Take the messages *seqs* of a channel away. No effect for none."""
    require("moderate", who, room)
    if not seqs:
        return []
    logged = audit.entry(who.id, "clear", room=room.id, after={"messages": len(seqs), "from": min(seqs), "to": max(seqs)})
    tombstones = [fx.Append(conv=room.id, kind="deleted", author=who.id, body={"target": seq, "by": who.id}) for seq in sorted(seqs)]
    return [logged, fx.EraseTexts(conv=room.id, seqs=tuple(seqs)), *tombstones]
