"""How one gets in, in a real Chromium: a refusal for a while is said, loses nothing and is tried again; a password can be looked at."""

import json
import re

import pytest

from tests.web.conftest import PASSWORD
from tests.web.test_browser import say, sees

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("browser")]

FULL = "the server's disk is full"


@pytest.fixture
def refused(visit, server):
    """Somebody who is in, and the types of requests that are refused on their way, each with the rest of its error."""

    def enter(name):
        page, refusals, sent = visit(), {}, []

        def between(socket):
            upstream = socket.connect_to_server()

            def pass_on(text):
                frame = json.loads(text)
                sent.append(frame)
                if frame["type"] in refusals:
                    socket.send(json.dumps({"type": "error", "id": frame["id"], **refusals[frame["type"]]}))
                else:
                    upstream.send(text)

            socket.on_message(pass_on)
            upstream.on_message(socket.send)

        page.route_web_socket(re.compile("/ws$"), between)
        page.goto(f"{server.url}?#invite={server.invite}")
        page.fill("#username", name)
        page.fill("#password", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_selector("#composer", state="visible")
        return page, refusals, sent

    return enter


def test_a_full_disk_is_said_and_the_session_goes_on_by_itself(refused):
    page, refusals, _ = refused("fuller")
    refusals["send"] = {"code": "storage_full", "message": FULL, "retry_after": 60}
    say(page, "while it was full")
    page.locator(".countdown", has_text=FULL).wait_for()
    refusals["resume"] = {"code": "storage_full", "message": FULL}
    page.reload()
    status = page.locator(".status", has_text="The server's disk is full. What you write is kept")
    status.wait_for(timeout=1000)  # at once: it is no short loss
    assert "Next try in" in status.inner_text()
    page.locator(".empty", has_text="come when the connection is back").wait_for()
    assert page.locator(".empty button").is_hidden(), "nothing can be made now"
    refusals.clear()
    sees(page, "while it was full")
    status.wait_for(state="hidden")
    page.locator(".message.waiting").wait_for(state="detached")


def test_a_new_password_can_be_looked_at(visit, server):
    page = visit(f"#invite={server.invite}")
    field = page.locator("#password")
    field.fill("corect horse")
    assert field.get_attribute("type") == "password"
    page.get_by_label("Show the password").check()
    assert field.get_attribute("type") == "text"
    page.get_by_label("Show the password").uncheck()
    assert field.get_attribute("type") == "password"
    page.fill("#username", "looker")
    field.fill(PASSWORD)
    field.press("Enter")
    page.wait_for_selector("#composer", state="visible")
    page.locator("[aria-label='Settings and sessions']").click()
    page.locator("dialog summary", has_text="Change the password").click()
    page.locator("dialog").get_by_label("Show the password").check()
    kinds = [page.get_attribute(field, "type") for field in ("#old-password", "#new-password")]
    assert kinds == ["password", "text"]
