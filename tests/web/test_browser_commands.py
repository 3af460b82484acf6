"""A plugin that is dropped into the folder, played in the page, edited and played on; messages that are taken away; another prefix."""

from pathlib import Path

import pytest

from tests.web.test_browser import TEXTS, say, sees, texts

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("browser")]

QUIZ = '''
from chat.plugin import Context, command

@command(where="channel")
async def quiz(ctx: Context) -> str:
    """Ask who knows."""

    def check(answer: str) -> str:
        if answer.strip().lower() != "paris":
            raise ValueError("No. Try again!")
        return answer

    won = await ctx.ask("What is the capital of France?", of=ctx.channel, parse=check, timeout=30)
    points = await ctx.store.update(f"points {won.user.id}", lambda n: n + 1, 0)
    await ctx.say(f"{won.user} knows it. Points: {points}")
    return "over"
'''


def test_a_quiz_is_dropped_in_played_edited_and_played_on(guest, server, person):
    owner = person("owner", invite=server.owner_invite)
    page = guest("kid")
    folder = Path(server.folder, "data", "plugins")
    folder.mkdir(mode=0o700)
    quiz = folder / "quiz.py"
    quiz.write_text(QUIZ)
    quiz.chmod(0o600)
    assert owner.ask({"type": "command", "text": "reload-commands"})["text"] == "quiz (quiz): loaded from plugins/quiz.py"
    say(page, "//quiz")
    form = page.locator(".question", has_text="capital of France").first
    form.locator("input, textarea").first.fill("London")
    form.locator("input, textarea").first.press("Enter")
    page.get_by_text("No. Try again!").first.wait_for()
    form.locator("input, textarea").first.fill("Paris")
    form.locator("input, textarea").first.press("Enter")
    sees(page, "kid knows it. Points: 1")
    form.wait_for(state="detached")
    quiz.write_text(QUIZ.replace("knows it", "is right"))
    owner.ask({"type": "command", "text": "reload-commands"})
    say(page, "//quiz")
    form = page.locator(".question", has_text="capital of France").first
    form.locator("input, textarea").first.fill("paris")
    form.locator("input, textarea").first.press("Enter")
    sees(page, "kid is right. Points: 2")


def test_what_a_moderator_takes_away_leaves_the_page_and_a_prefix_is_learnt(guest, server, person):
    keeper = person("keeper")
    keeper.ask({"type": "command", "text": "create-channel garden"})
    page = guest("reader")
    say(page, "//join-channel garden")
    page.locator(".event", has_text="reader joined").first.wait_for()
    for text in ("kept", "rude", "ruder"):
        keeper.say(text, channel="garden")
    sees(page, "ruder")
    keeper.ask({"type": "command", "channel": "garden", "text": "clear 2"})
    page.locator(".event", has_text="keeper took messages away").first.wait_for()
    for _ in range(100):  # two were taken away, and told one after the other
        if texts(page)[-1:] == ["kept"]:
            break
        page.wait_for_timeout(50)
    assert texts(page)[-1:] == ["kept"]
    assert page.locator(".event", has_text="a message of keeper was taken away").count() == 2
    page.reload()
    sees(page, "kept")
    page.locator(".event", has_text="a message of keeper was taken away").first.wait_for()
    assert page.locator(TEXTS, has_text="rude").count() == 0
    keeper.ask({"type": "command", "channel": "garden", "text": "set-prefix !"})
    page.wait_for_timeout(200)
    say(page, "!user-count")
    page.locator(".note", has_text="online").first.wait_for()
