"""The way in: what is asked, what is refused before it is asked, and what who is new is told."""

import pytest

from chat.client import entry as module
from chat.client.client import Client
from chat.client.entry import Entry, Refused, enter
from chat.client.opening import open_client
from chat.client.reconnect import Backoff
from chat.client.servers import ClientStore
from chat.client.target import parse_target
from tests.client.fake import fake_server


@pytest.fixture
def person(monkeypatch):
    """Answers what is asked, in order; ``asked`` and ``told`` are what was said to them."""

    class Person:
        names, passwords, asked, told = [], [], [], []

    person = Person()

    def ask(question, answers):
        person.asked.append(question)
        return answers.pop(0)

    monkeypatch.delenv(module.PASSWORD, raising=False)
    monkeypatch.setattr(module, "_ask", lambda question: ask(question, person.names))
    monkeypatch.setattr(module, "ask_secret", lambda question: ask(question, person.passwords))
    monkeypatch.setattr(module, "_say", person.told.append)
    monkeypatch.setattr(module, "interactive", lambda: True)
    return person


async def come_in(server, tmp_path, invite="", account=None) -> Client:
    store = ClientStore(tmp_path / "state")
    target = parse_target(server.target + invite)
    async with open_client(target, store=store, backoff=Backoff(first=0.001, most=0.02)) as client:
        await enter(client, Entry(store=store, target=target, account=account, known=False, ask=True))
    return client


async def test_a_bad_name_is_refused_before_a_password_is_asked_for(tmp_path, person):
    person.names, person.passwords = ["al ice", "alice"], ["a password", "a password"]
    async with fake_server() as server:
        client = await come_in(server, tmp_path, "/an-invite", account="-x")
    assert client.user == "alice"
    assert [question for question in person.asked if question == "Name: "] == ["Name: "] * 2
    assert len([question for question in person.asked if "assword" in question or "again" in question]) == 2
    assert any("spaces" in text for text in person.told)


async def test_who_is_new_and_has_no_invite_is_told_what_is_missing(tmp_path, person):
    person.names, person.passwords = ["carol"], ["one", "two", "three"]
    async with fake_server() as server:
        with pytest.raises(Refused, match=r"wrong name or password.*new here.*HOST:PORT#FINGERPRINT/INVITE"):
            await come_in(server, tmp_path)
    assert all("new here" in text for text in person.told)
    assert len(person.told) == 2
