"""What a running daemon takes on at a reload, and what needs a restart: a table of all keys, and the difference of two configurations.

A key is in `EFFECTS` with the time from which its new value holds. A test holds that every key of the configuration is there.
"""

from typing import Any, Final, Literal

import attrs

from chat.config.load import KEYS, fields
from chat.config.sections import Config

Effect = Literal["at once", "for new connections", "needs a restart"]
NOW: Final[Effect] = "at once"
NEXT: Final[Effect] = "for new connections"
RESTART: Final[Effect] = "needs a restart"

EFFECTS: Final[dict[str, Effect]] = {
    "name": NEXT,  # told in `welcome`
    "data_dir": RESTART,  # and `chat restart` refuses: stop, move, start
    "registration": NOW,
    "default_channels": RESTART,  # made at the start
    "prefix": RESTART,  # connected clients were told the old one
    "plugins": NOW,
    "public_address": NOW,
    "listen.address": RESTART,
    "listen.dialects": RESTART,
    "listen.plaintext": RESTART,
    "listen.origins": NOW,
    "tls.certificate": NEXT,
    "tls.key": NEXT,
    "storage.url": RESTART,
    "storage.min_free_bytes": NOW,
    "storage.busy_timeout_s": RESTART,  # of connections that are open
    "passwords.memory_kib": RESTART,
    "passwords.passes": RESTART,
    "passwords.parallel": RESTART,
    "limits.connections": NEXT,
    "limits.connections_per_address": NEXT,
    "limits.exempt_loopback": NOW,
    "limits.sends_burst": NOW,
    "limits.sends_per_s": NOW,
    "limits.commands_burst": NOW,
    "limits.commands_per_s": NOW,
    "limits.joins_per_min": NOW,
    "limits.new_channels_per_h": NOW,
    "limits.wrong_logins_per_min": NOW,
    "limits.registrations_per_h": NOW,
    "limits.frame_bytes": NEXT,
    "limits.text_bytes": NEXT,
    "limits.outbox_soft_bytes": NEXT,
    "limits.outbox_hard_bytes": NEXT,
    "limits.outboxes_total_bytes": NOW,
    "limits.write_deadline_s": NEXT,
    "limits.handshake_s": NEXT,
    "limits.login_s": NOW,
    "limits.idle_ping_s": NOW,
    "limits.idle_close_s": NOW,
    "limits.resume_window_s": NOW,
    "limits.heads_s": NOW,
    "limits.question_s": NOW,  # of questions asked from then on
    "limits.command_s": NOW,
    "limits.drain_s": NOW,
    "log.level": NOW,
    "log.file": NOW,
    "log.messages": NOW,
    "log.rotate_bytes": NOW,
    "log.rotate_keep": NOW,
    "metrics.address": RESTART,
}


@attrs.frozen(kw_only=True)
class Change:
    key: str
    before: Any
    after: Any
    effect: Effect

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.before)} → {_shown(self.after)}, {self.effect}"


def changes(before: Config, after: Config) -> list[Change]:
    """Every key that differs. Of ``[[listen]]`` the other keys are compared only where the addresses are those of before."""
    alike = [listener.address for listener in before.listen] == [listener.address for listener in after.listen]
    return [
        Change(key=path, before=old, after=new, effect=EFFECTS.get(path, RESTART))
        for path in KEYS
        if (alike or path == "listen.address" or not path.startswith("listen."))
        and (old := _value(before, path)) != (new := _value(after, path))
    ]


def merged(before: Config, after: Config) -> Config:
    """What holds after a reload: *after*, but for what needs a restart, which stays as it was *before*."""
    kept: dict[str, Any] = {}
    for name in fields(Config):
        old, new = getattr(before, name), getattr(after, name)
        if name == "listen":
            alike = [listener.address for listener in old] == [listener.address for listener in new]
            kept[name] = tuple(map(_merged_section, ["listen"] * len(old), old, new)) if alike else old
        elif name in KEYS:
            kept[name] = old if EFFECTS.get(name, RESTART) == RESTART else new
        else:
            kept[name] = _merged_section(name, old, new)
    return Config(**kept)


def _merged_section(section: str, before: Any, after: Any) -> Any:
    names = (path.partition(".")[2] for path in KEYS if path.startswith(section + "."))
    return attrs.evolve(after, **{name: getattr(before, name) for name in names if EFFECTS.get(f"{section}.{name}", RESTART) == RESTART})


def _value(config: Config, path: str) -> Any:
    section, _, name = path.rpartition(".")
    if not section:
        return getattr(config, name)
    if section == "listen":
        return [getattr(listener, name) for listener in config.listen]
    return getattr(getattr(config, section), name)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return "nothing" if value is None else f'"{value}"' if isinstance(value, str) else str(value)
