"""The ``chat`` command: arguments only, a file for each group. What they mean is in `chat.config`, `chat.background`, `chat.daemon`,
`chat.admin` and `chat.client`, which a command imports when it runs, so that ``chat --help`` is quick.

A new command is a function in one of the files; a new file is named here. Exit status: 0 done (a server: ended by SIGTERM), 1 refused
or failed, with a line on standard error, 2 wrong usage; of ``chat status``: 3 not running.
"""

from importlib import import_module
from typing import Final

from chat.cli.base import main

__all__ = ["main"]

GROUPS: Final = """
    admin
    audit
    bench
    cert
    channels
    client
    config
    data
    doctor
    prove
    retention
    seeing
    server
    users
""".split()  # noqa: SIM905

for group in GROUPS:  # each puts its commands into `main`
    import_module(f"chat.cli.{group}")
