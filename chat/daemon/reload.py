"""What changes while the daemon runs: SIGHUP, or ``chat reload``. Nobody is cut off.

The configuration is read again, as it was at the start: the same file, environment and flags. A file with a mistake changes nothing. Of a
correct one everything is taken on that `chat.config.live` says can be; the rest is told as needing a restart, each time until it had one.
Then what stands in other files: the certificate, the plugins, the log (opened anew, for logrotate). Each is for itself: one that is
broken stays as it was, and says so.
"""

from collections.abc import Callable
from typing import Any

import attrs
import trio

from chat import log
from chat.background import systemd
from chat.config import Config, ConfigError
from chat.config.live import NEXT, RESTART, Change, changes, merged
from chat.daemon.course import Course
from chat.daemon.doors import door_settings
from chat.daemon.parts import MessageLogs, Parts, origins, settings, welcome
from chat.transport import certificates
from chat.transport.door import DoorSettings

logger = log.get_logger("chat.daemon")


@attrs.define(eq=False, kw_only=True)
class Report:
    """What a reload did, in lines for a person."""

    changed: list[str] = attrs.Factory(list)
    restart: list[str] = attrs.Factory(list)  # what needs one
    problems: list[str] = attrs.Factory(list)  # what stays as it was, and why


@attrs.define(eq=False, kw_only=True)
class Reloader:
    """Knows everything that may change. *Owns* nothing."""

    course: Course
    parts: Parts
    tls: Any
    adjust_door: Callable[[DoorSettings], None]
    message_logs: MessageLogs
    certificate: bytes  # the file as it was loaded last
    _one: trio.Lock = attrs.Factory(trio.Lock)  # at a time

    async def __call__(self) -> Report:
        """*Waits* for files. Never raises but for a bug."""
        async with self._one:
            systemd.notify(*systemd.reloading())
            try:
                report = await self._reload()
            finally:
                systemd.notify("READY=1")
        logger.info("reloaded", changed=report.changed, restart=report.restart)
        if report.problems:
            logger.error("not_reloaded", problems=report.problems)
        return report

    async def _reload(self) -> Report:
        report, running = Report(), self.course.config
        try:
            read = running if self.course.origin is None else self.course.origin.reread()
        except ConfigError as error:
            report.problems += [*error.problems, "nothing was reloaded"]
            return report
        found = changes(running, read)
        report.restart = [str(change) for change in found if change.effect == RESTART]
        report.changed = [str(change) for change in found if change.effect != RESTART]
        config = self.course.config = merged(running, read)
        self._take_on(config)
        await self._logs(running, config, report)
        self._certificate(running, config, report)
        self._plugins(config, found, report)
        return report

    def _take_on(self, config: Config) -> None:
        parts, limits = self.parts, config.limits
        desk, services = parts.manager.desk, parts.services
        desk.settings = settings(config)
        desk.rates.adjust(desk.settings.rates)
        services.limits = limits
        services.welcome = lambda: welcome(config, services.manager)
        services.guard.logins.adjust(wrong_per_min=limits.wrong_logins_per_min, exempt_loopback=limits.exempt_loopback)
        services.guard.registrations.adjust(per_h=limits.registrations_per_h, exempt_loopback=limits.exempt_loopback)
        parts.store.writer.min_free_bytes = config.storage.min_free_bytes
        parts.pool.total_limit = limits.outboxes_total_bytes
        self.adjust_door(door_settings(config))

    async def _logs(self, running: Config, config: Config, report: Report) -> None:
        file = self.course.origin.file if self.course.origin is not None else None
        if running.log == config.log:
            log.reopen()
            return
        try:
            log.configure(config.log, file=file)
        except OSError as error:
            report.problems.append(f"log.file: {error.filename}: {error.strerror}; the log stays where it was")
            self.course.config = attrs.evolve(config, log=running.log)
            log.configure(running.log, file=file)
            return
        await self.message_logs.change(config)

    def _certificate(self, running: Config, config: Config, report: Report) -> None:
        """New connections get it; those that there are keep theirs."""
        try:
            certificates.reload(self.tls, config.certificate, config.key)
            self.parts.site.origins = origins(config)
            found = config.certificate.read_bytes()
        except (OSError, ValueError) as error:
            report.problems.append(f"certificate: {error}; the old one stays in use")
            self.course.config = attrs.evolve(self.course.config, tls=running.tls)
            return
        if found != self.certificate:
            self.certificate = found
            report.changed.append(f"certificate: a new one, {certificates.described(found)}, {NEXT}")

    def _plugins(self, config: Config, found: list[Change], report: Report) -> None:
        named = any(change.key == "plugins" for change in found)
        commands = self.parts.commands
        told = commands.reload(config.plugins if named else None)
        wrong = [f"{origin}: {problem}" for origin, problem in commands.problems.items()]
        report.changed += [f"plugins: {line}" for line in told if line not in wrong]
        report.problems += [f"plugins: {line}" for line in wrong]
