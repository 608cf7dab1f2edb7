"""Searches of many lattices side by side, so that the language model's passes stay full."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lmfusion import _core
from lmfusion.lattice.hypotheses import Hypothesis
from lmfusion.lattice.search import Limits, Search, Steps

TEXTS_A_CALL = 256  # of all searches, before another one begins


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """What a text's words and ending are scored by.

    Attributes:
        endings: a text ends in one of these; empty: endings are not scored.
        before: keywords of the scorer's calls: context, prompt and namespace.
    """

    scorer: Any
    endings: Sequence[str]
    before: dict[str, Any]

    def log_probs(self, some: Sequence[Hypothesis]) -> list[float]:
        """Of the last word of each, or of its ending; nats."""
        rows: dict[str, list[int]] = {}
        for index, hypothesis in enumerate(some):
            if not hypothesis.ended:
                rows.setdefault(hypothesis.context, []).append(index)
        found = [0.0] * len(some)
        if rows:
            words = [[some[index].words[-1] for index in row] for row in rows.values()]
            for row, values in zip(rows.values(),
                                   self.scorer.log_probs(list(rows), words, **self.before)):
                for index, log_prob in zip(row, values):
                    found[index] = log_prob
        if ended := [index for index, hypothesis in enumerate(some) if hypothesis.ended]:
            texts = [some[index].text for index in ended]
            for index, values in zip(ended, self.scorer.score_endings(texts, self.endings,
                                                                      **self.before)):
                found[index] = _core.log_sum_exp(values)
        return found


class Budget:
    """What all searches of a call may spend together."""

    def __init__(self, scorer: Any, limits: Limits) -> None:
        self._scorer, self._limits = scorer, limits
        self._begun, self._computed = time.monotonic(), scorer.stats().tokens_computed

    @property
    def tokens(self) -> int:
        """Computed by the scorer since then, whoever asked."""
        computed: int = self._scorer.stats().tokens_computed
        return computed - self._computed

    def is_over(self) -> bool:
        """Whether a limit is met."""
        tokens, seconds = self._limits.max_tokens, self._limits.deadline
        return ((tokens is not None and self.tokens >= tokens)
                or (seconds is not None and time.monotonic() - self._begun >= seconds))


def run(searches: Iterable[Search], model: LanguageModel, limits: Limits) -> list[Search]:
    """Runs all of them; they begin in their order, as many at once as fill a call."""
    budget = Budget(model.scorer, limits)
    waiting, done = iter(searches), list[Search]()
    at_work: list[tuple[Search, Steps, list[Hypothesis]]] = []
    while True:
        size = sum(len(some) for _, _, some in at_work)
        while size < TEXTS_A_CALL and (search := next(waiting, None)) is not None:
            done.append(search)
            at_work += _begun(search, budget)
            size = sum(len(some) for _, _, some in at_work)
        if not at_work:
            return done
        log_probs = iter(model.log_probs([one for _, _, some in at_work for one in some]))
        at_work = [next_ for search, steps, some in at_work for next_ in _sent(
            search, steps, [next(log_probs) for _ in some], budget)]


def _begun(search: Search, budget: Budget) -> Iterator[tuple[Search, Steps, list[Hypothesis]]]:
    steps = search.steps(budget.is_over)
    if (some := next(steps, None)) is not None:
        yield search, steps, some


def _sent(search: Search, steps: Steps, log_probs: list[float], budget: Budget
          ) -> Iterator[tuple[Search, Steps, list[Hypothesis]]]:
    """The search with what it asks for next; nothing where it has ended."""
    try:
        yield search, steps, steps.send(log_probs)
    except StopIteration:
        pass
    search.work.tokens_computed = budget.tokens
