"""The questions that wait for a person, as a client keeps them."""

from chat.client.questions import OpenQuestions
from chat.protocol import messages as m


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def asked(id, text="?", expires_in=60.0):
    return m.Question(question=id, from_="ann", text=text, expires_in=expires_in)


def closed(id):
    return m.QuestionClosed(question=id, reason="answered")


def numbers(questions):
    return {question.message.question: question.number for question in questions}


def test_each_has_a_number_that_stays_and_the_lowest_free_one_is_used():
    questions = OpenQuestions(Clock())
    for id in "abc":
        questions.take(asked(id))
    assert numbers(questions) == {"a": 1, "b": 2, "c": 3}
    questions.take(closed("b"))
    questions.take(asked("a", "again"))
    assert numbers(questions) == {"c": 3, "a": 1}, "what was asked last is the newest"
    questions.take(asked("d"))
    assert questions.numbered(2).message.question == "d"
    assert questions.numbered(4) is None


def test_what_is_not_shown_again_after_a_resume_is_over():
    questions = OpenQuestions(Clock())
    for id in "abc":
        questions.take(asked(id))
    questions.opened()
    assert len(questions) == 0
    questions.take(asked("b", expires_in=30))
    questions.take(asked("new"))
    assert numbers(questions) == {"b": 2, "new": 1}


def test_time_passes():
    clock = Clock()
    questions = OpenQuestions(clock)
    questions.take(asked("a", expires_in=10))
    clock.now += 9
    assert questions.left_s(questions.get("a")) == 1
    clock.now += 1
    assert list(questions) == []
    questions.take(closed("a"))
    questions.take(m.Lagging())
    assert len(questions) == 0
