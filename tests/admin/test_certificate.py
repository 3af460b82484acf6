"""chat cert: on the files, and seen by who connects to the running server."""

import hashlib
import ssl

import pytest
import trio

from chat.transport.certificates import make_self_signed
from tests.admin.shell import QuickShell as Shell
from tests.e2e.guests import Guest, serving


async def shown(server):
    """The certificate that a new connection gets (DER, hashed)."""
    async with await Guest.connect(server, tls=True) as guest:
        return hashlib.sha256(guest.stream.getpeercert(binary_form=True)).hexdigest()


@pytest.fixture
async def served(tmp_path):
    async with serving(tmp_path) as server:
        yield server


async def test_show_generate_import_on_a_running_server(served, tmp_path):
    shell = Shell(served.data_dir)
    first, seen = await shell.json("cert show"), await shown(served)
    assert (first["self_signed"], first["problem"]) == (True, None)
    assert "localhost" in first["names"]
    assert first["fingerprint"] in (await shell("cert show")).stdout
    renewed = await shell.json("cert generate --name chat.example.org")
    assert (renewed["fingerprint"], renewed["in_use"]) == (first["fingerprint"], True)
    assert "chat.example.org" in renewed["names"]
    assert await shown(served) != seen
    (old,) = renewed["kept"]
    assert hashlib.sha256(ssl.PEM_cert_to_DER_cert(await trio.Path(old).read_text())).hexdigest() == seen
    assert "another key" in await shell.refused("cert generate --new-key")
    other = await shell.json("cert generate --new-key --yes")
    assert other["fingerprint"] != first["fingerprint"]
    make_self_signed(tmp_path / "c.pem", tmp_path / "k.pem", ["elsewhere.example"])
    imported = await shell("cert import --yes", str(tmp_path / "c.pem"), str(tmp_path / "k.pem"))
    assert "elsewhere.example" in imported.stdout, imported.stderr
    assert "In use for new connections." in imported.stdout


async def test_what_does_not_work_changes_nothing(served, tmp_path):
    shell = Shell(served.data_dir)
    make_self_signed(tmp_path / "c.pem", tmp_path / "k.pem")
    make_self_signed(tmp_path / "c2.pem", tmp_path / "k2.pem")
    before = await shell.json("cert show")
    names = [str(tmp_path / name) for name in ("c.pem", "k2.pem")]
    assert "nothing was changed" in await shell.refused("cert import --yes", *names)
    assert "No such file" in await shell.refused("cert import --yes", str(tmp_path / "none"), names[1])
    assert "is no certificate" in await shell.refused("cert import --yes", str(tmp_path / "k.pem"), names[1])
    named = ["--set", f"tls.certificate={names[0]}", "--set", f"tls.key={tmp_path / 'k.pem'}"]
    assert "tls.certificate names" in await shell.refused("cert generate", *named)
    assert await shell.json("cert show") == before
    (served.data_dir / "key.pem").write_bytes((tmp_path / "k.pem").read_bytes())
    with trio.fail_after(20):
        done = await shell("cert show")
    assert (done.returncode, "are no certificate and its key" in done.stderr) == (1, True)
