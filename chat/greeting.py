"""What ``serve``, ``start``, ``status`` and ``invite`` tell a person."""

import time
from collections.abc import Sequence

from chat import joinline
from chat.background import ReadyInfo, Running, holder, last_described
from chat.config import Config, split_address


def ready_lines(info: ReadyInfo, *, stop: str) -> list[str]:
    """At the first start a few short lines, each ending in what is to be pasted; later one, and the owner's while there is none."""
    where = ", ".join(info.addresses)
    lines = []
    if info.owner_line:
        lines.append(f"You, the owner (once): {info.owner_line}")
    if not info.first_start:
        guests = f"chat invite, or {info.web}" if info.web else "chat invite"
        return [*lines, f"chat is ready on {where}, files in {info.data_dir}; guests: {guests}; stop: {stop}"]
    lines.append(f"Your guests: {info.guest_line or 'chat invite (registration is closed)'}")
    if info.web:
        lines.append(f"In a browser: {info.web}")
    lines.append(f"Files: {info.data_dir} (listening on {where})")
    lines.append(f"Stop: {stop}")
    return lines


def status_line(config: Config, running: Running | None) -> str:
    if running is None:
        return f"chat is not running on {config.data_dir}"
    if not running.addresses:
        return f"chat (pid {running.pid}) is starting on {config.data_dir}"
    since = duration(time.time() - running.started_s)
    return f"chat (pid {running.pid}) is running since {since} on {', '.join(running.addresses)}, files in {config.data_dir}"


def duration(seconds: float) -> str:
    """In the two largest units: ``3 d 4 h``, ``5 min 2 s``."""
    left = max(0, int(seconds))
    counts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or counts or size == 1:
            counts.append(f"{count} {unit}")
    return " ".join(counts[:2])


def guests(config: Config) -> str | None:
    """The guests' join line and, in a second line, the link for a browser where one listener serves the page; also while the server does
    not run. None: there is no way in. (One with a code of its own: `invitation`.)

    It names the address that the running server has; else the configured one, or where that has no port of its own (0) the one it had last.
    *Raises* OSError or ValueError when there is no database, or no certificate.
    """
    code = joinline.guest_invite(config.database)
    if config.registration == "closed" or (code is None and config.registration != "open"):
        return None
    return invitation(config, code)


def invitation(config: Config, code: str | None) -> str:
    """The lines to send to somebody who is to come in by *code*: for the terminal, and the link for a browser.

    *Raises* OSError or ValueError when there is no certificate.
    """
    addresses: Sequence[str] = [listen.address for listen in config.listen]
    running = holder(config.lock_file)
    if running is not None or any(split_address(address)[1] == 0 for address in addresses):
        addresses = (running or last_described(config.lock_file)).addresses or addresses
    lines = [joinline.guest_line(config, addresses, code)]
    if web := web_addresses(config, addresses):
        lines.append(f"In a browser: {joinline.guest_link(config, web, code)}")
    return "\n".join(lines)


def web_addresses(config: Config, addresses: Sequence[str]) -> list[str]:
    """Those of *addresses*, in the order of the listeners, at which the page is served."""
    if all("web" in listen.dialects for listen in config.listen):
        return list(addresses)
    if len(addresses) != len(config.listen):  # a name that is several addresses: told by their ports
        ports = {split_address(listen.address)[1] for listen in config.listen if "web" in listen.dialects}
        return [address for address in addresses if split_address(address)[1] in ports]
    return [address for address, listen in zip(addresses, config.listen, strict=True) if "web" in listen.dialects]
