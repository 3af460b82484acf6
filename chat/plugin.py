"""All that the author of a plugin needs: ``from chat.plugin import …``. The guide is in the README; `chat.testing` is for tests.

    from chat.plugin import Context, command

    @command(where="channel")
    async def hello(ctx: Context, times: int = 1) -> None:
        \"\"\"Say hello to everybody here.\"\"\"
        await ctx.say(f"{ctx.user} says hello" + "!" * times)

The examples in `chat.plugins` are plugins like any other.
"""

from msgspec import Meta

from chat.commands.arguments import Duration, Rest, Role
from chat.commands.context import Answer
from chat.commands.facade import Background, Context, Refused, Store
from chat.commands.interactive import Answered, QuestionClosed, everyone
from chat.commands.plain import Channel, User
from chat.commands.plugins import background
from chat.commands.registry import command
from chat.errors import ChatError

__all__ = [
    "Answer",
    "Answered",
    "Background",
    "Channel",
    "ChatError",
    "Context",
    "Duration",
    "Meta",
    "QuestionClosed",
    "Refused",
    "Rest",
    "Role",
    "Store",
    "User",
    "background",
    "command",
    "everyone",
]
