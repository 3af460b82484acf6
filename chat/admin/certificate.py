"""``chat cert``: the certificate and its key, on the files. A server that runs takes on what is new (`reload`), for new connections.

Clients pin the public key (see `chat.transport.certificates`), so a new certificate on the old key changes nothing for them, and a new key
makes every join line and every pin worth nothing. Files that the configuration names belong to whoever renews them: only shown here.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from cryptography import x509

from chat import joinline
from chat.admin import client
from chat.admin.client import Refused
from chat.background import holder_of, no_right
from chat.config import Config
from chat.store.sqlite_restore import write
from chat.transport import certificates

Row = dict[str, Any]
LOST_KEY: Final = (
    "put the key back from a backup or a kept copy (key.pem.*); without one: chat cert generate --new-key, whose fingerprint is another: "
    "every join line that was given out is worth nothing then"
)


def look(config: Config) -> Row:
    """*Raises* Refused."""
    return _described(config.certificate, config.key)


def _described(certificate: Path, key: Path) -> Row:
    try:
        pem = certificate.read_bytes()
        parsed = x509.load_pem_x509_certificate(pem)
    except FileNotFoundError as exc:
        raise Refused(f"{certificate}: {exc.strerror}; the server makes one at its first start") from None
    except OSError as exc:
        raise Refused(no_right(certificate) or f"{certificate}: {exc.strerror}") from None
    except ValueError as exc:
        raise Refused(f"{certificate} is no certificate in PEM: {exc}") from None
    problem = None
    try:
        certificates.server_context(certificate, key)
    except (OSError, ValueError) as exc:
        problem = str(exc)
    until = parsed.not_valid_after_utc
    return {
        "file": str(certificate),
        "key": str(key),
        "fingerprint": certificates.fingerprint(pem),
        "names": certificates.host_names(pem),
        "self_signed": parsed.issuer == parsed.subject,
        "from": int(parsed.not_valid_before_utc.timestamp() * 1000),
        "until": int(until.timestamp() * 1000),
        "days_left": int((until.timestamp() - time.time()) // 86400),
        "problem": problem,
    }


def may_replace(config: Config) -> None:
    """*Raises* Refused where the files are not the server's own."""
    if config.tls.certificate is not None:
        raise Refused(f"tls.certificate names {config.certificate}: replace that file and its key, then chat reload")
    if (why := no_right(config.key, os.R_OK | os.W_OK) or no_right(config.data_dir, os.W_OK | os.X_OK)) is not None:
        raise Refused(why)


def generate(config: Config, names: Sequence[str], *, new_key: bool) -> Row:
    """A self-signed one, for *names*, or without them for those that the present one has. *Returns* what `install` does, and which of its
    names were kept and dropped. *Raises* Refused; also where the key is lost and *new_key* does not say that another may be made."""
    may_replace(config)
    if not new_key and (config.key.exists() or config.certificate.exists()):
        try:
            certificates.load_key(config.key)
        except (OSError, ValueError) as exc:
            said = f"{config.key} is missing" if isinstance(exc, FileNotFoundError) else str(exc)
            raise Refused(f"{said}; {LOST_KEY}") from None
    before = _names_given(config)
    names = list(dict.fromkeys([*(names or before), *joinline.outward_names(config)]))
    with TemporaryDirectory(prefix="chat-cert-") as folder:
        certificate, key = Path(folder, "certificate.pem"), Path(folder, "key.pem")
        try:
            if not new_key and config.key.exists():
                write(key, config.key.read_bytes())
            certificates.make_self_signed(certificate, key, names)
        except (OSError, ValueError) as exc:
            raise Refused(f"no certificate was made: {exc}") from None
        made = install(config, certificate, key)
    kept = sorted(set(before) & set(made["names"]))
    return {**made, "names_kept": kept, "names_dropped": sorted(set(before) - set(kept))}


def _names_given(config: Config) -> list[str]:
    """What the present certificate is for, but for what every one is (`make_self_signed`) and this machine's own addresses."""
    try:
        names = certificates.host_names(config.certificate.read_bytes())
    except (OSError, ValueError):
        return []
    found = {*certificates.always_named(), *joinline.outward_names(config)}
    return [name for name in names if name not in found]


def belong_together(certificate: Path, key: Path) -> None:
    """*Raises* Refused."""
    if problem := _described(certificate, key)["problem"]:
        raise Refused(f"{problem}; nothing was changed")


def same_key(config: Config, certificate: Path) -> bool:
    """Whether clients go on to know the server by *certificate*. *Raises* Refused when that is none."""
    new = _described(certificate, certificate)["fingerprint"]
    return config.certificate.exists() and certificates.fingerprint(config.certificate.read_bytes()) == new


def install(config: Config, certificate: Path, key: Path) -> Row:
    """Put a pair that works in the place of the server's own, keeping the old, and have it used. *Raises* Refused, having changed nothing.

    The key comes first: a start between the two writes finds a pair that does not match and says so, and the old is beside it.
    """
    may_replace(config)
    os.umask(0o077)
    belong_together(certificate, key)
    if not config.data_dir.is_dir():
        raise Refused(f"there is no data folder {config.data_dir}; was the server ever started? (--data-dir, --config)")
    kept = []
    try:
        suffix = _unused(config.key, config.certificate)
        owner = config.data_dir.stat()
        for new, place in ((key, config.key), (certificate, config.certificate)):
            data = new.read_bytes()
            if place.exists() and place.read_bytes() != data:
                old = place.with_name(place.name + suffix)
                write(old, place.read_bytes())
                kept.append(old)
            write(place, data)
        if os.geteuid() == 0:
            for path in (config.key, config.certificate, *kept):
                os.chown(path, owner.st_uid, owner.st_gid)
    except OSError as exc:
        raise Refused(f"{exc.filename}: {exc.strerror}") from None
    return {**look(config), "kept": [str(path) for path in kept], "in_use": _reload(config)}


def _unused(*places: Path) -> str:
    """What to append to the names of files that are to be kept, so that none is in the place of one that was kept before."""
    stamp, number = f".{time.strftime('%Y%m%d-%H%M%S')}", 1
    while any(place.with_name(place.name + stamp + (f"-{number}" if number > 1 else "")).exists() for place in places):
        number += 1
    return stamp + (f"-{number}" if number > 1 else "")


def _reload(config: Config) -> bool:
    """*Returns* False where no server runs. *Raises* Refused when it cannot use it."""
    if holder_of(config) is None:
        return False
    for problem in client.run(config, "reload")["problems"]:
        if problem.startswith("certificate"):
            raise Refused(f"the files are in place, but the server: {problem}")
    return True
