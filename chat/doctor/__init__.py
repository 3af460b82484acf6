"""``chat doctor``: looks at an installation and says of each part whether it is fine, and if not what to do.

It changes nothing, needs no running server and troubles none: the database is read through a connection of its own, a port is tried only
where no server of this data folder holds it.

    finding.py    what a check found
    machine.py    Python and libraries, descriptors, disk, clock
    files.py      the data folder, its rights, the certificate
    database.py   the database: readable, whole, of this version
    network.py    the lock, ports, whether the server answers
"""

from collections.abc import Callable, Iterator

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
    files.certificate,
    database.database,
    network.server,
    network.ports,
)


def examine(config: Config) -> Iterator[Finding]:
    """What every check finds, one after the other. A check that fails itself is a finding, too."""
    for check in CHECKS:
        try:
            yield from check(config)
        except Exception as error:
            yield wrong(check.__name__, f"could not be looked at: {type(error).__name__}: {error}")


__all__ = ["CHECKS", "Finding", "examine"]
