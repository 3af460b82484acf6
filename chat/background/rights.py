"""Who may use the server's files: what stands in the way of this user, whose it is, and what helps."""

import os
import pwd
from pathlib import Path


def barrier(path: Path, mode: int = os.R_OK) -> Path | None:
    """What keeps this user from using *path* with *mode* (of `os.access`): that, or a folder above it. None: nothing."""
    for folder in reversed(path.absolute().parents):
        if os.path.isdir(folder) and not os.access(folder, os.X_OK, effective_ids=True):
            return folder
    return path if os.path.exists(path) and not os.access(path, mode, effective_ids=True) else None


def user(uid: int) -> str:
    """The name of a user, for a person."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def remedy(blocked: Path) -> str:
    """What gives this user the right to *blocked*, or who has it."""
    me, owner = os.geteuid(), blocked.stat().st_uid
    if owner == me:
        return f"chmod u+rw{'x' if blocked.is_dir() else ''} {blocked}"
    if blocked.parent.stat().st_uid == me:  # root left it in this user's folder
        return f"as root: chown {user(me)} {blocked}"
    return "run this as root" if owner == 0 else f"run this as {user(owner)} or root"


def theirs(blocked: Path) -> str:
    """That, and whose it is."""
    return f"{'the folder ' if blocked.is_dir() else ''}{blocked}, which belongs to {user(blocked.stat().st_uid)}"


def no_right(path: Path, mode: int = os.R_OK) -> str | None:
    """In one line, for a person. None: nothing stands in the way."""
    blocked = barrier(path, mode)
    return None if blocked is None else f"no right to use {theirs(blocked)}: {remedy(blocked)}"
