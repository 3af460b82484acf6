"""The ``chat`` command with a stand-in for the daemon: what `chat.background` does with a daemon that behaves in every bad way.

Run as a program: ``python stand_in.py serve --name-says-how …``; the configuration's ``name`` is the way it behaves.
"""

import os
import signal
import sys
import types

from chat import background


def run(config, *, sockets, lock, on_ready, origin, checked):
    addresses = tuple("{}:{}".format(*sock.getsockname()[:2]) for per_listen in sockets for sock in per_listen)
    match config.name:
        case "refuses":
            raise ExceptionGroup("", [background.StartRefused(f"{config.database}: damaged")])
        case "world":
            raise FileNotFoundError(2, "No such file or directory", str(config.certificate))
        case "crashes":
            raise RuntimeError("hunter2")
        case "dies":
            os._exit(3)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
    terminated = {signal.SIGTERM, signal.SIGINT} if config.name != "stubborn" else {signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, terminated)
    line = "chat connect 127.0.0.1:1#f/i"
    first = not config.database.exists()
    config.database.touch()
    owner = line if first else None
    on_ready(
        background.ReadyInfo(addresses=addresses, data_dir=config.data_dir, owner_line=owner, guest_line=line, first_start=first, web=None)
    )
    print("on the standard output of the daemon")
    if config.name == "fails later":
        raise RuntimeError("hunter2")
    signal.sigwait(terminated)
    return 0


if __name__ == "__main__":
    stand_in = types.ModuleType("chat.daemon")
    stand_in.run = run
    sys.modules["chat.daemon"] = stand_in
    from chat.cli import main

    main()
