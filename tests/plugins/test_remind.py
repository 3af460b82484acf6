import trio

from chat.testing import open_room, virtual_time

REMIND = "chat.plugins.remind"


@virtual_time
async def test_a_reminder_comes_when_it_is_due():
    async with open_room(REMIND) as room:
        ann, bob = room.people
        assert (await ann.types("//remind 2h take the cake out")).text == "reminder 1: in 2h"
        assert (await bob.types("//remind 90s tea")).text == "reminder 1: in 1.5m"
        assert (await ann.types("//remind 1d water the plants")).text == "reminder 2: in 1d"
        await trio.sleep(89)
        assert bob.notes == []
        await trio.sleep(2)
        assert bob.notes == ["Reminder: tea"]
        assert (await bob.types("//reminders")).text == "you have no reminders"
        assert (await ann.types("//reminders")).text == "1: take the cake out (in 1.97h)\n2: water the plants (in 24h)"
        await trio.sleep(7200)
        assert ann.notes == ["Reminder: take the cake out"]
        await trio.sleep(86400)
        assert ann.notes == ["Reminder: take the cake out", "Reminder: water the plants"]
        assert room.stored() == {}
        assert room.said == []


@virtual_time
async def test_it_reaches_who_is_away_and_survives_a_restart():
    async with open_room(REMIND) as room:
        ann, bob = room.people
        await ann.types("//remind 1h away")
        await bob.types("//remind 1h asleep")
        await bob.types("//remind 3h awake")
        await ann.goes_away()
        await room.restarts(down_s=2 * 3600)
        await trio.sleep(0.1)
        assert (ann.notes, bob.notes) == (["Reminder: away"], ["Reminder: asleep"])
        await trio.sleep(3600)
        assert bob.notes == ["Reminder: asleep", "Reminder: awake"]
        await ann.comes_back()
        assert (await ann.types("//reminders")).text == "you have no reminders"


@virtual_time
async def test_one_asks_what_of():
    async with open_room(REMIND) as room:
        ann = room["ann"]
        call = await ann.types("//remind 10s")
        assert ann.question.text == "Remind you of what?"
        await ann.answers("the kettle")
        assert call.text == "reminder 1: in 10s"
        await trio.sleep(11)
        assert ann.notes == ["Reminder: the kettle"]


@virtual_time
async def test_reminders_are_taken_back_and_bounded():
    async with open_room(REMIND) as room:
        ann, bob = room.people
        for n in range(20):
            assert (await ann.types(f"//remind 1h thing {n}")).error is None
        assert "you have 20 reminders already" in (await ann.types("//remind 1h more")).error
        assert (await bob.types("//forget-reminder 7")).error == "you have no reminder 7; reminders lists them"
        assert (await ann.types("//forget-reminder 7")).text == "reminder 7 is forgotten: thing 6"
        assert (await ann.types("//remind 1h more")).text == "reminder 21: in 1h"
        await trio.sleep(3601)
        assert len(ann.notes) == 20
        assert "Reminder: thing 6" not in ann.notes
