import pytest
import wsproto.frame_protocol as ws
from hypothesis import given
from hypothesis import strategies as st

from chat.transport.base import Dialect, Peer, framed


@pytest.mark.parametrize(
    ("address", "text", "prefix", "loopback"),
    [
        (("192.0.2.7", 5), "192.0.2.7:5", "192.0.2.7", False),
        (("127.0.0.1", 5), "127.0.0.1:5", "127.0.0.1", True),
        (("127.9.9.9", 5), "127.9.9.9:5", "127.9.9.9", True),
        (("::1", 5, 0, 0), "[::1]:5", "::/64", True),
        (("::ffff:192.0.2.7", 5, 0, 0), "192.0.2.7:5", "192.0.2.7", False),
        (("::ffff:127.0.0.1", 5, 0, 0), "127.0.0.1:5", "127.0.0.1", True),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "[2001:db8:1:2:3:4:5:6]:5", "2001:db8:1:2::/64", False),
        (("fe80::1%eth0", 5, 0, 2), "[fe80::1]:5", "fe80::/64", False),
    ],
)
def test_a_peer(address, text, prefix, loopback):
    peer = Peer.of(address)
    assert (str(peer), peer.prefix, peer.loopback) == (text, prefix, loopback)


def test_a_line():
    assert framed(Dialect.LINES, b"{}") == b"{}\n"


@given(st.one_of(st.binary(max_size=300), st.sampled_from([b"x" * 125, b"x" * 126, b"x" * 65535, b"x" * 65536])))
def test_a_web_frame_is_what_wsproto_writes(payload):
    """An independent writer of the same RFC."""
    expected = ws.FrameProtocol(client=False, extensions=[])._serialize_frame(ws.Opcode.TEXT, payload)
    assert framed(Dialect.WEB, payload) == expected
