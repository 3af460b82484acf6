"""Which cids were decided lately. The store knows the committed ones; what is still on its way to it is known here.

A connection looks a command's cid up before it asks for the command, since one that was decided twice has changed the state twice and
stored it once: the committer notices, and everything decided since has to be refused and the state loaded anew. A retry that comes
while the first attempt is being committed would slip through that look-up, and who sends one cid twice on purpose could keep the
whole server loading. So the decision asks here too.

Nothing is told when an attempt is stored: an entry is simply kept for one to two turns, which is far longer than a commit and the
reading of a cid take. Should the storage be slower than that, a retry costs one reload, and nothing else.
"""

from typing import Final

TURN_S: Final = 5.0  # as long as a locked database is waited for; at 5,000 messages a second that is 50,000 entries, some 8 MB

Key = tuple[int, str]  # the account and its cid


class FreshCids:
    """*now* is monotonic, in seconds."""

    def __init__(self, now: float) -> None:
        self._young: set[Key] = set()
        self._old: set[Key] = set()
        self._turned_at = now

    def add(self, key: Key) -> None:
        self._young.add(key)

    def discard(self, key: Key) -> None:
        """It was not stored: a retry of it is decided again."""
        self._young.discard(key)
        self._old.discard(key)

    def __contains__(self, key: Key) -> bool:
        return key in self._young or key in self._old

    def turn(self, now: float) -> None:
        """Forget what is older than a turn. Now and then."""
        if now - self._turned_at >= TURN_S:
            self._turned_at = now
            self._old, self._young = self._young, set()
