"""``chat backup`` and ``chat restore``: which files belong together, whose they are, and what a person is told.

In a backup are the database, and the certificate with its key where the server made them itself: without the key every join line would be
worth nothing. One that the configuration names (``tls.certificate``) is kept by whoever renews it, and is not in it.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Any, Final

from chat import __version__
from chat.admin import client, look
from chat.admin.client import Refused
from chat.admin.show import some, when
from chat.background import StartRefused, holder_of, take_lock
from chat.config import Config
from chat.store import sqlite_backup, sqlite_restore
from chat.store.base import StoreRefused
from chat.store.sqlite_backup import Progress

ANSWER_S: Final = 3.0  # a server that does not say its setting by then is not asked further
OWN: Final = ("certificate.pem", "key.pem")


def _own_files(config: Config) -> dict[str, Path]:
    """Their names in a backup, and their places."""
    return {} if config.tls.certificate is not None else dict(zip(OWN, (config.certificate, config.key), strict=True))


def back_up(config: Config, target: Path, *, force: bool, progress: Progress) -> dict[str, Any]:
    """Also while the server runs. *Returns* the manifest, with ``bytes`` and ``file``. *Raises* Refused."""
    look.there(config)
    target = target.absolute()
    try:
        if target.is_dir():
            raise Refused(f"{target} is a folder; name the file in it")
        files = {name: path.read_bytes() for name, path in _own_files(config).items() if path.exists()}
        about = {"chat": __version__, "name": config.name, "at_ms": time.time_ns() // 1_000_000}
        keep_free = _keep_free(config)
        made = sqlite_backup.back_up(
            config.database, target, files=files, about=about, replace=force, keep_free=keep_free, progress=progress
        )
    except StoreRefused as exc:
        raise Refused(str(exc)) from None
    except OSError as exc:
        raise Refused(f"{exc.filename}: {exc.strerror}; no backup was made") from None
    return {**made, "file": str(target), "certificate": config.tls.certificate is None}


def _keep_free(config: Config) -> int:
    """What must stay free on the disk: the setting of the server that runs, which may have been started with another one."""
    with contextlib.suppress(OSError, Refused, StartRefused):
        if holder_of(config) is not None:
            return int(client.ask(config, "status", {}, answer_s=ANSWER_S).get("min_free_bytes", config.storage.min_free_bytes))
    return config.storage.min_free_bytes


def look_at(source: Path) -> sqlite_restore.Backup:
    """*Raises* Refused when it is no backup, or damaged."""
    try:
        return sqlite_restore.look_at(source)
    except StoreRefused as exc:
        raise Refused(str(exc)) from None


def described(backup: sqlite_restore.Backup) -> str:
    about = backup.manifest
    return f"of {when(about['at_ms'])}, {some(about['records'], 'record')}" if about else "a copy of a database, without a manifest"


def restore(config: Config, backup: sqlite_restore.Backup, *, end_sessions: bool, progress: Progress) -> dict[str, Any]:
    """Only while the server is stopped. *Returns* the manifest, and ``aside``: where the files of before are. *Raises* Refused."""
    os.umask(0o077)
    try:
        running = holder_of(config)
        if running is not None:
            raise Refused(f"the server runs on {config.data_dir} (pid {running.pid}); stop it first: chat stop")
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = take_lock(config.lock_file)
        try:
            aside = sqlite_restore.restore(backup, config.database, files=_own_files(config), end_sessions=end_sessions, progress=progress)
            _give_to_owner(config, aside)
        finally:
            lock.release()
    except (StartRefused, StoreRefused) as exc:
        raise Refused(str(exc)) from None
    except OSError as exc:
        raise Refused(f"{exc.filename}: {exc.strerror}; the server will not start before chat restore was run again") from None
    return {**backup.manifest, "file": str(backup.path), "aside": str(aside) if aside is not None else None}


def _give_to_owner(config: Config, aside: Path | None) -> None:
    """What root made in the folder of the server's user is that user's."""
    if os.geteuid() != 0:
        return
    owner = config.data_dir.stat()
    made = [config.database, config.lock_file, *_own_files(config).values()]
    if aside is not None:
        made += [aside, *aside.iterdir()]
    for path in made:
        if path.exists():
            os.chown(path, owner.st_uid, owner.st_gid)
