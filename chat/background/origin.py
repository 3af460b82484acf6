"""How this process was started: what its successor is started with, and where the configuration is read again."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs

from chat.config import Config, Loaded

HANDOVER: Final = "CHAT_HANDOVER"  # in a successor's environment: the descriptor on which its predecessor speaks
OF_ONE_PROCESS: Final = (HANDOVER, "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")  # not for a successor


@attrs.frozen(kw_only=True)
class Origin:
    """Taken at the start, before anything changes the process. *file* is where it logs when the configuration names no file."""

    reread: Callable[[], Config]  # raises ConfigError
    argv: tuple[str, ...]
    cwd: Path
    file: Path | None = None
    awaited: bool = False  # somebody waits for the end of this very process: a terminal, a container

    @classmethod
    def of(cls, loaded: Loaded, *, file: Path | None = None, awaited: bool = False) -> "Origin":
        return cls(
            reread=lambda: loaded.again().config,
            argv=(sys.executable, *sys.orig_argv[1:]),  # the same command, whatever it is now: maybe a newer one
            cwd=Path.cwd(),
            file=file,
            awaited=awaited,
        )

    def environment(self, descriptor: int) -> Mapping[str, str]:
        """For a successor that is spoken to on *descriptor*."""
        return {**{key: value for key, value in os.environ.items() if key not in OF_ONE_PROCESS}, HANDOVER: str(descriptor)}
