"""One connection's end, over a stream in memory."""

import pytest
import trio
import trio.testing

from chat.client.dial import Wire
from chat.protocol import messages as m
from chat.protocol.codec import encode


async def test_what_is_written_just_when_the_server_closed_is_a_broken_connection_and_no_bug():
    ours, theirs = trio.testing.memory_stream_pair()
    wire = Wire(ours, None)
    await wire.send([m.Hello(protocol=1, client="test")])
    await theirs.send_all(encode(m.Closing(code="unauthorized")) + b"\n")
    assert await wire.receive() == [m.Closing(code="unauthorized")]
    assert wire.ended
    with pytest.raises(trio.BrokenResourceError):
        await wire.send([m.Members(id=1, channel="lobby")])
