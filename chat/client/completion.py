"""What Tab completes: the server's commands, the client's own, channels and people."""

from collections.abc import Callable, Iterable, Iterator

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from chat.client.clean import clean


class WordCompleter(Completer):
    """*words* gives for the beginning of a line all words that could stand there, each with its sigil."""

    def __init__(self, words: Callable[[str], Iterable[tuple[str, str]]]) -> None:
        self._words = words

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        before = document.text_before_cursor
        word = before.rpartition(" ")[2]
        if not word:
            return
        typed = word.casefold()
        for candidate, meaning in self._words(before[: len(before) - len(word)]):
            if candidate.casefold().startswith(typed):
                yield Completion(clean(candidate) + " ", -len(word), display=clean(candidate), display_meta=clean(meaning))
