"""The page in a real Chromium, against a real server."""

import re
import signal

import pytest

from tests.web.conftest import PASSWORD
from tests.web.payloads import PAYLOADS

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("browser")]

TEXTS = ".rows .message:not(.waiting) .text"


def say(page, text):
    page.fill("#composer", text)
    page.press("#composer", "Escape")  # no completion in the way
    page.press("#composer", "Enter")


def texts(page):
    return page.locator(TEXTS).all_inner_texts()


def sees(page, text):
    page.locator(TEXTS, has_text=text).first.wait_for()


def test_an_invited_guest_is_talking_after_name_and_password(visit, server, person):
    line = person("liesel")
    page = visit(f"#invite={server.invite}")
    assert page.locator("h1").inner_text() == "You are invited to Harbour"
    assert server.invite not in page.url
    assert page.evaluate("document.activeElement.id") == "username"
    page.keyboard.type("Guest")  # 1
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)  # 2
    page.keyboard.press("Enter")  # 3
    page.locator("#composer:focus").wait_for()
    page.keyboard.type("here I am")
    page.keyboard.press("Enter")
    sees(page, "here I am")
    assert any(each.get("text") == "here I am" and each["from"] == "Guest" for each in line.history("#lobby"))
    line.say("welcome, @Guest")
    sees(page, "welcome, @Guest")
    assert page.locator(".mention.me").count() == 1


def test_refusals_are_said_in_the_form(visit, server):
    page = visit(f"#invite={server.invite}")
    page.fill("#username", "x" * 33)
    page.fill("#password", "short")
    page.keyboard.press("Enter")
    page.locator(".problem", has_text="at least 8").wait_for()
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.locator(".problem", has_text="32").wait_for()


def test_two_browsers_private_conversation_badges_and_title(guest):
    ann, bob = guest("ann"), guest("bob")
    say(ann, "**good** morning")
    sees(bob, "good morning")
    assert bob.locator(".text strong", has_text="good").count() == 1
    ann.locator(".members button", has_text="bob").click()
    ann.locator("header.bar h2", has_text="bob").wait_for()
    say(ann, "only for you")
    bob.locator(".sidebar .conversation", has_text="ann").locator(".badge", has_text="1").wait_for()
    assert bob.title().startswith("(1)")
    bob.locator(".sidebar .conversation", has_text="ann").click()
    sees(bob, "only for you")
    bob.locator(".sidebar .badge").wait_for(state="detached")
    assert bob.title() == "ann · Harbour"


def test_a_reload_goes_on_with_the_session(guest):
    page = guest("reloader")
    say(page, "before")
    sees(page, "before")
    page.reload()
    sees(page, "before")
    say(page, "after")
    sees(page, "after")
    assert texts(page).count("before") == 1


def test_a_killed_server_loses_and_doubles_nothing(guest, server, person):
    page = guest("steady", quiet=False)
    server.end(signal.SIGKILL)
    for n in range(3):
        say(page, f"while it was down {n}")
    page.locator(".message.waiting").nth(2).wait_for()
    page.locator(".status", has_text="No connection").wait_for()
    server.start()
    page.reload()  # what waits survives it
    sees(page, "while it was down 2")
    page.locator(".message.waiting").first.wait_for(state="detached")
    ours = [each["text"] for each in person("witness").history("#lobby") if each.get("from") == "steady"]
    assert ours == [f"while it was down {n}" for n in range(3)]
    assert [text for text in texts(page) if "while it was" in text] == ours


def test_a_lost_connection_is_made_anew_and_the_gap_is_filled(guest, server, person):
    page, line = guest("sleeper", quiet=False), person("talker")
    line.say("one")
    sees(page, "one")
    page.context.set_offline(True)
    server.end(signal.SIGKILL)
    server.start()
    back = person("talker2")
    back.say_all([f"missed {n}" for n in range(20)])
    page.context.set_offline(False)
    sees(page, "missed 19")
    assert [text for text in texts(page) if text.startswith("missed")] == [f"missed {n}" for n in range(20)]


def test_commands_complete_and_answer_in_place(guest, server):
    page = guest("captain", invite=server.owner_invite)
    page.locator("#composer").press_sequentially("//top")
    page.locator(".option", has_text="topic").wait_for()
    assert page.get_attribute("#composer", "aria-expanded") == "true"
    page.keyboard.press("Tab")
    assert page.input_value("#composer") == "//topic "
    page.locator(".usage .argument.now", has_text="text").wait_for()
    page.keyboard.type("all hands")
    page.keyboard.press("Enter")
    page.locator(".note", has_text="all hands").wait_for()
    page.locator("header.bar .topic", has_text="all hands").wait_for()
    say(page, "//nonsense")
    page.locator(".note.refused", has_text="no command").wait_for()
    say(page, "//create-channel cabin open-sesame")
    page.locator("header.bar h2", has_text="#cabin").wait_for()
    assert "open-sesame" not in page.content()
    page.locator("#composer").press("ArrowUp")
    assert "sesame" not in page.input_value("#composer")


def test_a_question_is_answered_in_its_form(visit, server):
    """No command asks yet, so the frame is put in on its way; the server answers what is its own."""
    page = visit()
    sent, sockets = [], []

    def between(socket):
        upstream = socket.connect_to_server()
        sockets.append(socket)
        socket.on_message(lambda text: (sent.append(text), '"answer"' in text or upstream.send(text)))
        upstream.on_message(socket.send)

    page.route_web_socket(re.compile("/ws$"), between)
    page.goto(f"{server.url}?#invite={server.invite}")
    page.fill("#username", "asked")
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("#composer", state="visible")
    question = '{"type":"question","question":"q1","from":"robot","text":"Really?","choices":["yes","no"],"expires_in":60}'
    sockets[-1].send(question)
    page.locator(".question", has_text="Really?").wait_for()
    assert "s left" in page.locator(".question").inner_text()
    page.locator(".question button", has_text="no").click()
    page.wait_for_timeout(50)
    assert '"question":"q1","text":"no"' in sent[-1]
    sockets[-1].send('{"type":"question_closed","question":"q1","reason":"answered"}')
    page.locator(".question").wait_for(state="detached")


OURS = {"DIV", "SPAN", "P", "A", "STRONG", "EM", "CODE", "PRE", "BLOCKQUOTE", "ARTICLE", "TIME", "BUTTON", "svg", "path", "B", "H2"}


def test_no_text_of_anybody_becomes_more_than_text(guest, person):
    assert len(PAYLOADS) >= 200
    page, line = guest("target"), person("mallory")
    line.ask({"type": "command", "text": "create-channel trap"})
    say(page, "//join-channel trap")
    page.locator("header.bar h2", has_text="#trap").wait_for()
    line.say_all([*PAYLOADS, "the end"], channel="trap")
    sees(page, "the end")
    found = set()
    for _ in range(12):  # through all of them, with the window that is in the DOM
        found |= set(page.evaluate("[...document.querySelectorAll('.rows *')].map((node) => node.tagName)"))
        assert page.evaluate(
            "[...document.querySelectorAll('.rows a')].every((a) => /^https?:$/.test(a.protocol) && a.rel === 'noopener noreferrer')"
        )
        page.evaluate("document.querySelector('.scroller').scrollBy(0, -3000)")
        page.wait_for_timeout(60)
    assert found <= OURS
    for payload in PAYLOADS[::9]:
        line.ask({"type": "command", "channel": "trap", "text": f"topic {payload.replace(chr(10), ' ')}"})
        page.wait_for_timeout(10)
    line.say("over", to="target")
    page.locator(".sidebar .badge").wait_for()
    assert set(page.evaluate("[...document.querySelectorAll('header.bar .topic *')].map((node) => node.tagName)")) <= OURS
    assert page.evaluate("window.__xss") is None
    assert page.evaluate("document.scripts.length") == 1


def test_five_thousand_messages_scroll_back_with_a_bounded_dom(guest, person):
    page, line = guest("reader"), person("writer")
    line.ask({"type": "command", "text": "create-channel long"})
    line.say_all([f"line {n}" for n in range(5000)], channel="long")
    say(page, "//join-channel long")
    page.locator("header.bar h2", has_text="#long").wait_for()
    sees(page, "line 4999")
    result = page.evaluate("""async () => {
      const scroller = document.querySelector('.scroller');
      const seen = new Set();
      let most = 0;
      let holes = 0;
      for (let n = 0; n < 4000 && !document.querySelector('.beginning'); n++) {
        const shown = [...document.querySelectorAll('.rows .message')].map((row) => Number(row.dataset.seq));
        shown.forEach((seq, k) => { seen.add(seq); if (k && seq !== shown[k - 1] + 1) holes += 1; });
        most = Math.max(most, document.querySelectorAll('.rows > *').length);
        scroller.scrollBy(0, -1500);
        await new Promise((resolve) => setTimeout(resolve, 12));
      }
      document.querySelectorAll('.rows .message').forEach((row) => seen.add(Number(row.dataset.seq)));
      return {seen: seen.size, most, holes, beginning: Boolean(document.querySelector('.beginning'))};
    }""")
    assert result["beginning"]
    assert result["holes"] == 0
    assert result["seen"] == 5000
    assert result["most"] <= 400
    page.locator(".jump").click()
    sees(page, "line 4999")


def test_on_a_phone_the_conversations_are_a_drawer(guest):
    page = guest("phone", viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert not page.locator(".sidebar").is_visible()
    page.locator("button[aria-label=Conversations]").tap()
    page.locator(".sidebar").wait_for(state="visible")
    page.locator(".sidebar .conversation", has_text="lobby").tap()
    page.locator(".sidebar").wait_for(state="hidden")
    say(page, "from the tram")
    sees(page, "from the tram")


def test_sessions_are_listed_and_ended(guest, visit):
    page = guest("settled")
    page.locator("[aria-label='Settings and sessions']").click()
    page.locator(".sessions .current", has_text="chat web").wait_for()
    page.locator(".choice", has_text="Dark").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("dialog button", has_text="Log out here").click()
    page.wait_for_selector("#username")
    assert page.evaluate("[sessionStorage.getItem('chat.session'), localStorage.getItem('chat.session')].every((kept) => kept === null)")
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("#composer", state="visible")


def test_a_session_kept_for_the_device_moves_between_tabs(guest, visit, server):
    page = visit(f"#invite={server.invite}")
    page.fill("#username", "twotabs")
    page.fill("#password", PASSWORD)
    page.check("#device")
    page.keyboard.press("Enter")
    page.wait_for_selector("#composer", state="visible")
    other = page.context.new_page()
    other.goto(server.url)
    other.wait_for_selector("#composer", state="visible")
    page.locator(".status", has_text="another tab").wait_for()
    say(other, "from the second tab")
    sees(other, "from the second tab")
    page.locator(".status button", has_text="Use it here").click()
    sees(page, "from the second tab")
    other.locator(".status", has_text="another tab").wait_for()
    assert texts(page).count("from the second tab") == 1


def test_what_came_meanwhile_is_counted_and_marked_after_a_reload(guest, person):
    page, line = guest("absent"), person("busybody")
    line.ask({"type": "command", "text": "create-channel news"})
    say(page, "//join-channel news")
    page.locator("header.bar h2", has_text="#news").wait_for()
    page.locator(".sidebar .conversation", has_text="lobby").click()
    line.say_all(["one", "two", "three @absent"], channel="news")
    page.locator(".sidebar .conversation", has_text="news").locator(".badge", has_text="1").wait_for()
    page.reload()
    news = page.locator(".sidebar .conversation", has_text="news")
    news.locator(".badge", has_text="1").wait_for()
    assert "3 unread" in news.get_attribute("aria-label")
    news.click()
    page.locator(".new-line").wait_for()
    assert page.locator(".new-line + .message .text").inner_text() == "one"
    news.locator(".badge").wait_for(state="detached")


def test_the_keyboard_is_enough(guest, person):
    page, line = guest("keys"), person("other-keys")
    line.say("to the keys", to="keys")
    page.locator(".sidebar .badge").wait_for()
    page.keyboard.press("Alt+ArrowDown")
    sees(page, "to the keys")
    page.locator("#composer:focus").wait_for()
    page.keyboard.type("an answer")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("of two lines")
    page.keyboard.press("Enter")
    sees(page, "of two lines")
    page.keyboard.press("ArrowUp")
    assert page.input_value("#composer") == "an answer\nof two lines"
    order = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        order.add(page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent"))
    assert {"Join or create a channel", "Write to somebody", "Settings and sessions"} <= order


def test_nobody_is_shown_as_away_of_whom_that_is_not_known(guest, person):
    page, line = guest("hermit"), person("pen-friend")
    say(page, "//create-channel cave")
    page.locator("header.bar h2", has_text="#cave").wait_for()
    line.say("long ago", to="hermit")
    friend = page.locator(".sidebar .conversation", has_text="pen-friend")
    friend.locator(".dot.on").wait_for()
    page.reload()  # now nobody has told yet
    friend.wait_for()
    page.locator(".members .person", has_text="hermit").wait_for()
    assert friend.locator(".dot:not(.on)").count() == 0
    line.say("just now", to="hermit")
    friend.locator(".dot.on").wait_for()


def test_who_is_in_a_channel_that_is_deleted_is_led_elsewhere(guest, person):
    page, line = guest("unruly"), person("warden")
    line.ask({"type": "command", "text": "create-channel court"})
    say(page, "//join-channel court")
    page.locator("header.bar h2", has_text="#court").wait_for()
    line.ask({"type": "command", "text": "delete-channel court"})
    page.locator("header.bar h2", has_text="#lobby").wait_for()
    assert page.locator(".sidebar .conversation", has_text="court").count() == 0


def test_over_tls_with_a_certificate_that_the_guest_accepted(visit, server):
    page = visit(ignore_https_errors=True)
    page.goto(f"https://127.0.0.1:{server.port}/?#invite={server.invite}")
    page.fill("#username", "private-eye")
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("#composer", state="visible")
    say(page, "over wss")
    sees(page, "over wss")
