"""Questions in a real Chromium: how much room they take, and what one is told of how they end.

The frames of the server's half are put in on their way, so that there is no command to wait for; what is answered stays here."""

import json
import re

import pytest

from tests.web.conftest import PASSWORD

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("browser")]

PHONE = {"width": 360, "height": 640}
CHOICES = ["Margherita", "Funghi", "Quattro stagioni with everything on it", "Diavola"]


class Asker:
    def __init__(self, page):
        self.page, self.socket, self.open, self.answers = page, None, [], []
        page.route_web_socket(re.compile("/ws$"), self.between)

    def between(self, socket):
        self.socket = socket
        upstream = socket.connect_to_server()

        def up(text):
            frame = json.loads(text)
            if frame["type"] == "answer":
                self.answers.append(frame)
            else:
                upstream.send(text)

        def down(text):
            socket.send(text)
            if json.loads(text)["type"] == "resumed":
                for frame in self.open:
                    self.say(frame)

        socket.on_message(up)
        upstream.on_message(down)

    def say(self, frame):
        self.socket.send(json.dumps(frame))

    def ask(self, question, text, **more):
        self.open.append({"type": "question", "question": question, "from": "bob", "text": text, "expires_in": 600, **more})
        self.say(self.open[-1])

    def close(self, question, reason):
        self.open = [each for each in self.open if each["question"] != question]
        self.say({"type": "question_closed", "question": question, "reason": reason})


@pytest.fixture
def asked(visit, server):
    def enter(name, **how):
        page = visit(**how)
        asker = Asker(page)
        page.goto(f"{server.url}?#invite={server.invite}")
        page.fill("#username", name)
        page.fill("#password", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_selector("#composer", state="visible")
        return page, asker

    return enter


@pytest.mark.parametrize(("name", "size"), [("small", PHONE), ("large", {"width": 1280, "height": 800})])
def test_questions_take_a_bounded_room_and_are_folded_into_a_line(asked, name, size):
    page, asker = asked(name, viewport=size)
    forms, line = page.locator(".question"), page.locator(".questions .folded")
    asker.ask("q1", "Pizza today, or something with a long name?", choices=CHOICES, conv="#lobby")
    forms.nth(0).wait_for()
    assert line.is_hidden()
    asker.ask("q2", "Who drives?\n" * 40)
    line.wait_for()
    assert forms.count() == 1, "the newest is open, and the one before it folded"
    assert "Who drives?" in forms.inner_text()
    assert line.inner_text() == "A question: Pizza today, or something with a long name?"
    assert line.get_attribute("aria-expanded") == "false"
    assert page.locator(".questions").bounding_box()["height"] <= 0.4 * size["height"] + 1
    line.focus()
    page.keyboard.press("Enter")
    forms.nth(1).wait_for()
    assert page.locator(".questions").bounding_box()["height"] <= 0.4 * size["height"] + 1
    assert line.is_hidden()
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true", "the focus goes on to what can be folded"
    page.keyboard.press("Enter")
    forms.nth(1).wait_for(state="detached")
    forms.locator("[aria-expanded=true]").press("Enter")
    forms.wait_for(state="detached")
    assert line.inner_text().startswith("2 questions: Who drives?")
    assert page.locator(".questions").bounding_box()["height"] < 60
    assert page.evaluate("document.activeElement.className") == "folded"


def test_what_is_folded_stays_so_over_a_reload_and_in_another_conversation(asked, person):
    page, asker = asked("folder", viewport=PHONE)
    line = page.locator(".questions .folded")
    asker.ask("q1", "Pizza today?", choices=CHOICES)
    page.locator(".question [aria-expanded=true]").click()
    line.wait_for()
    person("other").say("psst", to="folder")
    page.reload()
    line.wait_for()
    assert page.locator(".question").count() == 0
    page.keyboard.press("Alt+ArrowDown")
    page.locator("header.bar h2", has_text="other").wait_for()
    assert page.locator(".question").count() == 0
    asker.ask("q2", "Who drives?")
    page.locator(".question", has_text="Who drives?").wait_for()
    page.reload()
    page.locator(".question", has_text="Who drives?").wait_for()
    assert line.inner_text() == "A question: Pizza today?"


def test_an_answer_is_seen_to_count_until_the_question_is_over(asked):
    page, asker = asked("voter")
    asker.ask("q1", "Pizza today?", choices=CHOICES)
    form = page.locator(".question")
    form.wait_for()
    looks = "nodes => new Set(nodes.map(node => getComputedStyle(node).backgroundColor + getComputedStyle(node).fontWeight)).size"
    assert form.locator(".buttons button").evaluate_all(looks) == 1, "no choice looks chosen before"
    form.locator("button", has_text="Funghi").click()
    assert asker.answers[-1]["text"] == "Funghi"
    asker.close("q1", "answered")
    asker.say({"type": "ok", "id": asker.answers[-1]["id"]})
    line = page.locator(".questions .outcome")
    line.wait_for()
    assert line.inner_text().split("\n") == ["bob asked: Pizza today?", "answered: Funghi"]
    assert form.count() == 0
    asker.close("q1", "timeout")
    line.wait_for(state="detached")


def test_an_answer_that_came_too_late_does_not_look_as_if_it_counted(asked):
    page, asker = asked("slow")
    asker.ask("q1", "What is the capital of France?")
    page.locator(".question input").fill("Paris")
    page.keyboard.press("Enter")
    asker.close("q1", "answered")
    asker.say({"type": "error", "id": asker.answers[-1]["id"], "code": "not_found", "message": "no such question"})
    page.locator(".questions .outcome", has_text="it was answered").wait_for()


ENDS = [("cancelled", "it was taken back"), ("timeout", "its time is up"), ("answered", "it was answered"), ("constructor", "it is over")]


@pytest.mark.parametrize(("reason", "said"), ENDS)
def test_a_question_that_one_had_not_answered_says_how_it_ended(asked, reason, said):
    page, asker = asked(f"late-{reason}", viewport=PHONE)
    asker.ask("q1", "Pizza today, or something with a name that goes on and on?", choices=CHOICES)
    page.locator(".question").wait_for()
    asker.close("q1", reason)
    line = page.locator(".questions .outcome", has_text="bob asked: Pizza today")
    line.get_by_text(said).wait_for()
    assert page.evaluate("document.querySelector('.questions').scrollWidth") <= PHONE["width"], "nothing is cut at the sides"
    line.locator("button").click()
    line.wait_for(state="detached")
