import contextlib
import os
import ssl
import stat

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from chat.transport import certificates
from tests.transport.peers import client_context


@pytest.fixture
def files(tmp_path):
    return tmp_path / "cert.pem", tmp_path / "key.pem"


def connect(server, client, **options):
    """A handshake in memory. *Returns* both ends."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="localhost", **options),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends


def shown_by(client):
    """The fingerprint of what the other end has shown."""
    return certificates.fingerprint(client.getpeercert(binary_form=True))


def issue(authority, folder, name="localhost"):
    issued = authority.issue_cert(name)
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    return certificate, key


def test_a_certificate_is_made_that_a_client_can_pin(files):
    certificates.make_self_signed(*files, ["chat.example.org", "192.0.2.7"])
    client, _ = connect(certificates.server_context(*files), client_context())
    pin = shown_by(client)
    assert pin == certificates.fingerprint(files[0].read_bytes())
    assert len(pin) == 43
    assert set(pin) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    made = x509.load_pem_x509_certificate(files[0].read_bytes())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "chat.example.org"} <= set(names.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "192.0.2.7"} <= {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
    assert 3640 < (made.not_valid_after_utc - made.not_valid_before_utc).days < 3660


def test_the_name_can_be_verified_too(files):
    certificates.make_self_signed(*files)
    context = ssl.create_default_context(cafile=str(files[0]))
    client, _ = connect(certificates.server_context(*files), context)
    assert client.version() == "TLSv1.3"


def test_the_key_is_nobody_elses(files):
    old = os.umask(0)
    try:
        certificates.make_self_signed(*files)
    finally:
        os.umask(old)
    assert stat.S_IMODE(files[1].stat().st_mode) == 0o600
    assert sorted(path.name for path in files[0].parent.iterdir()) == ["cert.pem", "key.pem"]


def test_a_renewed_certificate_keeps_its_pin(files):
    certificates.make_self_signed(*files)
    before = files[0].read_bytes(), files[1].read_bytes()
    certificates.make_self_signed(*files)
    assert files[1].read_bytes() == before[1]
    assert files[0].read_bytes() != before[0]
    assert certificates.fingerprint(files[0].read_bytes()) == certificates.fingerprint(before[0])


def test_another_key_is_another_pin(tmp_path):
    pins = set()
    for name in "ab":
        certificates.make_self_signed(tmp_path / name, tmp_path / f"{name}.key")
        pins.add(certificates.fingerprint((tmp_path / name).read_bytes()))
    assert len(pins) == 2


def test_pem_and_der_have_one_fingerprint(files):
    certificates.make_self_signed(*files)
    pem = files[0].read_bytes()
    assert certificates.fingerprint(pem) == certificates.fingerprint(ssl.PEM_cert_to_DER_cert(pem.decode()))


def test_a_folder_that_is_not_there_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="absent"):
        certificates.make_self_signed(tmp_path / "absent" / "cert.pem", tmp_path / "absent" / "key.pem")
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "cert.pem").mkdir()  # the last step, giving it its name, fails
    with pytest.raises(OSError, match="directory"):
        certificates.make_self_signed(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cert.pem", "key.pem"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_speak_aead_only(files, version):
    certificates.make_self_signed(*files)
    context = client_context()
    context.maximum_version = version
    context.set_ciphers("ALL")
    client, _ = connect(certificates.server_context(*files), context)
    assert "GCM" in client.cipher()[0] or "CHACHA20" in client.cipher()[0]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_older_versions_are_refused(files):
    certificates.make_self_signed(*files)
    context = client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        connect(certificates.server_context(*files), context)


def test_a_cipher_without_authentication_of_its_own_is_refused(files):
    certificates.make_self_signed(*files)
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES256-SHA384")
    with pytest.raises(ssl.SSLError, match=r"HANDSHAKE_FAILURE|NO_SHARED_CIPHER"):
        connect(certificates.server_context(*files), context)


def test_no_tickets_and_no_renegotiation(files):
    certificates.make_self_signed(*files)
    context = certificates.server_context(*files)
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_TICKET


@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), ([], None), (["h2"], None)])
def test_browsers_get_http_1_1_and_natives_nothing(files, offered, chosen):
    certificates.make_self_signed(*files)
    context = client_context()
    if offered:
        context.set_alpn_protocols(offered)
    client, _ = connect(certificates.server_context(*files), context)
    assert client.selected_alpn_protocol() == chosen


def test_reload_shows_the_new_certificate_to_new_connections(tmp_path):
    authority = trustme.CA()
    old, new = issue(authority, tmp_path, "localhost"), issue(authority, tmp_path, "example.org")
    context = certificates.server_context(*old)
    first, _ = connect(context, client_context())
    certificates.reload(context, *new)
    second, _ = connect(context, client_context())
    assert shown_by(first) == certificates.fingerprint(old[0].read_bytes())
    assert shown_by(second) == certificates.fingerprint(new[0].read_bytes())


def test_a_reload_that_fails_changes_nothing(tmp_path):
    authority = trustme.CA()
    old, new = issue(authority, tmp_path, "localhost"), issue(authority, tmp_path, "example.org")
    context = certificates.server_context(*old)
    with pytest.raises(ValueError, match="are no certificate and its key"):
        certificates.reload(context, new[0], old[1])
    client, _ = connect(context, client_context())
    assert shown_by(client) == certificates.fingerprint(old[0].read_bytes())


def test_files_that_are_no_certificate_are_named(files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cert\.pem"):
        certificates.server_context(*files)
    certificates.make_self_signed(*files)
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("rubbish")
    with pytest.raises(ValueError, match="rubbish"):
        certificates.server_context(rubbish, files[1])
    with pytest.raises(ValueError, match="rubbish"):
        certificates.server_context(files[0], rubbish)
    with pytest.raises(ValueError, match="no private key"):
        certificates.make_self_signed(tmp_path / "other.pem", rubbish)


def test_a_key_with_a_password_is_an_error_and_no_question(files):
    certificates.make_self_signed(*files)
    private = serialization.load_pem_private_key(files[1].read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    files[1].write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    with pytest.raises(ValueError, match="are no certificate and its key"):
        certificates.server_context(*files)


def test_the_names_that_a_certificate_is_for(tmp_path):
    files = tmp_path / "c.pem", tmp_path / "k.pem"
    certificates.make_self_signed(*files, ["chat.example.org", "192.0.2.7", "2001:db8::7"])
    names = certificates.host_names(files[0].read_bytes())
    assert {"localhost", "127.0.0.1", "::1", "chat.example.org", "192.0.2.7", "2001:db8::7"} <= set(names)


def test_names_are_added_to_a_certificate_of_ours_and_its_key_stays(files):
    certificates.make_self_signed(*files, ["192.0.2.7"])
    before = files[0].read_bytes()
    certificates.name_also(*files, ["localhost", "192.0.2.7"])
    assert files[0].read_bytes() == before, "it lacks nothing"
    certificates.name_also(*files, ["192.0.2.8", "chat.example.org"])
    after = files[0].read_bytes()
    assert {"192.0.2.7", "192.0.2.8", "chat.example.org", "localhost"} <= set(certificates.host_names(after))
    assert certificates.fingerprint(after) == certificates.fingerprint(before)
    for n in range(40):
        certificates.name_also(*files, [f"10.0.0.{n}"])
    names = certificates.host_names(files[0].read_bytes())
    assert len(names) <= certificates.MOST_NAMES + 4
    assert {"10.0.0.39", "localhost", "127.0.0.1"} <= set(names)


def test_a_certificate_of_somebody_else_is_left_alone(tmp_path):
    files = issue(trustme.CA(), tmp_path)
    before = files[0].read_bytes()
    certificates.name_also(*files, ["192.0.2.8"])
    assert files[0].read_bytes() == before
    files[0].write_text("no certificate")
    certificates.name_also(*files, ["192.0.2.8"])
    assert files[0].read_text() == "no certificate"
