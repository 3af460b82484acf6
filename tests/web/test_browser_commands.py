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


@pytest.mark.parametrize(("name", "width"), [("wide", 1280), ("narrow", 360)])
def test_a_long_answer_has_columns_and_says_that_it_goes_on(guest, name, width):
    page = guest(f"{name}-reader", viewport={"width": width, "height": 640})
    say(page, "//help")
    note = page.locator(".note", has_text="//cancel-question")
    more = note.locator(".unfold")
    more.wait_for()
    lines = note.locator("pre > *")
    assert more.inner_text() == f"Show all {lines.count()} lines"
    last = lines.last
    cut = "([row, pre]) => row.getBoundingClientRect().bottom > pre.getBoundingClientRect().bottom + 1"
    parts = [last.element_handle(), note.locator("pre").element_handle()]
    assert page.evaluate(cut, parts)
    more.click()
    assert not page.evaluate(cut, parts)
    assert more.count() == 0
    row = lines.filter(has_text="//cancel-question")
    command, summary = row.locator("> :nth-child(1)").bounding_box(), row.locator("> :nth-child(2)")
    edges = summary.evaluate("""node => {
      const range = document.createRange(), edges = {};
      range.selectNodeContents(node);
      for (const {top, left} of range.getClientRects()) edges[top] = Math.min(left, edges[top] ?? Infinity);
      return Object.values(edges);
    }""")
    assert len(edges) > 1, "it takes several lines"
    assert len(set(edges)) == 1, "and all of them begin below each other"
    assert edges[0] > command["x"] + 10, "in a column of their own, or behind a margin"
    if width > 1000:
        others = {round(each.bounding_box()["x"]) for each in note.locator("pre > * > :nth-child(2)").all()}
        assert len(others) == 1, "the same for all"
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert note.locator("pre").evaluate("node => node.scrollWidth <= node.clientWidth")
    say(page, "//roll 1d1")
    page.locator(".note", has_text="//roll").locator("pre").wait_for()
    assert page.locator(".note", has_text="//roll").get_by_role("button", name="Show").count() == 0
