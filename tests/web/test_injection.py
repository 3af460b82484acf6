"""A server whose every word is an attack: 200 payloads in each field that the page shows. No script runs, no element is made of data, and
nothing is asked of anybody else (the fixture `visit` watches requests, dialogs and the console)."""

import json
import re

import pytest

from tests.web.conftest import PASSWORD
from tests.web.payloads import PAYLOADS

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("browser-injection")]

EPOCH = "epoch0001"
TAGS = {
    *("HTML", "HEAD", "BODY", "META", "TITLE", "LINK", "SCRIPT", "NOSCRIPT", "DIV", "SPAN", "P", "A", "STRONG", "EM", "B", "CODE", "PRE"),
    *("BLOCKQUOTE", "ARTICLE", "ASIDE", "SECTION", "MAIN", "NAV", "HEADER", "FORM", "LABEL", "INPUT", "TEXTAREA", "BUTTON", "UL", "LI"),
    *("H1", "H2", "H3", "TIME", "DIALOG", "DETAILS", "SUMMARY", "DATALIST", "OPTION", "svg", "path"),
}
FOUND = """() => {
  const found = {tags: [], handlers: [], links: [], styles: [], scripts: document.scripts.length, ran: window.__xss ?? null};
  for (const node of document.querySelectorAll('*')) {
    found.tags.push(node.tagName);
    for (const {name, value} of node.attributes) {
      if (name.startsWith('on') || ['srcdoc', 'formaction', 'xlink:href', 'ping', 'background'].includes(name)) found.handlers.push(name);
      if (name === 'style') for (const property of node.style) found.styles.push(`${property} ${node.style.getPropertyValue(property)}`);
      if (['href', 'src', 'action', 'data'].includes(name)) found.links.push(`${node.tagName} ${value} ${node.rel ?? ''}`);
    }
  }
  for (const key of ['tags', 'styles', 'handlers']) found[key] = [...new Set(found[key])];
  return found;
}"""


class Hostile:
    """Answers what the page asks, each text in the answer being ``payload``."""

    def __init__(self, page, payload):
        self.payload = payload
        self.seq = 0
        self.asked = set()
        page.route_web_socket(re.compile("/ws$"), self.serve)

    def serve(self, socket):
        self.socket = socket
        socket.on_message(lambda text: self.answer(json.loads(text)))

    def say(self, type_, **fields):
        self.socket.send(json.dumps({"type": type_, **fields}))

    def answer(self, request):
        p, id_ = self.payload, request.get("id")
        self.asked.add(request["type"])
        person = {"user": p, "role": p, "color": p, "online": True}
        command = {"name": p, "usage": p, "description": p, "aliases": [p], "arguments": [{"name": p, "kind": p, "required": True}]}
        match request["type"]:
            case "hello":
                self.say("welcome", protocol=1, server=p, name=p, limits={}, prefix="//", registration="invite", motd=p)
            case "login" | "register" if request["username"] == "refused":
                self.say("error", id=id_, code=p, message=p)
            case "login" | "register":
                channels = [{"channel": name, "topic": p, "role": p} for name in ("home", p)]
                self.say("session", id=id_, user="target", session="s", resume_token="t", heads=self.heads(), channels=channels)
            case "members":
                self.say("ok", id=id_, data=[person, {**person, "user": "target"}])
            case "commands":
                self.say("ok", id=id_, data=[command, {**command, "name": "go"}])
            case "sessions":
                session = {"session": p, "client": p, "address": p, "created": 1, "seen": 1, "online": False, "current": False}
                self.say("ok", id=id_, data=[session])
            case "history":
                self.say("history", id=id_, conv=request["conv"], epoch=EPOCH, messages=[], first_seq=0, last_seq=0, more=False)
            case "command" if "fail" in request["text"]:
                self.say("error", id=id_, code=p, message=p)
            case "command":
                self.say("result", id=id_, text=p, data=[{"channel": p, "topic": p}])
            case "send" | "logout" | "answer":
                self.say("error", id=id_, code="forbidden", message=p)
            case "ping":
                self.say("pong", id=id_)
            case _:
                self.say("ok", id=id_)

    def heads(self):
        return {conv: [EPOCH, 0] for conv in ("#home", f"#{self.payload}", f"@{self.payload}")}

    def tell_all(self):
        """Every notice and record there is."""
        p = self.payload
        records = [
            ("message", {"from": p, "text": p}),
            ("message", {"from": "mallory", "text": f"@target {p}"}),
            ("message", {"from": p, "text": p, "reply_to": 1}),
            ("topic", {"user": p, "text": p}),
            ("joined", {"user": p}),
            ("role", {"user": p, "role": p, "by": p}),
            ("left", {"user": p, "by": p, "reason": p}),
            ("banned", {"user": p, "by": p, "reason": p, "until": 10**12}),
            ("edited", {"target": 1, "text": p, "by": p}),
            ("deleted", {"target": 1, "by": p}),
            (p, {"user": p, "text": p}),
        ]
        for kind, fields in records:
            self.seq += 1
            self.say(kind, conv="#home", epoch=EPOCH, seq=self.seq, ts=1_700_000_000_000, **fields)
        self.say("presence", users={p: True})
        self.say("notice", text=p, level=p)
        self.say("error", code=p, message=p)
        self.say("question", question=f"q{p}", **{"from": p}, text=p, expires_in=60, conv="#home", choices=[p, p])
        self.say("question", question=f"r{p}", **{"from": p}, text=p, expires_in=60)


def inspect(page):
    page.evaluate("document.querySelector('.questions .folded:not([hidden])')?.click()")  # all questions are seen
    found = page.evaluate(FOUND)
    assert set(found["tags"]) <= TAGS
    assert found["scripts"] == 1
    assert found["ran"] is None
    assert found["handlers"] == []
    for style in found["styles"]:
        assert re.fullmatch(r"height \d+px|--hue \d+|--own #[0-9a-fA-F]{6}", style), style
    for link in found["links"]:
        tag, _, address = link.partition(" ")
        ours = tag in ("LINK", "SCRIPT") and re.match(r"(icon|css/|js/)", address)
        assert ours or (tag == "A" and re.match(r"https?://", address) and address.endswith(" noopener noreferrer")), link


def enter(page):
    page.fill("#username", "target")
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("#composer", state="visible")


def drain(page):
    """Until the page has drawn what it was told."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 0))))")


def test_a_hostile_server_makes_nothing_of_the_page(visit):
    assert len(PAYLOADS) >= 200
    page = visit("#invite=none")
    server = Hostile(page, PAYLOADS[0])
    page.reload()
    page.fill("#username", "refused")
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.locator(".problem:not(:empty)").wait_for()
    inspect(page)
    enter(page)
    page.locator(".sidebar .conversation", has_text="home").click()
    for n, payload in enumerate(PAYLOADS):
        server.payload = payload
        server.tell_all()
        if n % 5 == 0:  # a conversation of this name
            server.say("heads", heads={f"{'#@'[n % 2]}{payload}": [EPOCH, 0]})
        if n >= 20:
            for kind in "qr":
                server.say("question_closed", question=kind + PAYLOADS[n - 20], reason=payload)
        if n % 40 == 0:
            ask_for_everything(page)
        if n % 12 == 11 or payload is PAYLOADS[-1]:  # all of them are still in the window that is in the DOM
            page.locator(f".rows [data-seq='{server.seq}']").wait_for(state="attached")
            inspect(page)
            assert page.locator(f".rows [data-seq='{server.seq - 11 * (n % 12)}']").count() == 1
    assert page.locator(".question").count() > 2
    assert server.asked >= {"hello", "login", "members", "commands", "sessions", "command", "answer", "send"}


def ask_for_everything(page):
    """Commands that succeed and fail, completion, a dialog with the sessions, the list of channels, an answer, a text that is refused."""
    field = page.locator("#composer")
    for text in ("//go", "//fail", "plain"):
        field.fill(text)
        field.press("Escape")
        field.press("Enter")
    field.fill("//")
    page.locator(".completion").wait_for()
    drain(page)
    inspect(page)
    field.press("Escape")
    field.fill("@")
    drain(page)
    inspect(page)
    field.fill("")
    page.locator(".question .buttons button:not(.primary)").first.click()
    for label in ("Settings and sessions", "Join or create a channel", "Write to somebody"):
        page.locator(f"[aria-label='{label}']").click()
        page.locator("dialog[open]").wait_for()
        drain(page)
        if label.startswith("Settings"):
            page.locator(".sessions button").click()
        inspect(page)
        page.keyboard.press("Escape")


def test_a_payload_in_a_private_conversation_and_in_every_header(visit):
    page = visit("#invite=none")
    # Before anything of the page runs, or it may save its session once more.
    page.add_init_script("try { sessionStorage.clear(), localStorage.clear() } catch {}")
    for payload in PAYLOADS[::50]:
        server = Hostile(page, payload)
        page.goto("about:blank")
        page.evaluate("0")
        page.goto(visit.url + "#invite=none")
        page.reload()
        enter(page)
        rows = page.locator(".sidebar .conversation")
        for n in range(rows.count()):
            rows.nth(n).click()
            drain(page)
            inspect(page)
        server.tell_all()
        drain(page)
        inspect(page)
