"""A plugin with a bug that ends a connection's handler: who calls himself a bomb, and asks for his sessions, makes it raise."""

from chat import catchup
from chat.commands.context import Context
from chat.commands.registry import command

_sessions = catchup.sessions


async def sessions(conn, request):
    if conn.client == "bomb":
        raise RuntimeError("a bug")
    await _sessions(conn, request)


catchup.sessions = sessions


@command
def bombs(ctx: Context) -> str:
    """Say that this is no ordinary server."""
    return "live"
