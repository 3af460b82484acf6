"""People at browsers and at terminals, who talk with each other and have several sessions."""

import re
import signal

import pytest

from tests.web.conftest import PASSWORD

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("browser-people")]

TEXTS = ".rows .message:not(.waiting) .text"


def say(page, text):
    page.fill("#composer", text)
    page.press("#composer", "Escape")  # no completion in the way
    page.press("#composer", "Enter")


def sees(page, text):
    page.locator(TEXTS, has_text=text).first.wait_for()


def row(page, name):
    return page.locator(".sidebar .conversation", has_text=name)


def until(page, expression):
    """Wait for something outside the DOM."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(25)
    raise AssertionError(expression)


def log_in(page, name):
    page.fill("#username", name)
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("#composer", state="visible")


def test_browsers_and_a_terminal_through_a_reload_and_a_killed_server(guest, terminal, person, server):
    ann, bob = guest("ann", quiet=False), guest("bob", quiet=False)
    tom = terminal("tom", new=True)
    tom.sees("you are tom")
    say(ann, "hello from a browser")
    tom.sees("ann +hello from a browser")
    tom.types("hello from a terminal")
    for page in (ann, bob):
        sees(page, "hello from a terminal")
    tom.types("/msg @ann psst")
    row(ann, "tom").locator(".badge", has_text="1").wait_for()
    row(ann, "tom").click()
    sees(ann, "psst")
    say(ann, "what is it?")
    tom.sees("what is it")
    bob.reload()
    sees(bob, "hello from a terminal")
    row(ann, "lobby").click()
    server.end(signal.SIGKILL)
    say(ann, "ann while it was down")
    tom.types("tom while it was down")
    ann.locator(".message.waiting").wait_for()
    server.start()
    for page in (ann, bob):
        sees(page, "tom while it was down")
        sees(page, "ann while it was down")
    tom.sees("ann while it was down")
    said = [record["text"] for record in person("witness").history("#lobby") if record["type"] == "message"]
    assert sorted(said) == sorted(["hello from a browser", "hello from a terminal", "ann while it was down", "tom while it was down"])
    for page in (ann, bob):
        assert page.locator(TEXTS).all_inner_texts() == said


def press(page, target):
    box = target.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()


def test_a_click_is_not_lost_to_what_changes_while_the_button_is_down(guest, person, server):
    page, other = guest("clicker", quiet=False), person("friend")
    other.say("hello", to="clicker")
    row(page, "friend").locator(".badge", has_text="1").wait_for()
    press(page, row(page, "friend").locator(".label"))
    other.say("again", to="clicker")
    row(page, "friend").locator(".badge", has_text="2").wait_for()
    page.mouse.up()
    page.locator("header.bar h2", has_text="friend").wait_for()
    say(page, "//create-channel clicks")
    row(page, "clicks").click()
    other.ask({"type": "join", "channel": "clicks"})  # a channel of two: neither's place in the list changes
    press(page, page.locator(".members button.person:not(.away)", has_text="friend").locator(".name"))
    other.ask({"type": "logout"})
    page.locator(".members .away", has_text="friend").wait_for()
    page.mouse.up()
    page.locator("header.bar h2", has_text="friend").wait_for()
    press(page, page.locator("[aria-label='Settings and sessions']"))
    server.end(signal.SIGKILL)
    page.locator(".own .who", has_text="offline").wait_for()
    server.start()
    page.locator(".own .who", has_text="online").wait_for()
    page.mouse.up()
    page.locator("dialog[open] h2", has_text="Settings").wait_for()


def test_the_sessions_of_one_person_share_what_is_read(guest, visit, terminal, person):
    page, line = guest("reader"), person("newsman")
    line.ask({"type": "command", "text": "create-channel news"})
    say(page, "//join-channel news")
    page.locator("header.bar h2", has_text="#news").wait_for()
    row(page, "lobby").click()
    tty = terminal("reader")
    tty.sees("you are reader")
    tty.types("/switch #lobby")
    other = visit()
    log_in(other, "reader")
    row(other, "lobby").click()
    line.say_all(["one", "two", "three"], channel="news")
    for each in (page, other):
        each.locator("[aria-label='news, 3 unread']").wait_for()
    tty.shows("#news 3")
    row(other, "news").click()
    page.locator("[aria-label='news']").wait_for()
    assert row(page, "news").locator(".pip").count() == 0
    tty.shows("reader +[^#]*$")
    row(other, "lobby").click()
    line.say_all(["four", "five"], channel="news")
    page.locator("[aria-label='news, 2 unread']").wait_for()
    tty.types("/switch #news")
    tty.sees("five")
    tty.types("I have seen it")
    page.locator("[aria-label='news']").wait_for()
    line.say_all(["six"], channel="news")
    page.locator("[aria-label='news, 1 unread']").wait_for()
    late = visit()
    log_in(late, "reader")
    late.locator("[aria-label='news, 1 unread']").wait_for()


def test_any_session_is_ended_from_the_page_and_from_the_terminal(guest, visit, terminal):
    page = guest("owner-of-many")
    tty = terminal("owner-of-many")
    tty.sees("you are owner-of-many")
    second = visit()
    log_in(second, "owner-of-many")
    page.locator("[aria-label='Settings and sessions']").click()
    listed = page.locator(".sessions li")
    listed.nth(2).wait_for()
    assert page.locator(".sessions .danger").count() == 2, "one's own is logged out otherwise"
    page.locator(".sessions li", has_text=re.compile(r"^chat \d")).locator(".danger").click()
    page.locator(".sessions .hint", has_text="has ended").wait_for()
    tty.sees("session ended")
    page.keyboard.press("Escape")
    tty.close()
    again = terminal("owner-of-many")
    again.sees("you are owner-of-many")
    again.types("/sessions")
    lines = [again.sees(r"\d  (chat[^\n]*) from 127.0.0.1[^\n]*(this one|online)") for _ in range(3)]
    webs = [n for n, found in enumerate(lines, 1) if "web" in found[1]]
    assert len(webs) == 2
    for number in reversed(webs):
        again.types(f"/sessions end {number}")
        again.sees("That session has ended")
    for each in (page, second):
        each.locator(".problem", has_text="Your session has ended").wait_for()
    again.types("still here")
    again.sees("owner-of +still here|still here")


def test_questions_of_commands_are_answered_in_forms(guest, terminal):
    page, other = guest("hungry"), guest("asked")
    say(page, "//order")
    form = page.locator(".question", has_text="What shall it be?")
    form.wait_for()
    assert re.search(r"\d+ s left", form.inner_text())
    form.locator("button", has_text="cake").click()
    form.wait_for(state="detached")
    form = page.locator(".question", has_text="For how many?")
    form.locator("input").fill("a few")
    form.locator("input").press("Enter")
    form.locator(".problem:not(:empty)").wait_for()
    form.locator("input").fill("7")
    page.reload()  # it is asked again
    form = page.locator(".question", has_text="For how many?")
    form.locator("input").fill("7")
    form.locator("input").press("Enter")
    form.wait_for(state="detached")
    page.locator(".note", has_text="cake for 7").wait_for()
    say(page, "//poke asked")
    form = other.locator(".question", has_text="Are you there?")
    form.locator("input").fill("yes <b>I am</b>")
    form.locator("input").press("Enter")
    page.locator(".note", has_text="asked says: yes <b>I am</b>").wait_for()
    say(page, "//poke asked 1")
    form.wait_for()
    form.wait_for(state="detached")


SPY = """(() => {
  const Real = window.Notification;
  window.told = [];
  window.Notification = class extends Real {
    constructor(title, options) { super(title, options); window.told.push({title, body: options.body}); }
  };
})()"""


def test_mentions_and_private_messages_are_notified(guest, person, server):
    page, line = guest("watcher"), person("caller")
    page.context.grant_permissions(["notifications"], origin=server.url)
    page.context.add_init_script(SPY)
    page.reload()
    page.wait_for_selector("#composer", state="visible")
    page.locator("[aria-label='Settings and sessions']").click()
    page.locator("label.check", has_text="Tell me").click()
    page.keyboard.press("Escape")
    line.ask({"type": "command", "text": "create-channel alarms"})
    say(page, "//join-channel alarms")
    page.locator("header.bar h2", has_text="#alarms").wait_for()
    row(page, "lobby").click()
    line.say("nothing for anybody", channel="alarms")
    line.say("here, where one looks: @watcher")
    line.say("fire, @watcher <b>run</b>", channel="alarms")
    line.say("and in private", to="watcher")
    until(page, "window.told.length >= 2")
    assert page.evaluate("window.told") == [
        {"title": "caller in #alarms", "body": "fire, @watcher <b>run</b>"},
        {"title": "caller", "body": "and in private"},
    ]
    until(page, "document.title.startsWith('(2) ')")
    assert page.get_attribute("link[rel=icon]", "href") == "icon-unread.svg"
    row(page, "alarms").click()
    row(page, "caller").click()
    until(page, "!document.title.startsWith('(')")
    assert page.get_attribute("link[rel=icon]", "href") == "icon.svg"


CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((value, n) => value / (n === 3 ? 255 : 1));
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, n) => value * a + below[n] * (1 - a));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((value) => value / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.unshift(rgba(getComputedStyle(at).backgroundColor));
    return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility({visibilityProperty: true})) continue;
    if (node.closest('.waiting, :disabled, .unseen')) continue;
    const below = ground(node);
    const [a, b] = [light(over(rgba(getComputedStyle(node).color), below)), light(below)].sort((x, y) => y - x);
    const name = `${node.className || node.tagName} ${walker.currentNode.data.slice(0, 30)}`;
    found.push([Math.round(((a + 0.05) / (b + 0.05)) * 100) / 100, name]);
  }
  return found;
}"""
COLORS = ["red", "green", "teal", "olive", "magenta", "gray", "royalblue", "crimson", "chocolate", "#808000", "#ff1493", "#1e90ff"]


def test_everything_that_is_read_stands_out_in_light_and_in_dark(guest, person):
    """WCAG 2.2 AA: 4.5:1 for all text that is on the page, of people with all sorts of colours too."""
    page, line = guest("looker"), person("painter")
    line.ask({"type": "command", "text": "create-channel paint"})
    say(page, "//join-channel paint")
    page.locator("header.bar h2", has_text="#paint").wait_for()
    for number, color in enumerate(COLORS):
        other = person(f"hue{number}")
        other.ask({"type": "command", "text": f"color {color}"})
        other.ask({"type": "join", "channel": "paint"})
        other.say("**bold** `code` https://a.example/ @looker\n> quote", channel="paint")
        person(f"plain{number}").ask({"type": "join", "channel": "paint"})
    line.ask({"type": "command", "channel": "paint", "text": "topic all sorts"})
    say(page, "//nonsense")
    say(page, "//order")
    page.locator(".question").wait_for()
    page.locator(".members .name", has_text=f"plain{len(COLORS) - 1}").wait_for()
    page.reload()  # the colours of all are known now
    page.locator(".members .name", has_text=f"plain{len(COLORS) - 1}").wait_for()
    page.locator(".question").wait_for()
    page.locator("#composer").press_sequentially("//to")
    page.locator(".option").first.wait_for()
    seen = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_timeout(200)  # colours fade over
        seen += [(scheme, *each) for each in page.evaluate(CONTRAST)]
        page.locator("[aria-label='Settings and sessions']").click()
        page.locator(".sessions .current").wait_for()
        seen += [(scheme, *each) for each in page.evaluate(CONTRAST)]
        page.keyboard.press("Escape")
        page.locator("#composer").click()
    assert len(seen) > 300
    dim = sorted({each for each in map(tuple, seen) if each[1] < 4.5}, key=lambda each: each[1])
    assert not dim, "\n".join(map(str, dim))


def test_who_wants_less_motion_gets_none(visit, server):
    page = visit(f"#invite={server.invite}", reduced_motion="reduce")
    assert page.evaluate("[...document.querySelectorAll('*')].every((n) => /^(0s|1e-05s)$/.test(getComputedStyle(n).transitionDuration))")
