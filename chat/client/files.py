"""Private files written whole or not at all: folders 0700, files 0600, a new file on disk before it takes the old one's name."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec


def make_folder(path: Path) -> None:
    """Make *path* and what lacks above it, open to nobody else. What exists keeps its mode, but for *path* itself."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    for folder in reversed(missing):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    if path.stat().st_mode & 0o077:
        path.chmod(0o700)


def write_json(path: Path, value: Any) -> None:
    """Replace *path* by *value*, durably: after the return it survives a power cut; before, the old content does."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(msgspec.json.encode(value))
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
    sync_folder(path.parent)


def read_json(path: Path) -> dict[str, Any]:
    """The object in *path*; {} where there is no such file, or nothing legible: what is kept here can be had again."""
    try:
        value = msgspec.json.decode(path.read_bytes())
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}


def sync_folder(path: Path) -> None:
    """Make the names in *path* durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
