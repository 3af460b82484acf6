"""The channels that one is a member of, as far as the server has told."""

from collections.abc import Iterable

from chat.protocol import messages as m


class Channels(dict[str, m.ChannelInfo]):
    """By name, without the sigil. A prefix may be told before one is in the channel: on the way in."""

    def __init__(self) -> None:
        super().__init__()
        self._prefixes: dict[str, str | None] = {}

    def opened(self, infos: Iterable[m.ChannelInfo]) -> None:
        """A session begins, or goes on: these are all."""
        self.clear()
        self._prefixes = {}
        for info in infos:
            self[info.channel] = info
            self._prefixes[info.channel] = info.prefix

    def joined(self, conv: str, answer: m.Ok) -> None:
        name = conv.removeprefix("#")
        self[name] = m.ChannelInfo(channel=name, topic=answer.topic or "", role=answer.role or "member")

    def left(self, conv: str) -> None:
        self.pop(conv.removeprefix("#"), None)
        self._prefixes.pop(conv.removeprefix("#"), None)

    def changed(self, notice: m.ChannelChanged) -> None:
        self._prefixes[notice.conv.removeprefix("#")] = notice.prefix

    def topic(self, record: m.Topic) -> None:
        info = self.get(record.conv.removeprefix("#"))
        if info is not None:
            self[info.channel] = m.ChannelInfo(channel=info.channel, topic=record.text, role=info.role, prefix=info.prefix)

    def prefix_of(self, conv: str) -> str | None:
        """Of commands there, where it is the channel's own."""
        return self._prefixes.get(conv.removeprefix("#")) if conv.startswith("#") else None
