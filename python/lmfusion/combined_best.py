"""The best texts of lists under several language models, asked no further than it takes to know.

Each model's log p of a text is known, or is at most what it was when the model left the text. Their
weighted sum bounds every total, so each model in turn searches with the bounds of the others as
base scores; what then stands first in sum is scored by the models that have not. A list is settled
when the n first are known to all: the bounds of all others are below.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmfusion import _core
from lmfusion.arguments import check_shape, check_text_lists
from lmfusion.scorer import LMFusionScorer, Progress


@dataclass(slots=True)
class Model:
    """A language model, and what it has said of the texts of all lists: [lists][texts]."""

    scorer: LMFusionScorer
    share: float  # of its log p in the combination's; not 0
    weight: float  # of its log p in the total
    log_probs: list[list[float]] = field(default_factory=list)  # nats; bounds where not exact
    exact: list[list[bool]] = field(default_factory=list)


def check_best(lists: Sequence[Sequence[str]], base_scores: Sequence[Sequence[float]] | None, *,
               n: int, gap: float, within: float) -> list[list[float]]:
    """The base scores, checked as `LMFusionScorer.best` checks its arguments.

    Raises:
        TypeError, ValueError: name the argument and the index.
    """
    check_text_lists(lists, "lists")
    for name, value, least in (("n", n, 1), ("gap", gap, 0), ("within", within, 0)):
        if not value >= least:
            raise ValueError(f"{name} = {value!r}; a number of at least {least} expected")
    if base_scores is None:
        return [[0.0] * len(texts) for texts in lists]
    check_shape(base_scores, [len(texts) for texts in lists], "base_scores", "lists", "text")
    for i, row in enumerate(base_scores):
        for j, score in enumerate(row):
            if not float(score) < math.inf:
                raise ValueError(f"base_scores[{i}][{j}] is {float(score)}; a number or -infinity "
                                 "expected")
    return [[float(score) for score in row] for row in base_scores]


class CombinedSearch:
    """One search; `run` it once, then take its `results`.

    Args:
        models: those that count in the combination.
        lists: [lists][texts].
        others: [lists][texts], the part of log p that is no language model's.
        base: [lists][texts], the part of the total that is no language model's.
        n, gap, within, deadline, progress: as of `LMFusionScorer.best`.
        asked: further arguments of the models' `best` and `score_texts`.
    """

    def __init__(self, models: Sequence[Model], lists: Sequence[Sequence[str]],
                 others: list[list[float]], base: list[list[float]], *, n: int, gap: float,
                 within: float, deadline: float | None, progress: Progress | None,
                 asked: dict[str, Any]) -> None:
        self._models, self._lists, self._others, self._base = models, lists, others, base
        self._n, self._gap, self._within = n, gap, within
        self._until = math.inf if deadline is None else time.monotonic() + deadline
        self._progress, self._asked = progress, asked
        self._texts = sum(map(len, lists))
        self._settled = 0  # texts of lists that are
        for model in models:
            bound = 0.0 if model.weight >= 0 else -math.inf
            model.log_probs = [[bound] * len(texts) for texts in lists]
            model.exact = [[False] * len(texts) for texts in lists]

    def run(self) -> None:
        """Until every list is settled, or the deadline is over."""
        everything = [(i, j) for i, texts in enumerate(self._lists) for j in range(len(texts))]
        for model in self._models:
            if model.weight < 0:  # leaves no bound
                self._score(model, everything)
        still_open = list(range(len(self._lists)))
        while still_open and not self._is_late():
            for model in self._models:
                if model.weight >= 0:
                    self._search(model, still_open)
            still_open = [i for i in still_open if self._wanted(i)]
            self._settled = self._texts - sum(len(self._lists[i]) for i in still_open)
            wanted = [(i, j) for i in still_open for j in self._wanted(i)]
            for model in self._models:
                self._score(model, [(i, j) for i, j in wanted if not model.exact[i][j]])
        if self._progress is not None:
            self._progress(self._texts, self._texts)

    def results(self) -> list[_core.BestList]:
        """What is known of every list."""
        found = []
        for i, texts in enumerate(self._lists):
            ranked = sorted(self._ranked(i), key=lambda j: not self._is_exact(i, j))
            best, others = ranked[:self._n], sorted(ranked[self._n:])
            gap = 0.0 if all(self._is_exact(i, j) for j in best) else math.inf
            if texts and others:
                last = self._total(i, best[-1])
                gap = max(gap, *(self._total(i, j) - last for j in others
                                 if self._total(i, j) > last), 0.0)
            found.append(_core.BestList([self._hypothesis(i, j) for j in best],
                                        [self._hypothesis(i, j) for j in others], gap))
        return found

    def _wanted(self, i: int) -> list[int]:
        """The texts of a list that are to be known before it is settled; some of them."""
        ranked = self._ranked(i)
        known = [j for j in ranked if self._is_exact(i, j)][:self._n]
        unknown = [j for j in ranked[:self._n] if not self._is_exact(i, j)]
        if len(known) < min(self._n, len(ranked)) or not ranked:
            return unknown
        nth = self._total(i, known[-1])
        if self._gap > 0:
            unknown = [j for j in unknown if self._total(i, j) > nth + self._gap]
        if not unknown and self._within > 0:
            unknown = [j for j in ranked if not self._is_exact(i, j)
                       and self._total(i, j) >= nth - self._within
                       and self._total(i, j) > -math.inf]
        return unknown

    def _ranked(self, i: int) -> list[int]:
        """The texts of a list by their bounds, best first, equal ones in the order of the list."""
        totals = [self._total(i, j) for j in range(len(self._lists[i]))]
        return sorted(range(len(totals)), key=lambda j: -totals[j])

    def _total(self, i: int, j: int, without: Model | None = None) -> float:
        """What a text's total is at most; of all models but one."""
        if self._base[i][j] == -math.inf:
            return -math.inf
        return self._base[i][j] + sum(model.weight * model.log_probs[i][j]
                                      for model in self._models
                                      if model is not without and model.weight != 0)

    def _is_exact(self, i: int, j: int) -> bool:
        return all(model.exact[i][j] for model in self._models)

    def _hypothesis(self, i: int, j: int) -> _core.BestHypothesis:
        log_prob = self._others[i][j] + sum(model.share * model.log_probs[i][j]
                                            for model in self._models)
        return _core.BestHypothesis(j, log_prob, self._total(i, j), self._is_exact(i, j))

    def _search(self, model: Model, which: list[int]) -> None:
        """Asks a model for the best of some lists, as far as the others are known."""
        base = [[self._total(i, j, without=model) for j in range(len(self._lists[i]))]
                for i in which]
        found = model.scorer.best([self._lists[i] for i in which], base, weight=model.weight,
                                  word_insertion_bonus=0.0, n=self._n, gap=self._gap,
                                  deadline=self._left(), progress=self._told(), **self._asked)
        for i, one in zip(which, found):
            for each in [*one.best, *one.beaten]:
                self._learn(model, i, each.index, each.log_prob, exact=each.exact)

    def _score(self, model: Model, places: list[tuple[int, int]]) -> None:
        """Asks a model for whole texts."""
        if places and not self._is_late():
            log_probs = model.scorer.score_texts([self._lists[i][j] for i, j in places],
                                                 progress=self._told(), **self._asked)
            for (i, j), log_prob in zip(places, log_probs):
                self._learn(model, i, j, log_prob, exact=True)

    def _learn(self, model: Model, i: int, j: int, log_prob: float, *, exact: bool) -> None:
        if not model.exact[i][j] and (exact or log_prob < model.log_probs[i][j]):
            model.log_probs[i][j], model.exact[i][j] = log_prob, exact

    def _told(self) -> Callable[[int, int], object] | None:
        """For a call of a model, after which alone more texts may be settled."""
        progress = self._progress
        if progress is None:
            return None
        return lambda done, total: progress(self._settled, self._texts)

    def _is_late(self) -> bool:
        return time.monotonic() >= self._until

    def _left(self) -> float | None:
        return None if math.isinf(self._until) else max(0.0, self._until - time.monotonic())
