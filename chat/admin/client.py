"""The shell's end: ask the running server through its socket, or do the same on the files of a stopped one. Plain, blocking calls.

`run` is all that a command needs.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from chat.admin import place, registry
from chat.background import StartRefused, holder_of
from chat.config import Config
from chat.errors import ChatError

Progress = Callable[[int, int, str], None]  # done, total (0: unknown), of what

ANSWER_S: Final = 60.0  # without a word, also about progress, something is wrong
STARTING_S: Final = 10.0  # how long a server that is starting or ending is waited for
TRY_AGAIN_S: Final = 0.05


class Refused(Exception):
    """It was not done; the text is for a person."""


def run(config: Config, do: str, *, progress: Progress | None = None, **arguments: Any) -> Any:
    """Have *do* done by the server, or on the files of a stopped one where that is safe. *Returns* what the handler returned.

    *Waits* for it. *Raises* Refused.
    """
    deadline_s = time.monotonic() + STARTING_S
    pid = 0
    while True:
        try:
            running = holder_of(config)
            if running is None:
                return _offline(config, do, arguments, progress)
            pid = running.pid
            return ask(config, do, arguments, progress, answer_s=ANSWER_S)
        except (FileNotFoundError, ConnectionRefusedError):  # it is starting, or ending
            if time.monotonic() > deadline_s:
                raise Refused(f"the server runs (pid {pid}), but does not answer at {socket_of(config)}; its log may say why") from None
            time.sleep(TRY_AGAIN_S)
        except PermissionError:
            raise Refused(f"no right to use {socket_of(config)}: only the server's own user and root may") from None
        except StartRefused as exc:
            raise Refused(str(exc)) from None
        except TimeoutError:
            raise Refused(f"the server did not answer for {ANSWER_S:.0f} s; whether it was done, nobody knows") from None
        except OSError as exc:
            raise Refused(f"{socket_of(config)}: {exc.strerror or exc}") from None


def is_running(config: Config) -> bool:
    """Whether a server uses the data folder."""
    with contextlib.suppress(StartRefused):
        return holder_of(config) is not None
    return False


def socket_of(config: Config) -> str:
    return str(config.data_dir / place.SOCKET)


def ask(config: Config, do: str, arguments: dict[str, Any], progress: Progress | None = None, *, answer_s: float = ANSWER_S) -> Any:
    """Through the socket. *Raises* Refused, OSError (TimeoutError after *answer_s* without a word)."""
    with place.connect(config.data_dir / place.SOCKET) as sock:
        sock.settimeout(answer_s)
        sock.sendall(msgspec.json.encode({"id": 1, "do": do, **arguments}) + b"\n")
        with sock.makefile("rb") as lines:
            for line in lines:
                answer = msgspec.json.decode(line)
                if "ok" in answer:
                    return answer["ok"]
                if "error" in answer:
                    raise Refused(answer["error"]["message"])
                if progress is not None and "progress" in answer:
                    told = answer["progress"]
                    progress(told["done"], told["total"], told["what"])
    raise Refused("the server ended before it answered; whether it was done, nobody knows")


def _offline(config: Config, do: str, arguments: dict[str, Any], progress: Progress | None) -> Any:
    from chat.admin import offline

    try:
        found = registry.find(do)
        if not found.offline:
            raise Refused(f"the server is not running on {config.data_dir}, and this needs it (chat start)")
        return offline.run(config, found, arguments, progress)
    except ChatError as error:
        raise Refused(error.message) from None
