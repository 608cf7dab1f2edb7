"""Searches of many lattices side by side, so that the language model's passes stay full."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lmfusion import _core
from lmfusion.lattice.hypotheses import Hypothesis
from lmfusion.lattice.search import Limits, Search, Steps

TEXTS_A_CALL = 256  # of all searches, before another one begins


class Reports:
    """Tells how far the searches of a call are: (words and endings scored, these and what waits).

    Args:
        progress: is told; None: nobody is.
    """

    def __init__(self, progress: Callable[[int, int], object] | None) -> None:
        self._progress = progress
        self._done = self._asked = self._total = 0

    def round(self, asked: int, waiting: int) -> None:
        """So many more are asked for, and so many partial texts wait beside them."""
        self._done, self._asked = self._done + self._asked, asked
        self._total = self._done + asked + waiting

    def of_call(self, begin: int, count: int) -> Callable[[int, int], object] | None:
        """`progress` of a scorer's call for `count` of what is asked, `begin` being done."""
        progress, before, total = self._progress, self._done + begin, self._total
        if progress is None:
            return None
        return lambda done, of: progress(before + (count * done // of if of else count), total)

    def end(self) -> None:
        """All is done."""
        self.round(0, 0)
        if self._progress is not None:
            self._progress(self._total, self._total)


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

    def log_probs(self, some: Sequence[Hypothesis], reports: Reports) -> list[float]:
        """Of the last word of each, or of its ending; nats."""
        rows: dict[str, list[int]] = {}
        for index, hypothesis in enumerate(some):
            if not hypothesis.ended:
                rows.setdefault(hypothesis.context, []).append(index)
        found = [0.0] * len(some)
        ended = [index for index, hypothesis in enumerate(some) if hypothesis.ended]
        open_ones = len(some) - len(ended)
        if rows:
            words = [[some[index].words[-1] for index in row] for row in rows.values()]
            for row, values in zip(rows.values(), self.scorer.log_probs(
                    list(rows), words, progress=reports.of_call(0, open_ones), **self.before)):
                for index, log_prob in zip(row, values):
                    found[index] = log_prob
        if ended:
            texts = [some[index].text for index in ended]
            for index, values in zip(ended, self.scorer.score_endings(
                    texts, self.endings, progress=reports.of_call(open_ones, len(ended)),
                    **self.before)):
                found[index] = _core.log_sum_exp(values)
        return found


def _computed(scorer: Any) -> int:
    """Tokens, by a scorer or by each of several."""
    stats = scorer.stats()
    return sum(each.tokens_computed
               for each in (stats.values() if isinstance(stats, dict) else [stats]))


class Budget:
    """What all searches of a call may spend together."""

    def __init__(self, scorer: Any, limits: Limits) -> None:
        self._scorer, self._limits = scorer, limits
        self._begun, self._computed = time.monotonic(), _computed(scorer)

    @property
    def tokens(self) -> int:
        """Computed by the scorer since then, whoever asked."""
        return _computed(self._scorer) - self._computed

    def is_over(self) -> bool:
        """Whether a limit is met."""
        tokens, seconds = self._limits.max_tokens, self._limits.deadline
        return ((tokens is not None and self.tokens >= tokens)
                or (seconds is not None and time.monotonic() - self._begun >= seconds))


def run(searches: Iterable[Search], model: LanguageModel, limits: Limits,
        reports: Reports) -> list[Search]:
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
            reports.end()
            return done
        reports.round(size, sum(search.waiting for search, _, _ in at_work))
        log_probs = iter(model.log_probs([one for _, _, some in at_work for one in some], reports))
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
