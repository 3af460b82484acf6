"""The data folder, who may look into it, and the certificate."""

import datetime
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509

from chat.admin.certificate import LOST_KEY
from chat.background import StartRefused, check_folder
from chat.background import rights as rights_of
from chat.background.rights import user
from chat.config import Config, split_address
from chat.doctor.finding import Finding, advice, fine, span, wrong
from chat.transport.certificates import host_names, load_key, server_context

SOON_S: Final = 30 * 86400  # a certificate that ends within this is told
OTHERS: Final = 0o077
FOLDER: Final = os.R_OK | os.W_OK | os.X_OK


def folder(config: Config) -> Iterator[Finding]:
    try:
        check_folder(config.data_dir)
    except StartRefused as error:
        blocked = rights_of.barrier(config.data_dir, FOLDER)
        other = "give the server's user the right, or choose another data_dir"
        yield wrong("data folder", str(error), other if blocked is None else rights_of.remedy(blocked))
        return
    if not config.data_dir.exists():
        yield fine("data folder", f"{config.data_dir} is made at the first start")
        return
    owner = config.data_dir.stat().st_uid
    if os.geteuid() not in (0, owner):
        todo = f"run chat as that user, or as root: chown -R {user(os.geteuid())} {config.data_dir}"
        yield wrong("data folder", f"{config.data_dir} belongs to {user(owner)}", todo)
    else:
        yield fine("data folder", str(config.data_dir))


def rights(config: Config) -> Iterator[Finding]:
    """Nobody else may look, and the folder's owner, as whom the server runs, may all: 0700 for folders, 0600 for files."""
    if not config.data_dir.is_dir():
        return
    database = config.database
    beside = [database.with_name(database.name + suffix) for suffix in ("-wal", "-shm")]
    private = [config.data_dir, database, *beside, config.key, config.lock_file]
    private += [config.log_dir, config.data_dir / "backups", config.data_dir / "admin.sock"]
    bad, owner = False, config.data_dir.stat().st_uid
    for path in private:
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            bad = True
            yield wrong("rights", f"{path}: {error.strerror}", "run this as the server's user")
            continue
        mode, wanted = stat.S_IMODE(found.st_mode), 0o700 if stat.S_ISDIR(found.st_mode) else 0o600
        if found.st_uid != owner and path.parent == config.data_dir:
            bad = True
            todo = f"{'' if os.geteuid() == 0 else 'as root: '}chown {user(owner)} {path}"
            yield wrong("rights", f"{path} belongs to {user(found.st_uid)}, the data folder to {user(owner)}", todo)
        elif mode & OTHERS or mode & wanted != wanted:
            bad = True
            what = "open to others" if mode & OTHERS else "closed to the server's own user"
            yield wrong("rights", f"{path} is {what} ({mode:04o})", f"chmod {wanted:o} {path}")
    if not bad:
        yield fine("rights", "nobody else may look into the data folder")


def plugins(config: Config) -> Iterator[Finding]:
    """The server executes what is in its folder of plugins only if nobody else could have written it."""
    place = config.data_dir / "plugins"
    if not place.is_dir():
        return
    bad, owner = False, config.data_dir.stat().st_uid
    for path in (place, *sorted(place.glob("*.py"))):
        found = path.stat()
        if found.st_uid not in (owner, 0):
            bad = True
            yield wrong("plugins", f"{path} belongs to {user(found.st_uid)}: it is not loaded", f"as root: chown {user(owner)} {path}")
        elif found.st_mode & 0o022:
            bad = True
            yield wrong("plugins", f"others may write {path}: it is not loaded", f"chmod go-w {path}")
    if not bad:
        yield fine("plugins", f"nobody else may write {place}")


def certificate(config: Config) -> Iterator[Finding]:
    path, key = config.certificate, config.key
    own = config.tls.certificate is None
    if own and not path.exists() and not key.exists():
        yield fine("certificate", "is made at the first start")
        return
    if own:
        try:
            load_key(key)
        except PermissionError:
            raise  # `examine` says whose it is
        except (OSError, ValueError) as error:
            text = f"{key} is missing" if isinstance(error, FileNotFoundError) else str(error)
            yield wrong("certificate", f"{text}: the server does not start", LOST_KEY)
            return
        if not path.exists():
            yield fine("certificate", "is made at the next start, for the key that is there: join lines stay good")
            return
    try:
        server_context(path, key)
        pem = path.read_bytes()
        parsed = x509.load_pem_x509_certificate(pem)
    except PermissionError:
        raise  # `examine` says whose it is
    except (OSError, ValueError) as error:
        yield wrong("certificate", str(error), _mend(path) if own else "name the right files in [tls]")
        return
    yield from _dates(config, parsed)
    yield from _names(config, pem)


def _dates(config: Config, parsed: x509.Certificate) -> Iterator[Finding]:
    now = datetime.datetime.now(datetime.UTC)
    ends, begins = parsed.not_valid_after_utc, parsed.not_valid_before_utc
    own = config.tls.certificate is None
    todo = _renew(config.certificate, own, parsed.issuer == parsed.subject)
    by = "self-signed; clients pin its key" if parsed.issuer == parsed.subject else f"signed by {parsed.issuer.rfc4514_string()}"
    left = (ends - now).total_seconds()
    if begins > now:
        until = span((begins - now).total_seconds())
        yield wrong("certificate", f"it is good from {begins:%Y-%m-%d} on, in {until}", "is the clock right?")
    elif left < 0:
        yield wrong("certificate", f"it ended on {ends:%Y-%m-%d}, {span(-left)} ago", todo)
    elif left < SOON_S:
        yield advice("certificate", f"it ends on {ends:%Y-%m-%d}, in {span(left)}", todo)
    else:
        yield fine("certificate", f"good until {ends:%Y-%m-%d}; {by}")


def _mend(path: Path) -> str:
    """Of a certificate that does not work with its key, which is a good one."""
    generate = "chat cert generate: a new one for the key that is there"
    try:
        x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        return f"{generate}, so join lines stay good"
    return (
        f"put the right key back (a backup, or a kept copy key.pem.*), or {generate}; join lines for the other key are worth nothing then"
    )


def _renew(path: Path, own: bool, self_signed: bool) -> str:
    if own and self_signed:
        return "chat cert generate: a new one with the same key, so join lines stay good"
    if own:
        return "renew it where it came from, then chat cert import CERTIFICATE KEY"
    return f"renew {path}, then chat reload"


def _names(config: Config, pem: bytes) -> Iterator[Finding]:
    if not config.public_address:
        return
    address = config.public_address
    host = split_address(address)[0] if ":" in address.rpartition("]")[2] else address.strip("[]")
    names = host_names(pem)
    if host in names or any(name.startswith("*.") and host.partition(".")[2] == name[2:] for name in names):
        yield fine("names", f"the certificate is for {host}")
    else:
        shown = ", ".join(names[:5]) or "nobody"
        todo = "browsers will object, and the page is refused: take a certificate that names it (an own one is renewed at the start)"
        yield advice("names", f"the certificate is for {shown}, and public_address is {host}", todo)
