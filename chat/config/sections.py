"""Every key of the configuration: its default, what is allowed, and its explanation.

This is the single source. ``config.toml`` is rendered from it (`chat.config.manual`), ``chat config show`` prints it, and the loader
checks by it (`chat.config.load`). The values are checked when a configuration is loaded, not when a section is made in code.

*Source*: contract, section 7 (defaults) and section 8 (names).
"""

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import platformdirs

Plaintext = Literal["loopback", "never", "always"]
Registration = Literal["open", "invite", "closed"]
Level = Literal["debug", "info", "warning", "error"]

DEFAULT_PORT: Final = 7667
MAX_BYTES: Final = 10**12


class ConfigError(Exception):
    """The configuration has mistakes. *problems* are all of them, one line each: where, which key, what was expected."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def split_address(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT``; an IPv6 address stands in brackets, which are taken off. No host is every address. *Raises* ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'HOST:PORT, with brackets around an IPv6 address such as "[::]:{DEFAULT_PORT}"')
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or any(c.isspace() for c in host):
        raise ValueError(f'HOST:PORT with a port from 0 to 65535, such as "0.0.0.0:{DEFAULT_PORT}"')
    return host, int(port)


# ---------------------------------------------------------------- checks: each raises ValueError with what is expected


def _address(text: str) -> None:
    split_address(text)


def _loopback(text: str) -> None:
    host = split_address(text)[0] if text else "127.0.0.1"
    try:
        fine = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        fine = False
    if not fine:
        raise ValueError('HOST:PORT of this machine itself, such as "127.0.0.1:7668"')


def _public_address(text: str) -> None:
    if text and not split_address(text if ":" in text.rpartition("]")[2] else f"{text}:{DEFAULT_PORT}")[0]:
        raise ValueError("HOST or HOST:PORT")


def _title(text: str) -> None:
    if not 1 <= len(text) <= 64 or not text.isprintable() or text != text.strip():
        raise ValueError("1 to 64 printable characters")


def _prefix(text: str) -> None:
    if not 1 <= len(text) <= 8 or not text.isprintable() or any(c.isspace() or c.isalnum() or c == "\\" for c in text):
        raise ValueError('1 to 8 signs, no letters, digits, blanks or backslashes, such as "//"')


def _channels(names: tuple[str, ...]) -> None:
    for name in names:
        if not 1 <= len(name) <= 64 or name.startswith("#") or not name.isprintable() or any(c.isspace() for c in name):
            raise ValueError("channel names of 1 to 64 printable characters, without # in front and without blanks")


def _dialects(names: tuple[str, ...]) -> None:
    if not names or not set(names) <= {"native", "web"} or len(set(names)) != len(names):
        raise ValueError('"native", "web" or both')


def _origins(origins: tuple[str, ...]) -> None:
    for origin in origins:
        scheme, sep, host = origin.partition("://")
        if scheme not in ("http", "https") or not sep or not host or "/" in host or not host.isprintable() or " " in host:
            raise ValueError('origins such as "https://chat.example.org", without a path')


def _modules(names: tuple[str, ...]) -> None:
    if not all(part.isidentifier() for name in names for part in name.split(".")):
        raise ValueError('names of Python modules, such as "my_plugin.commands"')


def _database(url: str) -> None:
    if not url.startswith("sqlite:") or not url.removeprefix("sqlite:").strip("/") or "?" in url:
        raise ValueError('"sqlite:FILE", FILE being inside data_dir unless it begins with /')


# ---------------------------------------------------------------- the sections


def key(
    default: Any,
    explanation: str,
    *,
    low: float | None = None,
    high: float | None = None,
    check: Callable[[Any], None] | None = None,
) -> Any:
    """A key of a section. *low* and *high* are allowed themselves. A default that is a function is called when needed."""
    metadata = {"explanation": explanation, "low": low, "high": high, "check": check}
    if callable(default):
        return attrs.field(factory=default, metadata=metadata)
    return attrs.field(default=default, metadata=metadata)


@attrs.frozen(kw_only=True)
class Listen:
    """Where the daemon listens. One port serves every dialect; repeat [[listen]] for more addresses."""

    address: str = key(
        f"0.0.0.0:{DEFAULT_PORT}",
        'HOST:PORT; "0.0.0.0:7667" is every IPv4 address, "[::]:7667" every IPv6 address, ":7667" both; port 0 takes any free one.',
        check=_address,
    )
    dialects: tuple[str, ...] = key(
        ("native", "web"), 'What is spoken here: "native" (chat\'s own protocol), "web" (the page and its WebSocket).', check=_dialects
    )
    plaintext: Plaintext = key(
        "loopback", 'Who may speak without TLS: "loopback" (this machine only), "never", "always" (only behind a proxy or a VPN).'
    )
    origins: tuple[str, ...] = key(
        (),
        'Web origins that may open the WebSocket, besides those of the certificate\'s names, such as "https://chat.example.org".',
        check=_origins,
    )


@attrs.frozen(kw_only=True)
class Tls:
    """Certificate and key in PEM; both or none. Empty: a self-signed pair is made in data_dir at the first start, and clients pin it."""

    certificate: Path | None = key(None, "File of the certificate or chain.")
    key: Path | None = key(None, "File of its private key.")


@attrs.frozen(kw_only=True)
class Storage:
    """Where everything is kept."""

    url: str = key("sqlite:chat.db", "The database: sqlite:FILE, FILE being inside data_dir unless it begins with /.", check=_database)
    min_free_bytes: int = key(
        256 * 2**20,
        "With less free space on the disk nothing new is taken (storage_full): no messages, people, channels, reports. What is left is kept"
        " for what a server needs to stay in order: logins, leaving, moderation and deleting go on, and reading.",
        low=0,
        high=MAX_BYTES,
    )
    busy_timeout_s: float = key(
        5.0, "How long to wait for a database that another program has locked, before those who wait are told so.", low=0.1, high=600
    )


@attrs.frozen(kw_only=True)
class Passwords:
    """How dear it is to guess a password: argon2id. Higher is safer and slower; old hashes are renewed at the next login."""

    memory_kib: int = key(19456, "Memory for one hash, in KiB.", low=8, high=4 * 2**20)
    passes: int = key(2, "Passes over that memory.", low=1, high=1000)
    parallel: int = key(2, "How many hashes are computed at the same time; the others queue.", low=1, high=64)


@attrs.frozen(kw_only=True)
class Limits:
    """What one person, one address or one slow line may cost the others. Names say the unit: _s seconds, _bytes bytes."""

    connections: int = key(10_000, "Connections at the same time; fewer where file descriptors are few (ulimit -n).", low=1, high=1_000_000)
    connections_per_address: int = key(16, "Connections from one IPv4 address or one IPv6 /64.", low=1, high=1_000_000)
    exempt_loopback: bool = key(True, "Connections from this machine itself are not counted per address.")
    sends_burst: int = key(10, "Messages that an account may send at once, refused ones too.", low=1, high=10**9)
    sends_per_s: float = key(5.0, "Messages a second that it may send after that.", low=0.001, high=10**9)
    commands_burst: int = key(20, "Commands that an account may give at once.", low=1, high=10**9)
    commands_per_s: float = key(5.0, "Commands a second that it may give after that.", low=0.001, high=10**9)
    joins_per_min: int = key(10, "Channels that an account may join in a minute.", low=1, high=10**9)
    new_channels_per_h: int = key(5, "Channels that an account may make in an hour.", low=1, high=10**9)
    wrong_logins_per_min: int = key(3, "Wrong passwords from one address in a minute, before it must wait.", low=1, high=10**9)
    registrations_per_h: int = key(3, "Accounts that one address may register in an hour.", low=1, high=10**9)
    frame_bytes: int = key(64 * 1024, "Largest frame of the protocol after login; before it is at most 8 KiB.", low=1024, high=16 * 2**20)
    text_bytes: int = key(16 * 1024, "Largest text of one message; must be smaller than frame_bytes.", low=1, high=8 * 2**20)
    outbox_soft_bytes: int = key(
        512 * 1024, "What may wait for one slow reader before its live messages stop; it fetches them later.", low=4096, high=MAX_BYTES
    )
    outbox_hard_bytes: int = key(2**20, "What may wait for one slow reader before it is cut; it loses nothing.", low=8192, high=MAX_BYTES)
    outboxes_total_bytes: int = key(
        256 * 2**20, "What may wait for all readers together; the largest is cut first.", low=2**16, high=MAX_BYTES
    )
    write_deadline_s: float = key(10.0, "A reader that takes less than 1 KiB a second for this long is cut off.", low=0.1, high=3600)
    handshake_s: float = key(10.0, "Time to say the first bytes and to finish the TLS handshake.", low=0.1, high=3600)
    login_s: float = key(60.0, "Time to log in.", low=0.1, high=3600)
    idle_ping_s: float = key(30.0, "After this much silence the server pings.", low=0.1, high=86400)
    idle_close_s: float = key(90.0, "After this much silence the connection is closed; must be more than idle_ping_s.", low=0.2, high=86400)
    resume_window_s: float = key(90.0, "For this long after a lost connection others still see the person as online.", low=0, high=86400)
    heads_s: float = key(30.0, "How often clients are told where their conversations stand.", low=0.1, high=86400)
    question_s: float = key(120.0, "How long a command waits for an answer to its question, if it does not say.", low=0.1, high=86400)
    command_s: float = key(3600.0, "A command that takes longer, with all its questions, is ended.", low=0.1, high=30 * 86400)
    drain_s: float = key(10.0, "How long the daemon takes to say goodbye when it is stopped.", low=0, high=3600)


@attrs.frozen(kw_only=True)
class Log:
    """The daemon's own log: JSON lines, never with a text, a password or a token. Large files are rotated."""

    level: Level = key("info", 'The least that is logged: "debug", "info", "warning", "error".')
    file: Path | None = key(
        None, "The file. Empty: the terminal (standard error) in the foreground, log/chat.log inside data_dir in the background."
    )
    messages: bool = key(
        False, "Also write what is said in channels, readable, to log/messages/CHANNEL.log inside data_dir. Private messages never are."
    )
    rotate_bytes: int = key(10 * 2**20, "A log file of either kind that would grow beyond this is renamed.", low=4096, high=MAX_BYTES)
    rotate_keep: int = key(5, "How many renamed files are kept of each.", low=0, high=1000)


@attrs.frozen(kw_only=True)
class Metrics:
    """What monitoring may read: GET /metrics (Prometheus), /healthz (the daemon is alive), /readyz (it would store a message now)."""

    address: str = key(
        "",
        'HOST:PORT on this machine alone, such as "127.0.0.1:7668". Empty: nowhere (two daemons on a machine would want the same port). '
        "Without any of it: chat status.",
        check=_loopback,
    )


def default_data_dir() -> Path:
    return Path(platformdirs.user_data_dir("chat"))


@attrs.frozen(kw_only=True)
class Config:
    """The configuration of one daemon. Every key has a default; a file is needed for none."""

    name: str = key("chat", "The server's name, as clients show it.", check=_title)
    data_dir: Path = key(default_data_dir, "Folder of the database, the certificate and the logs. Empty: ~/.local/share/chat (XDG).")
    registration: Registration = key("invite", 'Who may make an account: "invite" (by join line), "open" (everybody), "closed" (nobody).')
    default_channels: tuple[str, ...] = key(("lobby",), "Channels that every new account is in.", check=_channels)
    prefix: str = key("//", "A message that begins with this is a command.", check=_prefix)
    plugins: tuple[str, ...] = key(
        ("chat.plugins.poll", "chat.plugins.remind", "chat.plugins.roll"),
        "Python modules with further commands; those of chat.plugins are examples. Beside these, the files in the folder plugins inside "
        "data_dir are loaded, and packages with entry points of the group chat.commands. reload-commands loads them anew.",
        check=_modules,
    )
    public_address: str = key(
        "",
        "HOST or HOST:PORT that join lines name, when it is not the address of this machine: the name in DNS, the router's address. "
        "Empty: found out.",
        check=_public_address,
    )
    listen: tuple[Listen, ...] = attrs.field(default=(Listen(),), metadata={"section": Listen})
    tls: Tls = attrs.field(default=Tls(), metadata={"section": Tls})
    storage: Storage = attrs.field(default=Storage(), metadata={"section": Storage})
    passwords: Passwords = attrs.field(default=Passwords(), metadata={"section": Passwords})
    limits: Limits = attrs.field(default=Limits(), metadata={"section": Limits})
    log: Log = attrs.field(default=Log(), metadata={"section": Log})
    metrics: Metrics = attrs.field(default=Metrics(), metadata={"section": Metrics})

    @property
    def database(self) -> Path:
        """The SQLite file, absolute. Several slashes after ``sqlite:`` are one, as in other tools' URLs."""
        name = self.storage.url.removeprefix("sqlite:")
        return self.data_dir / ("/" + name.lstrip("/") if name.startswith("/") else name)

    @property
    def certificate(self) -> Path:
        return self.tls.certificate or self.data_dir / "certificate.pem"

    @property
    def key(self) -> Path:
        return self.tls.key or self.data_dir / "key.pem"

    @property
    def lock_file(self) -> Path:
        return self.data_dir / "chat.lock"

    @property
    def pid_file(self) -> Path:
        return self.data_dir / "chat.pid"

    @property
    def log_dir(self) -> Path:
        return self.data_dir / "log"


def disagreements(config: Config) -> list[tuple[str, str]]:
    """What single keys cannot say: (key path, what was expected)."""
    found = []

    def expect(fine: bool, path: str, text: str) -> None:
        if not fine:
            found.append((path, text))

    limits = config.limits
    expect(limits.text_bytes < limits.frame_bytes, "limits.text_bytes", f"less than limits.frame_bytes ({limits.frame_bytes})")
    expect(
        limits.outbox_soft_bytes <= limits.outbox_hard_bytes,
        "limits.outbox_soft_bytes",
        f"at most limits.outbox_hard_bytes ({limits.outbox_hard_bytes})",
    )
    expect(
        limits.outbox_hard_bytes <= limits.outboxes_total_bytes,
        "limits.outbox_hard_bytes",
        f"at most limits.outboxes_total_bytes ({limits.outboxes_total_bytes})",
    )
    expect(limits.idle_ping_s < limits.idle_close_s, "limits.idle_ping_s", f"less than limits.idle_close_s ({limits.idle_close_s:g})")
    expect((config.tls.certificate is None) == (config.tls.key is None), "tls", "certificate and key, both or none")
    addresses = [item.address for item in config.listen if split_address(item.address)[1] != 0]
    expect(len(set(addresses)) == len(addresses), "listen", "each address once")
    return found
