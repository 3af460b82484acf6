"""Rules in a real Chromium: what waits counts down in the line of the composer and is not lost, and what the ignored say is folded."""

import re

import pytest

from tests.web.test_browser import say, sees, texts

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("browser")]


def run(page, text):
    """A command, and its answer on the page."""
    before = page.locator(".note pre").count()
    say(page, text)
    page.locator(".note pre").nth(before).wait_for()
    return page.locator(".note pre").nth(before).inner_text()


@pytest.fixture(scope="module")
def owners():
    return []


def test_what_waits_counts_down_and_is_sent_by_itself(guest, server, person, owners):
    owners.append(person("chief", invite=server.owner_invite))
    owner = owners[0]
    owner.ask({"type": "command", "channel": "lobby", "text": "slow-mode 4"})
    page = guest("hasty")
    say(page, "the first")
    sees(page, "the first")
    say(page, "the second")
    line = page.locator(".countdown")
    line.wait_for()
    assert re.fullmatch(r"#lobby is in slow mode \(a message every 4 s\).*: your message is sent in [1-4] s", line.inner_text())
    assert "the second" in page.locator(".message.waiting").inner_text(), "it stands there while it waits"
    page.fill("#composer", "what is typed meanwhile stays")
    first = line.inner_text()
    page.wait_for_function("before => document.querySelector('.countdown').textContent !== before", arg=first)
    sees(page, "the second")
    line.wait_for(state="hidden")
    assert page.input_value("#composer") == "what is typed meanwhile stays"
    owner.ask({"type": "command", "channel": "lobby", "text": "slow-mode 0"})


def test_what_the_ignored_say_is_folded_and_can_be_opened(guest, person):
    page, other = guest("calm"), person("noisy")
    other.say("before")
    sees(page, "before")
    assert run(page, "//ignore noisy") == "you ignore noisy now; unignore noisy ends it"
    page.locator(".event", has_text="noisy, whom you ignore").wait_for()
    assert "before" not in texts(page), "what is there already too"
    other.say("once more")
    other.say("@calm and again")
    page.locator(".event", has_text="2 messages by noisy").wait_for()
    assert "once more" not in texts(page)
    assert not page.title().startswith("("), "a mention by somebody ignored is none"
    page.locator(".event", has_text="2 messages by noisy").get_by_role("button", name="Show").click()
    sees(page, "once more")
    page.reload()
    page.locator(".event", has_text="whom you ignore").first.wait_for()
    assert "once more" not in texts(page), "it holds over a reload"
    run(page, "//unignore noisy")
    sees(page, "once more")
