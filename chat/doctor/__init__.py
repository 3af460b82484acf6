"""``chat doctor``: looks at an installation and says of each part whether it is fine, and if not what to do.

It changes nothing, needs no running server and troubles none: the database is read through a connection of its own, a port is tried only
where no server of this data folder holds it.

    finding.py    what a check found
    machine.py    Python and libraries, descriptors, disk, clock
    files.py      the data folder, its rights, plugins, the certificate
    database.py   the database: readable, whole, of this version
    network.py    the lock, ports, whether the server answers
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from chat.background import rights
from chat.config import Config
from chat.doctor import database, files, machine, network
from chat.doctor.finding import Finding, wrong

CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    machine.python,
    machine.libraries,
    machine.descriptors,
    machine.disk,
    machine.clock,
    files.folder,
    files.rights,
    files.plugins,
    files.certificate,
    database.database,
    network.server,
    network.ports,
)
OUTSIDE: Final = (machine.python, machine.libraries)  # what needs no data folder


def examine(config: Config) -> Iterator[Finding]:
    """What every check finds, one after the other. A check that fails itself is a finding, too."""
    if (blocked := rights.barrier(config.data_dir / "anything", os.F_OK)) is not None:
        yield from (found for check in OUTSIDE for found in check(config))
        yield wrong("data folder", f"no right to look into {rights.theirs(blocked)}: the rest is not known", rights.remedy(blocked))
        return
    for check in CHECKS:
        try:
            yield from check(config)
        except PermissionError as error:
            blocked = rights.barrier(Path(error.filename)) if error.filename else None
            if blocked is None:
                yield wrong(check.__name__, f"could not be looked at: {error.filename}: {error.strerror}")
            else:
                yield wrong(check.__name__, f"could not be looked at: no right to use {rights.theirs(blocked)}", rights.remedy(blocked))
        except Exception as error:
            yield wrong(check.__name__, f"could not be looked at: {type(error).__name__}: {error}")


__all__ = ["CHECKS", "Finding", "examine"]
