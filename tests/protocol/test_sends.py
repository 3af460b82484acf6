"""`decode_sends`: a chunk of frames, decoded by one call, is what its frames are one by one."""

import json

from hypothesis import given
from hypothesis import strategies as st

from chat.errors import RemoteProtocolError
from chat.protocol.codec import TEXT_BYTES, decode_request, decode_sends, encode
from tests import strategies as gen

PLAIN = {"type": "send", "id": 1, "cid": "c-1", "channel": "lobby", "text": "hello"}
# What may be wrong with a send, or only unusual: a frame changed like this is read as if it came alone.
CHANGES = [
    lambda frame: frame,
    lambda frame: frame.replace(b"hello", "héllo, grüß dich, 你好 🙂".encode()),
    lambda frame: frame.replace(b"hello", b"[1] {2}"),
    lambda frame: frame.replace(b"hello", b"[" * 17),
    lambda frame: frame.replace(b"hello", b""),
    lambda frame: frame.replace(b"hello", b"a\\u0001b"),
    lambda frame: frame.replace(b"hello", b"a\\nb"),
    lambda frame: frame.replace(b"hello", b"a\x7fb"),
    lambda frame: frame.replace(b"hello", b"a\x01b"),
    lambda frame: frame.replace(b"hello", b"a\xc2\x80b"),
    lambda frame: frame.replace(b"hello", b"\xff"),
    lambda frame: frame.replace(b"hello", b"h" * 301),
    lambda frame: frame.replace(b'"id":1', b'"id":"\xc3\xa4' + b"\xc3\xa4" * 40 + b'"'),
    lambda frame: frame.replace(b'"id":1', b'"id":1.5'),
    lambda frame: frame.replace(b'"channel":"lobby",', b""),
    lambda frame: frame.replace(b'"channel":"lobby"', b'"channel":"lobby","to":"ann"'),
    lambda frame: frame.replace(b'"channel":"lobby"', b'"channel":"lobby","type":"join"'),
    lambda frame: frame.replace(b'"channel":"lobby"', b'"channel":"lobby","from":"\xff"'),
    lambda frame: frame.replace(b'"channel":"lobby"', b'"channel":"lobby","x":' + b"[" * 17 + b"]" * 17),
    lambda frame: frame.replace(b'"channel":"lobby"', b'"channel":"lobby","x":' + b'{"a":' * 17 + b"1" + b"}" * 17),
    lambda frame: frame + frame,
    lambda frame: frame[:20],
    lambda frame: frame[20:],
    lambda frame: frame + b"\r",
    lambda frame: b" " + frame,
    lambda frame: b"",
]


def dump_plain(n):
    return json.dumps({**PLAIN, "id": n}, separators=(",", ":")).encode()


def one_by_one(frames, text_bytes):
    requests = []
    for frame in frames:
        try:
            requests.append(decode_request(frame, text_bytes))
        except RemoteProtocolError:
            return None
    return requests


@given(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=4))
def test_a_chunk_of_sends_is_what_its_frames_are(changes):
    frames = [change(dump_plain(1)) for change in changes]
    together = decode_sends(frames, 300)
    assert together is None or together == one_by_one(frames, 300)


@given(st.lists(gen.requests.map(encode) | gen.garbage(), min_size=1, max_size=4))
def test_a_chunk_of_anything_is_what_its_frames_are(frames):
    together = decode_sends(frames)
    assert together is None or together == one_by_one(frames, TEXT_BYTES)


def test_a_chunk_of_plain_sends_needs_one_call():
    frames = [dump_plain(n) for n in range(10)] + [CHANGES[1](dump_plain(10)), CHANGES[2](dump_plain(11)).replace(b"{2}", b"")]
    assert [request.id for request in decode_sends(frames)] == list(range(12))
    assert decode_sends(frames[:1]) == [decode_request(frames[0])]
