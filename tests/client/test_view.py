"""How lines look."""

import time

from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.utils import get_cwidth

from chat.client.screen import laid_out, wrapped
from chat.client.view import plain, record_line, told
from chat.protocol import messages as m


def message(text, *, conv="#lobby", user="bob"):
    return m.Message(conv=conv, epoch="epoch0001", seq=1, ts=0, from_=user, text=text)


def shown(record, current="#lobby", columns=40):
    line = record_line(record, me="ann", colors={}, current=current)
    return "".join(text for _, text in laid_out(line, columns))[5:]  # without the local time


def test_a_text_has_its_margin():
    assert shown(message("one two three four five six")) == " bob      one two three four five\n" + " " * 15 + "six"
    assert shown(message("a\nb")) == " bob      a\n" + " " * 15 + "b"


def test_a_word_that_is_too_long_keeps_the_margin_but_an_address_stays_whole_to_be_copied():
    assert shown(message("see " + "x" * 30)) == " bob      see\n" + " " * 15 + "x" * 24 + "\n" + " " * 15 + "x" * 6
    address = "https://example.org/" + "x" * 30
    assert shown(message("see " + address)) == " bob      see\n" + " " * 15 + address


def test_private_texts_name_both_but_in_their_own_place():
    assert shown(message("psst", conv="@bob")).startswith(" bob → ann")
    assert shown(message("psst", conv="@bob", user="ann")).startswith(" ann → bob")
    assert shown(message("psst", conv="@bob"), current="@bob").startswith(" bob      psst")


def test_a_pipe_has_one_line_for_each_text():
    line = record_line(message("hi"), me="ann", colors={}, current=None)
    assert plain(line, where=True)[5:] == " #lobby bob: hi"


def test_a_table_keeps_its_last_column():
    laid = "".join(text for _, text in laid_out(told("//help (command)  what there is to be done"), 40))
    assert laid[5:] == " //help (command)  what there is\n" + " " * 24 + "to be done"


@given(st.text(st.sampled_from("ab 日")), st.integers(4, 20))
def test_wrapping_loses_nothing_and_keeps_the_width(text, room):
    rows = list(wrapped(text, room))
    assert "".join("".join(rows).split()) == "".join(text.split())
    assert all(get_cwidth(row) <= room for row in rows)
    if all(get_cwidth(word) <= room for word in text.split()) and text == " ".join(text.split()):
        assert " ".join(rows).split() == text.split(), "only what is longer than a row is broken"
    if get_cwidth(text) <= room:
        assert rows == [text]


def test_who_was_put_out_is_shown_by_whom_until_when_and_why():
    def event(kind, **more):
        return shown(kind(conv="#lobby", epoch="epoch0001", seq=1, ts=0, user="bob", **more), columns=200)

    assert event(m.Left) == " · bob left"
    assert event(m.Left, by="ann", reason="noise") == " · bob was removed by ann: noise"
    assert event(m.Banned, by="ann", reason="spam") == " · bob was banned by ann: spam"
    until = time.strftime("%d %B %Y, %H:%M", time.localtime(4102444800))
    assert event(m.Banned, by="ann", until=4102444800000) == f" · bob was banned by ann until {until}"
    now_s = int(time.time())
    today = time.strftime("%H:%M", time.localtime(now_s))
    assert event(m.Banned, by="ann", until=now_s * 1000) == f" · bob was banned by ann until {today}"


@given(st.text(), st.text(min_size=1))
def test_no_record_brings_a_control_character(name, text):
    for record in (
        message(text, user=name),
        m.Topic(conv="#lobby", epoch="epoch0001", seq=1, ts=0, user=name, text=text),
        m.Left(conv="#lobby", epoch="epoch0001", seq=1, ts=0, user=name, by=text, reason=text),
        m.Removed(conv="#" + name, reason=text),
    ):
        line = record_line(record, me="ann", colors={}, current=None)
        for char in plain(line, where=False):
            assert char == "\n" or not (char < " " or "\x7f" <= char <= "\x9f" or char in "\u202a\u202b\u202c\u202d\u202e\u2066\u2069")
