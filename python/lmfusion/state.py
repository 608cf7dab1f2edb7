"""Scores word by word, from states, as n-gram libraries give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmfusion import _core
from lmfusion.scorer import LMFusionScorer


@dataclass(frozen=True, slots=True)
class State:
    """How far a hypothesis has come: its text.

    Immutable, hashable, cheap; states of the same text are equal. A state holds nothing of the
    cache: thousands may live, each stays valid for ever, and what the cache dropped is computed
    anew when asked for.
    """

    text: str = ""

    def __repr__(self) -> str:
        """Without the text, which may be anybody's and ends up in logs and tracebacks."""
        return f"State({len(self.text)} characters)"

    def after(self, word: str, join: str = "auto") -> State:
        """The state after `word`, joined as an `LMFusionScorer` of this `join` does."""
        return State(joined(self.text, word, join))


def joined(context: str, word: str, join: str = "auto") -> str:
    """Context and word as one text (docs/boundaries.md has the rule)."""
    return context + _core.separator(context, word, join) + word


def join_of(scorer: object) -> str:
    """How a scorer joins, or the language models of one of several; "auto" where none says."""
    if isinstance(scorer, LMFusionScorer):
        return str(scorer.options["join"])
    joins = {join_of(each) for each in getattr(scorer, "components", {}).values()
             if isinstance(each, LMFusionScorer)}
    return joins.pop() if len(joins) == 1 else "auto"


class StateScorer:
    """An `LMFusionScorer` asked from state to state.

    All log-probabilities are nats, without weight and bonus, and equal what
    `LMFusionScorer.log_probs` gives for the same text; errors are the same too. Thread safe.

    Args:
        scorer: the scorer, or a `CombinedScorer`; its casing, start token and cache are used.
        endings: how a text may end, for `finish`; "" stands for the end-of-text token.
        join: how words join, in place of the scorer's.
        context, prompt: earlier utterances and a text before every state's, as in
            `LMFusionScorer.score_continuations`.
        cache_namespace: states of different namespaces share nothing.
    """

    __slots__ = ("_call", "cache_namespace", "endings", "join", "scorer")

    def __init__(self, scorer: LMFusionScorer, *, endings: Sequence[str] = ("",),
                 join: str | None = None, context: str | Sequence[str] = (), prompt: str = "",
                 cache_namespace: str = "") -> None:
        self.scorer = scorer
        self.join = join_of(scorer) if join is None else join
        self.endings = list(endings)
        self.cache_namespace = cache_namespace
        self._call: dict[str, Any] = {"cache_namespace": cache_namespace}
        if context or prompt:  # a scorer of several models knows of none
            self._call.update(context=context, prompt=prompt)

    def __repr__(self) -> str:
        return (f"StateScorer({self.scorer!r}, endings={self.endings!r}, join={self.join!r}, "
                f"cache_namespace={self.cache_namespace!r})")

    def start(self, text: str = "") -> State:
        """The state after `text`, the text before the utterance."""
        return State(text)

    def after(self, state: State, word: str) -> State:
        """The state after a word, which is not scored."""
        return state.after(word, self.join)

    def score(self, state: State, word: str) -> tuple[float, State]:
        """log p(word | state), and the state after the word."""
        return self.score_batch([(state, word)])[0]

    def score_batch(self, questions: Sequence[tuple[State, str]],
                    floors: Sequence[float] | None = None) -> list[tuple[float, State]]:
        """`score` of many (state, word), in one call of the model.

        Args:
            floors: [questions]; a word whose log p is below its floor gets -inf, and is computed
                only as far as it takes to know that. None: no floors.
        """
        row_of: dict[State, int] = {}
        words: list[list[str]] = []
        floor_rows: list[list[float]] = []
        places = []
        for i, (state, word) in enumerate(questions):
            if not isinstance(state, State):
                raise TypeError(f"questions[{i}]: {type(state).__name__} found; a State expected, "
                                "of start() or score()")
            row = row_of.setdefault(state, len(words))
            if row == len(words):
                words.append([])
                floor_rows.append([])
            places.append((row, len(words[row])))
            words[row].append(word)
            if floors is not None:
                floor_rows[row].append(floors[i])
        log_probs: list[list[Any]] = self.scorer.log_probs(  # floats: there is no deadline
            [state.text for state in row_of], words, join=self.join,
            floor=None if floors is None else floor_rows, **self._call)
        return [(log_probs[row][column], self.after(state, word))
                for (row, column), (state, word) in zip(places, questions)]

    def finish(self, state: State) -> float:
        """log p(the text ends in one of `endings` | state); 0 without endings."""
        return self.finish_batch([state])[0]

    def finish_batch(self, states: Sequence[State]) -> list[float]:
        """`finish` of many states, in one call of the model."""
        if not self.endings:
            return [0.0] * len(states)
        rows = self.scorer.score_endings([state.text for state in states], self.endings,
                                         **self._call)
        return [_core.log_sum_exp(row) for row in rows]

    def prefetch(self, states: Sequence[State]) -> None:
        """Computes, in one call, what any word after these states will need."""
        # An ending is predicted from the whole text, as the next word will be.
        self.scorer.score_endings([state.text for state in states], self.endings[:1] or ["."],
                                  **self._call)
