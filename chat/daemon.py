"""The composition root: makes the parts, hands them to each other, and owns the nurseries in which they run.

    run                               a signal watcher beside everything: TERM and INT drain, again = now, HUP reloads certificates
    └ open_sqlite                     closed last
      └ SERVICES     flusher (TLS)
        └ PIPELINE     manager · committer: they end by themselves when the inbox is closed
          └ CONNECTIONS  a task each; deadline = drain_s once stopping
            └ DOORS        listeners · ticker

Stopping: DOORS are cancelled, so nobody new comes; every connection stops reading, has answered what it read, and says goodbye; the
inbox is closed, the manager ends, the committer stores and routes what is left; the store is closed. Nothing sleeps, nothing polls.
"""

import gc
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from chat import __version__, accounts, connection, joinline
from chat.authentication import Guard
from chat.background import DataLock, ReadyInfo, StartRefused, notify
from chat.commands import builtin
from chat.config import Config, Limits
from chat.connection import Services
from chat.errors import ChatError
from chat.log import flush as flush_log
from chat.log import get_logger
from chat.messagelog import MessageLog
from chat.protocol import messages as m
from chat.protocol import names
from chat.rooms import decisions, logins
from chat.rooms import effects as fx
from chat.rooms import items as it
from chat.rooms.audience import Hooks
from chat.rooms.desk import Clock, Settings
from chat.rooms.manager import Manager
from chat.rooms.policy import RateLimits
from chat.rooms.router import Router
from chat.rooms.state import State
from chat.store.base import CommitFailed, Snapshot, StoreRefused
from chat.store.committer import Committer
from chat.store.sqlite import SqliteStore, open_sqlite
from chat.transport import certificates, door, http
from chat.transport.outbox import FlushSet, OutboxLimits, OutboxPool

log = get_logger("chat.daemon")

SWITCH_INTERVAL_S: Final = 1e-4  # the writer thread and the loop share the GIL: 5 ms (the default) a switch made a tenth of the rows/s
CID_LIFE_MS: Final = 7 * 24 * 3600 * 1000  # contract, section 3
TIDY_S: Final = 3600.0
PAGE: Final = Path(__file__).parent / "frontends" / "web" / "static"
COME_BACK_S: Final = (0.5, 2.0)  # retry_after at the end is spread between these, so that not everybody is back at once


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def run(config: Config, *, sockets: list[list[socket.socket]], lock: DataLock, on_ready: Callable[[ReadyInfo], None]) -> int:
    """Serve until a signal says stop; *sockets* are one list for each ``[[listen]]``, listening. Returns the exit status.

    *Raises* StartRefused with one clear line. *Owns* the sockets. The *lock* on the data folder stays the caller's.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        trio.run(partial(_main, config, sockets, on_ready))
    except* StoreRefused as refused:
        raise StartRefused(str(_first(refused))) from None
    return 0


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


async def _main(config: Config, sockets: list[list[socket.socket]], on_ready: Callable[[ReadyInfo], None]) -> None:
    async with trio.open_nursery() as watched:
        stop = _Stop()
        await watched.start(_watch_signals, stop)
        async with open_sqlite(
            config.database,
            busy_timeout_s=config.storage.busy_timeout_s,
            min_free_bytes=config.storage.min_free_bytes,
            locked=True,
        ) as store:
            await _serve(config, sockets, store, stop, on_ready)
        watched.cancel_scope.cancel()


@attrs.define(eq=False)
class _Stop:
    """How the daemon is told to end. ``wanted`` once: drain; ``now`` is called for the second time."""

    wanted: trio.Event = attrs.Factory(trio.Event)
    now: Callable[[], None] = lambda: None
    reload: Callable[[], None] = lambda: None


async def _watch_signals(stop: _Stop, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    terminal = sys.stdin is not None and sys.stdin.isatty()  # asked now: after a hangup it is none any more
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP and not terminal:
                stop.reload()
            elif stop.wanted.is_set():
                stop.now()
            else:
                log.info("stopping", signal=signal.Signals(number).name)
                stop.wanted.set()


async def _serve(
    config: Config, sockets: list[list[socket.socket]], store: SqliteStore, stop: _Stop, on_ready: Callable[[ReadyInfo], None]
) -> None:
    tls = _open_certificate(config)
    flush = FlushSet()
    parts = _Parts.make(config, store, flush)
    with MessageLogs(config, parts):
        async with trio.open_nursery() as services:
            stop.now = services.cancel_scope.cancel
            stop.reload = partial(_reload, config, tls, parts.site)
            services.start_soon(flush.run)
            async with trio.open_nursery() as pipeline:
                pipeline.start_soon(parts.committer.run)
                await parts.manager.start()
                await pipeline.start(parts.manager.run)
                first = await _bootstrap(config, parts)
                async with trio.open_nursery() as connections:
                    async with trio.open_nursery() as doors:
                        await doors.start(partial(_open_doors, config, sockets, tls, parts, connections))
                        doors.start_soon(_tick, parts)
                        gc.collect()
                        gc.freeze()  # what is here now stays: the collector need not look at it again
                        on_ready(_ready_info(config, sockets, parts.manager.desk.state, first))
                        await stop.wanted.wait()
                        doors.cancel_scope.cancel()
                    notify("STOPPING=1")
                    connections.cancel_scope.deadline = trio.current_time() + config.limits.drain_s
                    parts.services.stopping = True
                    parts.site.stop()
                    for link in list(parts.services.links):
                        link.stop()
                await parts.manager.inbox.aclose()
            services.cancel_scope.cancel()
    log.info("stopped")


# ---------------------------------------------------------------- the parts


@attrs.frozen(kw_only=True)
class _Parts:
    store: SqliteStore
    committer: Committer
    manager: Manager
    services: Services
    site: http.Site
    flush: FlushSet
    hooks: Hooks

    @classmethod
    def make(cls, config: Config, store: SqliteStore, flush: FlushSet) -> "_Parts":
        """Everything, and who knows whom."""
        limits, passwords = config.limits, config.passwords
        clock = Clock(now=trio.current_time, now_ms=now_ms)
        hasher = accounts.Passwords(memory_kib=passwords.memory_kib, passes=passwords.passes, parallel=passwords.parallel)
        hooks = Hooks(
            flush=flush.flush,
            name_of=lambda account: manager.desk.state.name_of(account),
            is_online=lambda account: manager.desk.state.is_online(account),
            close_sessions=lambda effect: logins.close_sessions(manager.desk, effect),
            refuse_retry=lambda action: manager.desk.refuse_retry(action),
        )
        router = Router(hooks)
        committer = Committer(
            store.writer,
            route=router.route,
            on_failure=lambda generation: manager.commit_failed(generation),
            refund=lambda action: manager.desk.refund(action),
        )

        async def load() -> Snapshot:
            try:
                return await committer.load()
            except CommitFailed as failed:
                raise ChatError(failed.code, failed.message) from failed

        try:
            commands = builtin.dispatcher(
                hasher, prefix=config.prefix, default_channels=config.default_channels, plugins=config.plugins
            )
        except builtin.PluginBroken as broken:
            raise StartRefused(" ".join(str(broken).split())) from broken
        manager = Manager(_settings(config), commands, clock, batches=committer.batches, load=load)
        manager.desk.router = router
        guard = Guard(
            passwords=hasher,
            logins=accounts.Logins(
                hasher, wrong_per_min=limits.wrong_logins_per_min, exempt_loopback=limits.exempt_loopback, clock=trio.current_time
            ),
            registrations=accounts.Registrations(
                per_h=limits.registrations_per_h, exempt_loopback=limits.exempt_loopback, clock=trio.current_time
            ),
        )
        services = Services(
            manager=manager,
            guard=guard,
            store=store,
            flush=flush.flush,
            limits=limits,
            welcome=partial(_welcome, config),
            now=trio.current_time,
            retry_after=lambda: round(random.uniform(*COME_BACK_S), 2),
        )
        site = http.Site(files=http.load_static(PAGE), origins=_origins(config), handler=partial(connection.serve, services))
        return cls(store=store, committer=committer, manager=manager, services=services, site=site, flush=flush, hooks=hooks)


def _origins(config: Config) -> http.Origins:
    """Those that are configured; the addresses that peers connect to are found out by themselves. *Raises* OSError, ValueError."""
    allowed = [origin for listen in config.listen for origin in listen.origins]
    names = certificates.host_names(config.certificate.read_bytes())
    if config.public_address:
        host, port = joinline.public_address(config, ["0.0.0.0:0"])
        names.append(host)
        if port:  # of a proxy or a router; else it is the one that is listened on
            allowed.append(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")
    return http.Origins(allowed=frozenset(allowed), names=frozenset(names))


def _settings(config: Config) -> Settings:
    limits = config.limits
    return Settings(
        prefix=config.prefix,
        registration=config.registration,
        default_channels=config.default_channels,
        resume_window_s=limits.resume_window_s,
        heads_s=limits.heads_s,
        rates=RateLimits(
            sends_burst=limits.sends_burst,
            sends_per_s=limits.sends_per_s,
            commands_burst=limits.commands_burst,
            commands_per_s=limits.commands_per_s,
            joins_per_min=limits.joins_per_min,
            new_channels_per_h=limits.new_channels_per_h,
        ),
    )


def _welcome(config: Config) -> m.Welcome:
    limits: Limits = config.limits
    return m.Welcome(
        protocol=1,
        server=f"chat/{__version__}",
        name=config.name,
        limits={
            "frame_bytes": limits.frame_bytes,
            "text_bytes": limits.text_bytes,
            "sends_burst": limits.sends_burst,
            "sends_per_s": limits.sends_per_s,
            "idle_close_s": limits.idle_close_s,
            "resume_window_s": limits.resume_window_s,
        },
        prefix=config.prefix,
        registration=config.registration,
    )


class MessageLogs:
    """The readable log of the channels, where it is wanted."""

    def __init__(self, config: Config, parts: _Parts) -> None:
        self._log: MessageLog | None = None
        if config.log.messages:
            folder, keep = config.log_dir / "messages", config.log.rotate_keep
            self._log = MessageLog(folder, parts.hooks.name_of, rotate_bytes=config.log.rotate_bytes, rotate_keep=keep)
            parts.hooks.record = self._log.record

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        if self._log is not None:
            self._log.close()


# ---------------------------------------------------------------- the start


def _open_certificate(config: Config) -> Any:
    """*Raises* StartRefused. Makes a self-signed one where none is configured and none is there."""
    certificate, key = config.certificate, config.key
    try:
        if config.tls.certificate is None and not certificate.exists() and not key.exists():
            certificates.make_self_signed(certificate, key)
        return certificates.server_context(certificate, key)
    except (OSError, ValueError) as error:
        raise StartRefused(f"the certificate {certificate} with the key {key} cannot be used: {error}") from error


async def _bootstrap(config: Config, parts: _Parts) -> bool:
    """Make what a server needs and this one lacks: the default channels, an invite for the owner, one for the guests.

    Returns whether this is the first start.
    """
    state, at_ms = parts.manager.desk.state, now_ms()
    first = not state.accounts and not state.rooms
    effects: list[fx.Effect] = []
    for raw in config.default_channels:
        if state.room(raw) is None:
            effects += decisions.create_room(state, None, names.channel_name(raw), None, at_ms)
    for role, uses in (("owner", 1), ("member", None)):
        if not _invited(state, role, at_ms) and not (role == "owner" and any(a.role == "owner" for a in state.accounts.values())):
            code = accounts.new_invite()
            effects.append(fx.PutInvite(code=code, role=role, uses_left=uses, expires_ms=None, by=0, at_ms=at_ms))  # type: ignore[arg-type]
    if effects:
        outcome: list[fx.Outcome | ChatError] = []
        stored = trio.Event()

        def done(what: fx.Outcome | ChatError) -> None:
            outcome.append(what)
            stored.set()

        await parts.manager.inbox.send((None, [it.Bootstrap(effects=tuple(effects), done=done, failed=done)]))
        await stored.wait()
        if isinstance(outcome[0], ChatError):
            raise StartRefused(f"the database cannot be written: {outcome[0].message}")
    return first


def _invited(state: State, role: str, at_ms: int) -> bool:
    """Is there an invite with this role that is good for everybody's use?"""
    return any(i.role == role and (i.expires_ms is None or i.expires_ms > at_ms) for i in state.invites.values())


def _ready_info(config: Config, sockets: list[list[socket.socket]], state: State, first: bool) -> ReadyInfo:
    addresses = tuple(_shown(sock) for listening in sockets for sock in listening)
    owner = next((code for code, invite in state.invites.items() if invite.role == "owner"), None)
    guest = next((code for code, invite in state.invites.items() if invite.role == "member"), None)
    may_register = config.registration != "closed"
    web = [_shown(sock) for listen, listening in zip(config.listen, sockets, strict=True) if "web" in listen.dialects for sock in listening]
    return ReadyInfo(
        addresses=addresses,
        data_dir=config.data_dir,
        owner_line=joinline.owner_line(config, addresses, owner) if owner is not None else None,
        guest_line=joinline.guest_line(config, addresses, guest) if may_register else None,
        first_start=first,
        web=joinline.guest_link(config, web, guest) if may_register and web else None,
    )


def _shown(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _open_doors(
    config: Config,
    sockets: list[list[socket.socket]],
    tls: Any,
    parts: _Parts,
    connections: trio.Nursery,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    limits = config.limits
    listeners = [
        door.BoundListener(sockets=bound, dialects=frozenset(listen.dialects), plaintext=listen.plaintext)
        for listen, bound in zip(config.listen, sockets, strict=True)
    ]
    await door.serve(
        listeners,
        settings=door.DoorSettings(
            connections=door.connection_cap(limits.connections),
            connections_per_address=limits.connections_per_address,
            exempt_loopback=limits.exempt_loopback,
            handshake_s=limits.handshake_s,
            frame_bytes=min(8 * 1024, limits.frame_bytes),
            outbox=OutboxLimits(
                soft_bytes=limits.outbox_soft_bytes, hard_bytes=limits.outbox_hard_bytes, write_deadline_s=limits.write_deadline_s
            ),
        ),
        tls=tls,
        flush=parts.flush,
        pool=OutboxPool(limits.outboxes_total_bytes),
        handler=partial(connection.serve, parts.services),
        connections=connections,
        web_handler=partial(http.serve, parts.site),
        task_status=task_status,
    )


# ---------------------------------------------------------------- while it runs


async def _tick(parts: _Parts) -> None:
    """Once a second: everything that time brings about. One timer for all connections."""
    tidy_at = trio.current_time()
    while True:
        await trio.sleep(1)
        now = trio.current_time()
        for link in list(parts.services.links):
            link.tick(now)
        parts.flush.flush()
        flush_log()
        await parts.manager.inbox.send((None, [it.Tick()]))
        if now >= tidy_at:
            try:
                more = await parts.committer.tidy(cids_before_ms=now_ms() - CID_LIFE_MS)
            except CommitFailed as failed:
                log.warning("not_tidied", code=failed.code, reason=failed.message)
                more = False
            if not more:
                tidy_at = now + TIDY_S


def _reload(config: Config, tls: Any, site: http.Site) -> None:
    """A new certificate; one that is broken leaves the old in use."""
    try:
        certificates.reload(tls, config.certificate, config.key)
        site.origins = _origins(config)
        log.info("certificate_reloaded")
    except (OSError, ValueError) as error:
        log.error("certificate_kept", reason=str(error))
