"""Administration from the shell: a UNIX socket in the data folder, what can be asked through it, and the same on a stopped server's files.

Theory of operation
-------------------
*Who may.* ``admin.sock`` lies in the data folder (0700) with rights 0600, and the kernel says who is at the other end: the server's own
user and root are served, nobody else. Whoever has the lock on the data folder owns the name: what lies there at a start is stale.

*What is said.* JSON, a line each. The client: ``{"id": 1, "do": "user.role", "name": "bob", "role": "admin"}``. The server: any number of
``{"id": 1, "progress": {...}}``, then ``{"id": 1, "ok": ...}`` or ``{"id": 1, "error": {"code": ..., "message": ...}}``.

*What changes something* is a decision: it waits in the manager's inbox like everybody's requests, and is committed and told in that order
(`chat.rooms.items.Administration`). While the server is stopped, `offline` takes its lock, loads the state, and runs the same handler.
Both are a `registry.House`; a handler does not ask which.

*What only reads* (lists, search, export, backup) does not trouble the daemon at all: the command reads the database beside it, through a
read-only connection of its own (`look`). WAL lets it, and the daemon's loop and its GIL stay free.

To add a command: a handler (see `registry`), its module's name in `registry.load`, and a function in `chat.cli`.
"""
