"""Sanctions in a real Chromium: what who is muted, put out and banned reads, and what the others see."""

import re

import pytest

from tests.web.test_browser import say, sees

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("browser")]


def test_who_is_muted_put_out_and_banned_reads_why(guest, server, person):
    owner = person("warden", invite=server.owner_invite)

    def command(text):
        return owner.ask({"type": "command", "channel": "lobby", "text": text})

    page, witness = guest("rude"), guest("witness")
    command("mute rude 1h caps lock")
    page.get_by_text(re.compile(r"warden muted you in #lobby \(caps lock\) for 1 h more")).wait_for()
    say(page, "HELLO")
    page.get_by_text(re.compile(r"you are muted in #lobby by warden \(caps lock\).*ask warden")).first.wait_for()
    assert "HELLO" in page.locator(".message").last.inner_text(), "the text is not lost"
    command("unmute rude")
    command("channel-ban rude 2h spam")
    page.get_by_text(re.compile("You are no longer in #lobby: banned by warden until .* UTC: spam")).wait_for()
    witness.get_by_text(re.compile(r"rude was banned by warden until .*: spam")).wait_for()
    command("channel-unban rude")
    page.get_by_text("you may join #lobby again").wait_for()
    command("ban rude 3h enough")
    page.locator("input[type=password]").wait_for()
    page.get_by_label(re.compile("name", re.IGNORECASE)).first.fill("rude")
    page.locator("input[type=password]").fill("correct horse")
    page.locator("input[type=password]").press("Enter")
    refusal = re.compile(r"This account is banned .* by warden \(enough\) for (3 h|2 h 59 min) more, until .*; ask warden")
    page.get_by_text(refusal).wait_for()
    command("unban rude")
    say(witness, "all quiet")
    sees(witness, "all quiet")
