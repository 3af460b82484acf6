"""The end of what is kept only for a time: once an hour, in steps with pauses between, so that nobody's message waits for it."""

from typing import Final

import trio

from chat.daemon.parts import Parts
from chat.errors import ChatError
from chat.log import get_logger
from chat.store.base import CommitFailed
from chat.store.sqlite import now_ms

EVERY_S: Final = 3600.0
FIRST_S: Final = 60.0  # after a start, when everybody has come back
PAUSE_S: Final = 0.05

log = get_logger("chat.daemon")


async def retain(parts: Parts) -> None:
    """*Waits* for ever."""
    await trio.sleep(FIRST_S)
    while True:
        try:
            for cut in await parts.store.cuts(now_ms()):
                more = True
                while more:
                    more = await parts.trim(cut)
                    await trio.sleep(PAUSE_S)
                log.info("retention", conv=cut.conv, records=cut.records, below=cut.below)
        except (ChatError, CommitFailed) as failed:
            log.warning("not_retained", code=failed.code, reason=failed.message)
        await trio.sleep(EVERY_S)
