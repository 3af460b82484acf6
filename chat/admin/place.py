"""Where the admin socket is, how to bind and reach it however long its path is, and who is at its other end.

The kernel takes at most 107 bytes of path. A longer one is reached through a descriptor of its folder: ``/proc/self/fd/N/admin.sock``.
"""

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

SOCKET: Final = "admin.sock"
PATH_MAX: Final = 107  # bytes: sun_path is 108, with the NUL
BACKLOG: Final = 16


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for *path* that the kernel takes, good inside the block. *Raises* OSError when its folder cannot be opened."""
    if len(os.fsencode(path)) <= PATH_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def bind(path: Path) -> socket.socket:
    """Listen at *path*, mode 0600, in the place of whatever socket was there: the caller has the lock on the folder.

    *Raises* OSError, also when something else than a socket is there: that is nobody's to delete.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(17, "something that is no socket is in its place", str(path))
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o077)
    try:
        with _short(path) as name:
            sock.bind(name)
            os.chmod(name, 0o600)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def connect(path: Path) -> socket.socket:
    """*Raises* OSError: FileNotFoundError and ConnectionRefusedError when nobody listens there, PermissionError without the right."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as name:
            sock.connect(name)
    except BaseException:
        sock.close()
        raise
    return sock


def peer_uid(sock: Any) -> int | None:
    """The user at the other end of a socket (a `trio.socket` will do) when it connected. None: this system does not tell."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i")))
    return int(uid)


def may(uid: int | None) -> bool:
    """The server's own user, and root. Where the system does not tell, the rights of the folder and of the socket decide alone."""
    return uid in (None, 0, os.geteuid())
