"""What is counted against guessing passwords, over whole connections. What else is done with passwords: `tests/e2e`."""

import pytest
import trio

from chat import accounts, authentication
from chat.rooms import effects as fx
from tests.rooms.house import open_house
from tests.wire import open_lines


@pytest.fixture
def house():
    with open_house() as house:
        house.ann = house.register("ann")
        names = {"name": "Straße", "canonical": "strasse", "skeleton": "strasse"}
        house.do([fx.CreateRoom(room=5, epoch="abcdefgh", private=True, password_hash="hash of right", at_ms=0, **names)])
        yield house


def guard(house):
    """Nobody is exempt, and one address may be wrong as often as it likes: what is counted is the name."""
    logins = accounts.Logins(house.passwords, wrong_per_min=1e9, exempt_loopback=False, clock=trio.current_time)
    return authentication.Guard(passwords=house.passwords, logins=logins, registrations=accounts.Registrations())


async def test_wrong_passwords_of_a_private_channel_and_of_an_absent_one_are_counted_alike(house):
    """By the name, however it is written: else ten spellings tell whether there is one."""
    async with open_lines(house) as lines:
        lines.services.guard = guard(house)
        wire = await lines.resume(house.ann.token, {})
        await wire.hear("resumed")

        async def try_all(spellings):
            told = []
            for n in range(accounts.WRONG_PER_ACCOUNT + 4):
                request = {"type": "join", "id": 9, "channel": spellings[n % len(spellings)], "password": "wrong"}
                told.append((await wire.ask(request))[-1]["code"])
            return told

        private = await try_all(("straße", "STRASSE", "#Strasse", "Straße"))
        assert private == ["not_found"] * accounts.WRONG_PER_ACCOUNT + ["rate_limited"] * 4
        assert await try_all(("gaße", "GASSE", "#Gasse", "Gaße")) == private
        assert await try_all(("no name!", "NO NAME!", "#No Name!", "no name!")) == private, "what can be no name, too"
        right = {"type": "join", "id": 9, "channel": "Straße", "password": "right"}
        assert (await wire.ask(right))[-1]["code"] == "rate_limited"
