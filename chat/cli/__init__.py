"""The ``chat`` command: arguments only, a file for each group. What they mean is in `chat.config`, `chat.background`, `chat.daemon`,
`chat.admin` and `chat.client`, which a command imports when it runs, so that ``chat --help`` is quick.

A new command is a function in one of the files; a new file is named here. Exit status: 0 done (a server: ended by SIGTERM), 1 refused
or failed, with a line on standard error, 2 wrong usage; of ``chat status``: 3 not running.
"""

from chat.cli import admin, audit, bench, channels, client, config, doctor, prove, seeing, server, users
from chat.cli.base import main

__all__ = ["admin", "audit", "bench", "channels", "client", "config", "doctor", "main", "prove", "seeing", "server", "users"]
