"""Chunks of a byte stream to frames: one frame a line, ended by 0x0A alone.

*Source*: contract, section 1. A 0x0D before the end stays in the frame: to JSON it is white space.
"""

from typing import Final

import attrs

from chat.errors import RemoteProtocolError

FRAME_BYTES_BEFORE_LOGIN: Final = 8 * 1024
FRAME_BYTES: Final = 64 * 1024


@attrs.define(eq=False)
class LineFramer:
    """Cuts what arrives into frames of at most *limit* bytes, the end not counted and the limit itself allowed.

    *limit* may be changed at any time and holds for what is fed from then on. Never holds more than *limit* bytes back.
    """

    limit: int = FRAME_BYTES_BEFORE_LOGIN
    error: RemoteProtocolError | None = attrs.field(default=None, init=False)
    _rest: bytearray | None = attrs.field(default=None, init=False, repr=False)  # of a frame that has begun

    def feed(self, chunk: bytes) -> list[bytes]:
        """The frames that *chunk* completes, without their ends, in order; empty ones too.

        After a frame that is too long nothing can be read any more. The frames before it are still given out, and ``error`` is set;
        so whoever has dealt with them looks at ``error`` before waiting for more.

        *Raises* RemoteProtocolError (too_large, fatal) when there is nothing to give out before it, and at each later call.
        """
        if self.error is not None:
            raise self.error
        frames = chunk.split(b"\n")
        tail = frames.pop()
        if frames and self._rest is not None:
            frames[0] = bytes(self._rest) + frames[0]
            self._rest = None
        if len(chunk) > self.limit or (frames and len(frames[0]) > self.limit):
            frames = self._up_to_the_limit(frames)
        if self.error is None and tail:
            if self._rest is None:
                self._rest = bytearray()
            self._rest += tail
            if len(self._rest) > self.limit:
                self._fail()
        if self.error is not None and not frames:
            raise self.error
        return frames

    @property
    def unfinished(self) -> bool:
        """Whether a frame has begun and not ended: at the end of the stream it is dropped, never executed."""
        return self._rest is not None

    def _up_to_the_limit(self, frames: list[bytes]) -> list[bytes]:
        for index, frame in enumerate(frames):
            if len(frame) > self.limit:
                self._fail()
                return frames[:index]
        return frames

    def _fail(self) -> None:
        self._rest = None
        self.error = RemoteProtocolError("too_large", f"a frame must have at most {self.limit} bytes", fatal=True)
