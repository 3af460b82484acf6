"""What those who keep order do, and what one does oneself, as the page tells: tombstones, folded people, prefixes, mutes, kicks, bans."""

import pytest

from tests.web.test_people import PASSWORD, log_in, row, say, sees

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("browser-people")]


@pytest.fixture
def court(guest, person):
    """A channel of somebody's who types lines, and somebody else in it at a page."""

    def open_court(name, warden_name, rowdy_name):
        warden = person(warden_name)
        warden.ask({"type": "command", "text": f"create-channel {name}"})
        page = guest(rowdy_name)
        say(page, f"//join-channel {name}")
        page.locator("header.bar h2", has_text=f"#{name}").wait_for()
        return page, warden

    return open_court


def test_the_warden_and_the_rowdy(court, visit):
    page, warden = court("court", "warden", "rowdy")

    def order(text):
        return warden.ask({"type": "command", "channel": "court", "text": text})["text"]

    say(page, "buy my watches")
    sees(page, "buy my watches")
    order("clear 1")
    page.locator(".rows", has_text="buy my watches").wait_for(state="detached")
    page.locator(".event", has_text="a message of rowdy was taken away").wait_for()
    order("mute rowdy 10m enough")
    page.locator(".toast", has_text="muted you in #court").wait_for()
    say(page, "but why")
    failed = page.locator(".failed", has_text="you are muted in #court")
    failed.wait_for()
    failed.locator("button", has_text="Drop it").click()
    failed.wait_for(state="detached")
    order("unmute rowdy")
    order("set-prefix !")
    say(page, "//is no command here")
    sees(page, "//is no command here")
    say(page, "!topic")
    page.locator(".note", has_text="!topic").wait_for()
    order("slow-mode 30")
    say(page, "one")
    say(page, "two")
    page.locator(".countdown", has_text="sent in").wait_for()
    order("kick rowdy that will do")
    page.locator(".toast", has_text="You are no longer in #court").filter(has_text="kicked").filter(has_text="that will do").wait_for()
    page.locator("header.bar h2", has_text="#lobby").wait_for()


def test_whom_one_ignores_is_folded_in_every_session(court, visit):
    page, preacher = court("square", "preacher", "passer-by")
    other = visit()
    log_in(other, "passer-by")
    row(other, "square").click()
    say(page, "//ignore preacher")
    page.locator(".note", has_text="preacher").wait_for()
    preacher.say("listen to me", channel="square")
    preacher.say("listen, I say", channel="square")
    for each in (page, other):
        each.locator(".event", has_text="2 messages by preacher, whom you ignore").wait_for()
        assert each.locator(".message", has_text="listen").count() == 0
    page.locator(".unfold").click()
    sees(page, "listen, I say")
    say(page, "//unignore preacher")
    sees(other, "listen, I say")


def test_who_is_banned_is_told_and_led_out(guest, server, visit):
    owner, page = guest("captain", invite=server.owner_invite), guest("pirate")
    say(owner, "//ban pirate 1h boarding others")
    page.locator(".toast", has_text="banned").first.wait_for()
    page.wait_for_selector("#username")
    page.fill("#username", "pirate")
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.locator(".problem", has_text="boarding others").wait_for()
