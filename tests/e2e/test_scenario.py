"""The road of the README, walked by raw clients over TLS: the owner, a guest with the line that was printed, a kill between messages."""

import base64
import hashlib
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.e2e.server import Server

PASSWORD = "correct horse battery"
LINE = re.compile(r"chat connect 127\.0\.0\.1:(\d+)#([\w-]+)/([\w-]+)$")


def join_lines(server):
    """(port, fingerprint, invite) of each line that is to be pasted."""
    return [(int(found[1]), found[2], found[3]) for line in server.lines if (found := LINE.search(line))]


def key_of(wire):
    """The fingerprint of the certificate's public key, as in a join line; computed here anew."""
    certificate = x509.load_der_x509_certificate(wire.stream.getpeercert(binary_form=True))
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(key).digest()).rstrip(b"=").decode()


@pytest.fixture
async def plain_server(data_dir):
    """As it comes: nothing is set but where it listens."""
    server = Server(data_dir, settings={})
    await server.start()
    yield server
    await server.kill()


def messages(wire):
    return [(message["seq"], message["from"], message["text"]) for message in wire.received if message["type"] == "message"]


def is_text(text):
    return lambda message: message["type"] == "message" and message["text"] == text


async def test_two_people_and_a_kill(plain_server, dial):
    server = plain_server
    owner_line, guest_line = join_lines(server)
    assert owner_line[:2] == guest_line[:2]
    port, fingerprint, invite = owner_line
    ann = await dial(port, tls=True)
    assert key_of(ann) == fingerprint
    session = await ann.ask("register", username="ann", password=PASSWORD, invite=invite)
    assert session["type"] == "session", session
    again = await (await dial(port, tls=True)).ask("register", username="eve", password=PASSWORD, invite=invite)
    assert again["type"] == "error", "the owner's line is good once"
    bob = await dial(port, tls=True)
    session_of_bob = await bob.ask("register", username="bob", password=PASSWORD, invite=guest_line[2])
    assert session_of_bob["type"] == "session", session_of_bob

    first = await ann.ask("send", cid="a1", channel="lobby", text="hello bob")
    await bob.until(is_text("hello bob"))
    second = await bob.ask("send", cid="b1", channel="lobby", text="hello ann")
    await ann.until(is_text("hello ann"))
    private = await bob.ask("send", cid="b2", to="ann", text="between us")
    await ann.until(is_text("between us"))

    await server.kill()
    await server.start()
    epoch = first["epoch"]
    ann = await dial(port, tls=True)
    assert key_of(ann) == fingerprint, "the printed lines stay good"
    resumed = await ann.ask("resume", token=session["resume_token"], cursors={"#lobby": [epoch, 2], "@bob": [private["epoch"], 1]})
    assert resumed["type"] == "resumed", resumed
    assert messages(ann) == [(2, "bob", "hello ann"), (1, "bob", "between us")]
    assert resumed["heads"] == {"#lobby": [epoch, 2], "@bob": [private["epoch"], 1]}
    bob = await dial(port, tls=True)
    await bob.ask("resume", token=session_of_bob["resume_token"], cursors={"#lobby": [epoch, 3]})
    retry = await bob.ask("send", cid="b1", channel="lobby", text="hello ann")
    assert (retry["seq"], retry["epoch"], retry["ts"], retry.get("dup")) == (second["seq"], epoch, second["ts"], True)
    third = await ann.ask("send", cid="a2", channel="lobby", text="still here?")
    assert (third["epoch"], third["seq"]) == (epoch, 3)
    await bob.until(is_text("still here?"))
    for wire, own in ((ann, "a"), (bob, "b")):
        page = await wire.ask("history", conv="#lobby", after=0, limit=500)
        assert [(m["seq"], m["from"], m["text"]) for m in page["messages"]] == [
            (1, "ann", "hello bob"),
            (2, "bob", "hello ann"),
            (3, "ann", "still here?"),
        ]
        assert [m["cid"] for m in page["messages"] if "cid" in m] == {"a": ["a1", "a2"], "b": ["b1"]}[own]


async def test_a_guest_s_line_is_good_for_several_and_after_a_restart(plain_server, dial):
    server = plain_server
    port, _, invite = join_lines(server)[1]
    for name in ("bob", "cem"):
        if name == "cem":
            await server.kill()
            await server.start()
        wire = await dial(port, tls=True)
        assert (await wire.ask("register", username=name, password=PASSWORD, invite=invite))["type"] == "session"


async def test_without_a_line_nobody_gets_in(plain_server, dial):
    wire = await dial(plain_server.port, tls=True)
    assert (await wire.ask("register", username="eve", password=PASSWORD))["code"] == "forbidden"


async def test_sigterm_says_goodbye_and_ends_with_0(plain_server, dial):
    wire = await dial(plain_server.port, tls=True)
    opened = await wire.ask("register", username="bob", password=PASSWORD, invite=join_lines(plain_server)[1][2])
    assert opened["type"] == "session"
    plain_server.terminate()
    closing = await wire.until(lambda message: message["type"] == "closing")
    assert closing["code"] == "shutting_down"
    assert closing["retry_after"] > 0
    await wire.aclose()
    assert await plain_server.wait() == 0
