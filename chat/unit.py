"""``chat systemd``: the unit files for systemd, hardened, with the paths of this installation.

``Type=notify``: it is started when it says READY=1, and systemd learns by MAINPID= who goes on after ``chat restart``. The watchdog is fed
only while decisions are made and committed. What is forbidden is what a chat daemon never needs; what it needs are its data folder,
sockets of the Internet, and the UNIX sockets of systemd and of its administration.

*Source*: systemd.exec(5), systemd.service(5), systemd.socket(5).
"""

import getpass
import shutil
import sys
from pathlib import Path

from chat.config import Config, Loaded, split_address

TEMPLATE = """\
# {file}: chat as a system service. Made by `chat systemd`.
#   chat systemd > /etc/systemd/system/chat.service && systemctl daemon-reload && systemctl enable --now chat
# An upgrade: install it, then `chat restart{place}`; nobody is refused meanwhile.

[Unit]
Description=chat ({name})
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=1
# A database that is migrated is copied first.
TimeoutStartSec=30min
TimeoutStopSec={stop_s}
WatchdogSec=30
KillMode=mixed
LimitNOFILE={files}

{user}
UMask=0077
{data}

NoNewPrivileges=yes
{capabilities}
ProtectSystem=strict
ProtectHome={home}
PrivateTmp={tmp}
PrivateDevices=yes
ProtectProc=invisible
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""

SOCKET = """\
# chat.socket: systemd listens, and starts chat for the first who comes. Made by `chat systemd --socket`.

[Unit]
Description=chat ({name}), its sockets

[Socket]
{listen}
BindIPv6Only=ipv6-only
NoDelay=yes
KeepAlive=yes
Backlog=1024

[Install]
WantedBy=sockets.target
"""

LOW_PORT = "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE"
STATE = Path("/var/lib/chat")
ETC = Path("/etc/chat/config.toml")
HOMES = ("/home", "/root", "/run/user")  # what ProtectHome= hides
TEMPORARY = ("/tmp", "/var/tmp")  # what PrivateTmp= hides; DynamicUser= does it, too


def executable() -> Path:
    """The installed ``chat``, absolute."""
    beside = Path(sys.executable).with_name("chat")
    found = shutil.which("chat") if not beside.exists() else str(beside)
    return Path(found or beside).absolute()


def service(loaded: Loaded, *, user: str | None = None) -> str:
    """The text of ``chat.service``.

    *user*: an account that exists. None: systemd makes one up, and the data folder; another data folder's owner where one is configured.
    """
    config, program, folder = loaded.config, executable(), _folder(loaded)
    arguments = [str(program), "serve"]
    if loaded.file is not None:
        arguments += ["--config", str(loaded.file.absolute())]
    arguments += ["--data-dir", str(folder)]
    ports = [split_address(listen.address)[1] for listen in config.listen]
    low = any(0 < port < 1024 for port in ports)
    account = _account(folder, user)
    return TEMPLATE.format(
        file="chat.service",
        name=config.name.replace("%", "%%"),
        place="" if folder == config.data_dir else f" --data-dir {folder}",
        command=" ".join(map(_quoted, arguments)),
        stop_s=f"{config.limits.drain_s + 5:g}s",
        files=max(config.limits.connections + 512, 1024),
        user=f"User={account}" if account is not None else "DynamicUser=yes",
        data="StateDirectory=chat\nStateDirectoryMode=0700" if folder == STATE else f"ReadWritePaths={_quoted(str(folder))}",
        capabilities=LOW_PORT if low else "CapabilityBoundingSet=",
        home="no" if any(_within(path, HOMES) for path in _used(loaded)) else "yes",
        tmp="no" if account is not None and any(_within(path, TEMPORARY) for path in _used(loaded)) else "yes",
    )


def objections(loaded: Loaded, *, user: str | None = None) -> list[str]:
    """What stands in the way of the service that `service` describes, in lines for a person: files that it will not see."""
    account = _account(_folder(loaded), user)
    return [line for path in _used(loaded) if (line := _objection(path, account)) is not None]


def _objection(path: Path, account: str | None) -> str | None:
    if (place := _within(path, TEMPORARY)) is not None:
        elsewhere = f"put it elsewhere (the program into /opt/chat, the configuration into {ETC})"
        return (
            f"{path}: {place} is emptied at a boot: {elsewhere}" if account else f"{path}: this unit has a {place} of its own: {elsewhere}"
        )
    for one in (*reversed(path.parents), path):
        try:
            closed, owner = one.stat().st_mode & (0o011 if one.is_dir() else 0o044) == 0, one.owner()
        except (OSError, KeyError):
            continue  # it is not there yet
        if closed and account not in (owner, "root"):
            return f"{path}: only {owner} may look into {one}: put the file elsewhere (such as {ETC}), or say --user {owner}"
    return None


def _used(loaded: Loaded) -> list[Path]:
    """What the service must be able to read, but for what systemd makes."""
    tls, folder = loaded.config.tls, _folder(loaded)
    named = [executable(), folder if folder != STATE else None, loaded.file, tls.certificate, tls.key, loaded.config.log.file]
    return [path.absolute() for path in named if path is not None]


def _within(path: Path, folders: tuple[str, ...]) -> str | None:
    return next((folder for folder in folders if path.is_relative_to(folder)), None)


def _folder(loaded: Loaded) -> Path:
    return loaded.config.data_dir.absolute() if "data_dir" in loaded.sources else STATE


def _account(folder: Path, user: str | None) -> str | None:
    """As whom it runs; None: systemd makes one up."""
    return user or (_owner(folder) if folder != STATE else None)


def _owner(folder: Path) -> str:
    """Of a data folder that is somewhere else: whose it is, or will be."""
    try:
        return folder.owner()
    except (OSError, KeyError):
        return getpass.getuser()


def sockets(config: Config) -> str:
    """The text of ``chat.socket``: systemd listens where the configuration says."""
    lines = []
    for listen in config.listen:
        host, port = split_address(listen.address)
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines += [f"ListenStream={shown}"] if host else [f"ListenStream=0.0.0.0:{port}", f"ListenStream=[::]:{port}"]
    return SOCKET.format(name=config.name.replace("%", "%%"), listen="\n".join(lines))


def _quoted(argument: str) -> str:
    argument = argument.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{argument}"' if any(c.isspace() or c in '"\\;' for c in argument) else argument
