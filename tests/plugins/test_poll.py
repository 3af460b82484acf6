import pytest
import trio

from chat.errors import ChatError
from chat.testing import open_room, virtual_time

POLL = "chat.plugins.poll"


@virtual_time
async def test_a_poll():
    async with open_room(POLL, people=["ann", "bob", "cem"]) as room:
        ann, bob, cem = room.people
        call = await ann.types('//poll 5m "Pizza today?" Margherita, Funghi , none')
        assert room.said == [("server", "ann asks: Pizza today? (Margherita, Funghi, none)")]
        assert [person.question.text for person in room.people] == ["Pizza today?"] * 3
        await bob.answers("funghi")
        await cem.answers("Funghi")
        await ann.answers("none")
        with pytest.raises(AssertionError, match="bob is asked nothing"):
            await bob.answers("none")
        await trio.sleep(299)
        assert call.running
        await trio.sleep(2)
        assert call.text == ""
        assert room.said[1:] == [("server", "Pizza today? Funghi: 2, none: 1, Margherita: 0")]
        assert all(person.question is None for person in room.people)
        assert (await bob.types("//poll-results")).text == "Pizza today? Funghi: 2, none: 1, Margherita: 0 (asked by ann)"


@virtual_time
async def test_nobody_votes_and_a_choice_is_none_of_those():
    async with open_room(POLL) as room:
        ann, bob = room.people
        assert (await ann.types("//poll-results")).text == "there was no poll here yet"
        await ann.types("//poll 10s Tea?")
        with pytest.raises(ChatError, match="answer one of these: yes, no"):
            await bob.answers("perhaps")
        await trio.sleep(11)
        assert room.said[-1] == ("server", "Tea? Nobody voted.")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("//poll 5m Tea? only", "two different choices"),
        ("//poll 5m Tea? yes, YES", "two different choices"),
        ("//poll 5s Tea?", "it must be 10 to 1800 seconds"),
        ("//poll Tea? yes", "is no duration"),
        ("//poll", "<time> and <question> are missing"),
    ],
)
def test_what_is_no_poll(line, why):
    @virtual_time
    async def check():
        async with open_room(POLL) as room:
            call = await room["ann"].types(line)
            assert why in call.error
            assert not room.said

    check()


@virtual_time
async def test_two_polls_at_once_and_only_the_last_results_are_kept():
    async with open_room(POLL) as room:
        ann, bob = room.people
        await ann.types("//poll 20s A?")
        await bob.types("//poll 10s B?")
        first, second = ann.questions
        await ann.answers("yes", first)
        await ann.answers("no", second)
        await trio.sleep(21)
        assert [text for _, text in room.said[2:]] == ["B? no: 1, yes: 0", "A? yes: 1, no: 0"]
        for n in range(10):
            await ann.types(f"//poll 10s {n}?")
            await trio.sleep(11)
        ((_, kept),) = room.stored().items()
        assert [each["result"][0] for each in kept] == list("9876543210")


@virtual_time
async def test_who_asked_leaves_and_so_does_the_poll():
    async with open_room(POLL) as room:
        _, bob = room.people
        call = await bob.types("//poll 5m Tea?")
        assert room["ann"].question is not None
        await bob.types("//leave-channel")
        assert room["ann"].question is None
        assert call.code == "removed"
