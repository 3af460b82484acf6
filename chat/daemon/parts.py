"""The parts of a daemon, and who knows whom."""

from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from chat import __version__, accounts, connection, joinline
from chat.authentication import Guard
from chat.background import StartRefused
from chat.commands import builtin
from chat.commands.dispatch import Dispatcher
from chat.config import Config, Limits
from chat.connection import Services
from chat.errors import ChatError
from chat.messagelog import MessageLog
from chat.metrics.watch import Watch
from chat.protocol import messages as m
from chat.rooms import logins
from chat.rooms.audience import Hooks
from chat.rooms.desk import Clock, Settings
from chat.rooms.effects import Placed
from chat.rooms.manager import Manager
from chat.rooms.policy import RateLimits
from chat.rooms.router import Router
from chat.store.base import CommitFailed, Snapshot
from chat.store.committer import Committer
from chat.store.retention import ROWS, Cut
from chat.store.sqlite import SqliteStore, now_ms
from chat.transport import certificates, http
from chat.transport.outbox import FlushSet, OutboxPool

CLOSE_LOG_S: Final = 0.5  # for what is written for people who read with less: it must not hold up the end, nor a restart
PAGE: Final = Path(__file__).parents[1] / "frontends" / "web" / "static"


@attrs.frozen(kw_only=True)
class Parts:
    store: SqliteStore
    committer: Committer
    manager: Manager
    commands: Dispatcher
    services: Services
    site: http.Site
    flush: FlushSet
    hooks: Hooks
    pool: OutboxPool
    watch: Watch

    async def trim(self, cut: Cut) -> bool:
        """Delete some of what a retention says is to go, and have nobody replay it from memory. *Returns* whether some is left.

        *Raises* CommitFailed.
        """
        more = await self.committer.ask(lambda writer: writer.trim(cut.conv, cut.below, rows=ROWS))
        self.manager.desk.router.read_anew(cut.conv)
        return more

    @classmethod
    def make(cls, config: Config, store: SqliteStore, flush: FlushSet) -> "Parts":
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
            flush=flush.flush,
            pause=flush.catch_up,
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
                hasher,
                prefix=config.prefix,
                default_channels=config.default_channels,
                plugins=config.plugins,
                folder=config.data_dir / "plugins",
                entry_points=True,
                records=store,
            )
        except builtin.PluginBroken as broken:
            raise StartRefused(" ".join(str(broken).split())) from broken
        manager = Manager(settings(config), commands, clock, batches=committer.batches, load=load, low=lambda: committer.low)
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
            welcome=partial(welcome, config, manager),
            now=trio.current_time,
        )
        site = http.Site(files=http.load_static(PAGE), origins=origins(config), handler=partial(connection.serve, services))
        return cls(
            store=store,
            committer=committer,
            manager=manager,
            commands=commands,
            services=services,
            site=site,
            flush=flush,
            hooks=hooks,
            pool=OutboxPool(limits.outboxes_total_bytes),
            watch=Watch(committer=committer, router=router, stopping=lambda: services.stopping),
        )


def settings(config: Config) -> Settings:
    limits = config.limits
    return Settings(
        prefix=config.prefix,
        registration=config.registration,
        default_channels=config.default_channels,
        resume_window_s=limits.resume_window_s,
        heads_s=limits.heads_s,
        question_s=limits.question_s,
        command_s=limits.command_s,
        rates=RateLimits(
            sends_burst=limits.sends_burst,
            sends_per_s=limits.sends_per_s,
            commands_burst=limits.commands_burst,
            commands_per_s=limits.commands_per_s,
            joins_per_min=limits.joins_per_min,
            new_channels_per_h=limits.new_channels_per_h,
        ),
    )


def welcome(config: Config, manager: Manager) -> m.Welcome:
    """While the server is locked down, it says that nobody registers."""
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
        registration=config.registration if manager.desk.state.book.lockdown == "off" else "closed",
    )


def origins(config: Config) -> http.Origins:
    """Those that are configured; the addresses that peers connect to are found out by themselves. *Raises* OSError, ValueError."""
    allowed = [origin for listen in config.listen for origin in listen.origins]
    names = certificates.host_names(config.certificate.read_bytes())
    if config.public_address:
        host, port = joinline.public_address(config, ["0.0.0.0:0"])
        names.append(host)
        if port:  # of a proxy or a router; else it is the one that is listened on
            allowed.append(f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")
    return http.Origins(allowed=frozenset(allowed), names=frozenset(names))


class MessageLogs:
    """The readable log of the channels, where it is wanted. As a context manager it writes what waits, at the end."""

    def __init__(self, config: Config, parts: Parts) -> None:
        self._hooks = parts.hooks
        self._desk = parts.manager.desk
        self._log: MessageLog | None = None
        self._open(config)

    def _open(self, config: Config) -> None:
        if config.log.messages:
            folder, keep = config.log_dir / "messages", config.log.rotate_keep
            self._log = MessageLog(folder, self._hooks.name_of, rotate_bytes=config.log.rotate_bytes, rotate_keep=keep)
            self._hooks.record = partial(self._record, self._log)

    def _record(self, log: MessageLog, conv: str, item: Placed) -> None:
        """What a channel does not keep is not logged either."""
        room = self._desk.state.rooms.get(item.conv)
        if room is None or room.history != "none":
            log.record(conv, item)

    async def change(self, config: Config) -> None:
        """As *config* wants it now. *Waits* for the disk, at most `CLOSE_LOG_S`."""
        before, self._log, self._hooks.record = self._log, None, None
        self._open(config)
        if before is not None:
            await trio.to_thread.run_sync(before.close, CLOSE_LOG_S)

    def __enter__(self) -> "MessageLogs":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._log is not None:
            self._log.close(CLOSE_LOG_S)
