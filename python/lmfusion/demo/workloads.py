"""What the comparison scores: words after contexts, and whole n-best lists."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmfusion.demo.utterances import Utterance

SHORTEST_CONTEXT = 3  # words


@dataclass(frozen=True)
class Workload:
    """Calls that are made one after another, from an empty cache on."""

    name: str
    contexts: tuple[str, ...] = ()
    candidate_words: tuple[tuple[str, ...], ...] = ()  # one tuple a context; one call
    lists: tuple[tuple[str, ...], ...] = ()  # whole texts; one call a list

    @property
    def candidates(self) -> int:
        """Scores asked for."""
        return sum(map(len, self.candidate_words)) + sum(map(len, self.lists))


def workloads(utterances: Sequence[Utterance]) -> list[Workload]:
    """The four of the table, all from the n-best lists."""
    lists = [[hypothesis.text for hypothesis in utterance.recognition.hypotheses]
             for utterance in utterances]
    return [continuations(lists, contexts=1, words=5), continuations(lists, contexts=10, words=5),
            continuations(lists, contexts=100, words=2),
            Workload(f"{len(lists)} n-best lists",
                     lists=tuple(tuple(map(whole_text, texts)) for texts in lists))]


def warm_up(engine: Any) -> None:
    """A first pass, which is slower than others and does not count."""
    engine.score_texts(["the first pass is slower than others", "so it does not count"])


def whole_text(hypothesis: str) -> str:
    """A hypothesis as the language model reads it, up to casing: with a full stop."""
    return f"{hypothesis}."


def continuations(lists: Sequence[Sequence[str]], *, contexts: int, words: int) -> Workload:
    """What a decoder asks amid an utterance: beginnings of hypotheses, and next words.

    The contexts are the first different beginnings of at least three words, in the order of the
    lists. Each has the words that follow it in the lists, then those that are most frequent there.
    """
    followers: dict[str, list[str]] = {}
    frequent: Counter[str] = Counter()
    for text in itertools.chain.from_iterable(lists):
        split = text.split()
        for end in range(SHORTEST_CONTEXT, len(split)):
            own = followers.setdefault(" ".join(split[:end]), [])
            if split[end] not in own:
                own.append(split[end])
            frequent[split[end]] += 1
        if len(followers) >= contexts and len(frequent) >= words:
            break
    common = [word for word, _ in frequent.most_common()]
    chosen = list(followers.items())[:contexts]
    return Workload(
        f"{contexts} x {words}", contexts=tuple(context for context, _ in chosen),
        candidate_words=tuple(tuple(dict.fromkeys([*own, *common]))[:words] for _, own in chosen))
