"""The denied cells of the rights matrix over real sockets: the database is the same before and after, and nobody else is sent a byte.

(`tests.commands.test_matrix` does the same inside of one process, cell by cell.)
"""

import sqlite3

import pytest
import trio

from tests.commands.matrix import ALL, ROLES, TABLE
from tests.e2e.guests import PASSWORD, Guest, serving

pytestmark = pytest.mark.long

DENIED = {"forbidden", "not_found", "unauthorized"}
PLACES = {"own": "garden", "other": "orchard", "private": "den", "absent": "nix"}


async def furnish(server):
    guests = {"root": await Guest.connect(server)}
    await guests["root"].hello()
    owners = next(line for line in server.lines if "owner" in line).rpartition("/")[2]
    guests["root"].opened = await guests["root"].ask("register", username="root", password=PASSWORD, invite=owners)
    for name in (*ROLES.values(), "stranger", "victim", "lone", "guest", "outcast", "exiled"):
        guests[name] = await Guest.register(server, name)
    steps = [("root", None, "set-user-perm admin admin")]
    steps += [(owner, None, f"create-channel {line}") for owner, line in (("owner", "garden"), ("stranger", "orchard"))]
    steps += [("stranger", None, 'create-channel den "open sesame"'), ("victim", None, 'join-channel den "open sesame"')]
    steps += [(name, None, "join-channel garden") for name in ("muted", "member", "moderator", "admin", "victim")]
    steps += [("victim", None, "join-channel orchard"), ("owner", "garden", "set-user-perm moderator moderator")]
    steps += [("owner", "garden", "mute muted"), ("owner", "garden", "report lone rude")]
    for who, channel, text in steps:
        answer = await guests[who].ask("command", text=text, **({"channel": channel} if channel else {}))
        assert answer["type"] == "result", (who, text, answer)
    return guests


def cells():
    """(who, the column, the line, in which channel or None), where it is denied."""
    for name, row in TABLE.items():
        for column, place in PLACES.items():
            allowed = {"own": row.own, "other": row.other}.get(column, "")
            for letter in (each for each in ALL if each not in allowed):
                yield ROLES[letter], column, row.line.format(place=place, report=1, question="q0"), place if row.inside else None, name


def dump(server):
    (file,) = [path for path in server.data_dir.iterdir() if path.is_file() and path.read_bytes()[:16] == b"SQLite format 3\0"]
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return list(database.iterdump())
    finally:
        database.close()


async def settled(guests):
    """Everybody has read what was sent to them; the ticker has come round, which writes what it gathered. *Returns* the count of frames."""
    await trio.sleep(2.5)  # ticks are the daemon's own, once a second; there is nothing to wait for where nothing is written
    for guest in guests.values():
        await guest.ping()
    dull = ("pong", "ping", "heads", "presence")
    return {name: [each for each in guest.received if each["type"] not in dull] for name, guest in guests.items()}


async def test_denied_cells_leave_no_trace(tmp_path):
    async with serving(tmp_path, {"limits.connections_per_address": "100", "limits.commands_burst": "100000"}) as server:
        guests = await furnish(server)
        heard_before = await settled(guests)
        before = dump(server)
        answers = {}
        for who, column, text, channel, name in cells():
            answer = await guests[who].ask("command", text=text, **({"channel": channel} if channel else {}))
            assert (answer["type"], answer.get("code") in DENIED) == ("error", True), (who, column, text, answer)
            answers[who, name, column] = answer["code"], answer["message"].replace(PLACES[column], "PLACE")
        heard = await settled(guests)
        assert dump(server) == before
        for name, guest in guests.items():
            new = heard[name][len(heard_before[name]) :]
            assert all(each["type"] == "error" and "id" in each for each in new), f"{name} heard of something: {new[-3:]}"
            await guest.aclose()
        for (who, name, column), answer in answers.items():
            if column == "private":
                assert answer == answers[who, name, "absent"]
