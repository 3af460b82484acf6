"""Certificates of the server: made at the first start, pinned by the fingerprint in a join line, replaced while running.

A pin is of the public key, not of the certificate: a renewed certificate on the same key keeps every join line valid. So
`make_self_signed` uses the key that is there, if one is.

*Source*: contract section 7 (listen, first start); architecture section 5 (TLS); RFC 7469 section 2.4 (hash of the SPKI).
"""

import base64
import contextlib
import datetime
import hashlib
import ipaddress
import os
import socket
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_DAYS: Final = 3650
MOST_NAMES: Final = 20  # of one that is made anew: a machine that moves gets a new address each time
_SUBJECT: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chat")])
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all AEAD


def make_self_signed(certificate: Path, key: Path, names: Iterable[str] = ()) -> None:
    """Write a self-signed certificate for localhost, this host and *names* (host names or addresses), and its key (EC P-256).

    A key file that exists is used and not written. Each file is written as a whole or not at all, the certificate last, so that a
    certificate always has its key. *Raises* OSError when a file cannot be written, ValueError when the key cannot be read.
    """
    if key.exists():
        private = load_key(key)
    else:
        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )  # fmt: skip
        _write(key, pem, 0o600)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(_SUBJECT)
        .issuer_name(_SUBJECT)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # a client's clock may be late
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(_alternative_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, hashes.SHA256())
    )
    _write(certificate, made.public_bytes(serialization.Encoding.PEM), 0o644)


def always_named() -> tuple[str, ...]:
    """What every self-signed certificate is for."""
    return ("localhost", "127.0.0.1", "::1", socket.gethostname())


def name_also(certificate: Path, key: Path, names: Iterable[str]) -> None:
    """Make a certificate of `make_self_signed` anew, with the same key, where it lacks one of *names*; any other is left alone.

    *Raises* as `make_self_signed`.
    """
    pem = certificate.read_bytes()
    try:
        made = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return  # whoever loads it says what is wrong
    known = host_names(pem)
    lacking = [name for name in names if name not in known]
    if lacking and made.subject == _SUBJECT == made.issuer:
        make_self_signed(certificate, key, [*lacking, *known][:MOST_NAMES])


def fingerprint(certificate: bytes) -> str:
    """Of a certificate (PEM, the first of a chain, or DER): SHA-256 of its public key, base64url without padding, 43 characters."""
    parsed = x509.load_pem_x509_certificate(certificate) if b"-----BEGIN" in certificate else x509.load_der_x509_certificate(certificate)
    info = parsed.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.urlsafe_b64encode(hashlib.sha256(info).digest()).rstrip(b"=").decode()


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A server's context: TLS 1.2 or newer, AEAD ciphers, no tickets, no renegotiation, ALPN for browsers.

    Without tickets there is no session to resume with stolen ticket keys, and nothing is sent that the peer did not ask for.
    *Raises* OSError when a file cannot be read, ValueError when it is no certificate, no key, or not the key of the certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.num_tickets = 0
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])  # a native client names none, and needs none
    _load(context, certificate, key)
    return context


def reload(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Use new files for new connections. A pair that does not work leaves *context* as it is. *Raises* as `server_context`."""
    server_context(certificate, key)  # a context that has failed to load one half may keep the other
    _load(context, certificate, key)


def host_names(certificate: bytes) -> list[str]:
    """The names and addresses that a certificate (PEM, the first of a chain) is for."""
    extensions = x509.load_pem_x509_certificate(certificate).extensions
    try:
        found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def load_key(key: Path) -> CertificateIssuerPrivateKeyTypes:
    """*Raises* OSError when it cannot be read, ValueError when it is none, or has a password."""
    try:
        return serialization.load_pem_private_key(key.read_bytes(), None)  # type: ignore[return-value]
    except (ValueError, TypeError) as exc:  # which say it in the words of a parser
        raise ValueError(f"{key} is no private key that can be read") from exc


def described(certificate: bytes) -> str:
    """Of a certificate (PEM, the first of a chain), for a person: until when it is valid, and what clients pin."""
    found = x509.load_pem_x509_certificate(certificate)
    return f"valid until {found.not_valid_after_utc:%Y-%m-%d}, fingerprint {fingerprint(certificate)}"


def _load(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    for path in (certificate, key):
        with path.open("rb"):  # OpenSSL's own error does not say which file
            pass
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")  # or OpenSSL would ask on the terminal
    except ssl.SSLError as exc:
        raise ValueError(f"{certificate} and {key} are no certificate and its key: {exc.reason or exc}") from exc


def _alternative_names(names: Iterable[str]) -> list[x509.GeneralName]:
    found: dict[str, x509.GeneralName] = {}
    for name in (*always_named(), *names):
        try:
            found[name] = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            with contextlib.suppress(ValueError):  # a host's own name need not be one that a certificate may have
                found[name] = x509.DNSName(name)
    return list(found.values())


def _write(path: Path, data: bytes, mode: int) -> None:
    """As a whole or not at all, and on the disk before it has its name."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600 from the start
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(handle, mode)
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
