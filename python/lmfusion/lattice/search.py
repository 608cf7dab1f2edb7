"""The best paths of a lattice under a language model: A* over texts, proven.

    total = acoustic_scale * acoustic + ngram_weight * n-gram + weight * log p + bonus * words

A log-probability never exceeds 0, so what a text has so far and the best score from the nodes where
its paths end, without the language model, bound every total that begins with it. The open text with
the highest bound is scored next, several of them in a call; once the n best whole texts lie above
every bound, they are the n best of all paths.
"""

from __future__ import annotations

import bisect
import heapq
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmfusion import _core
from lmfusion.lattice.hypotheses import Hypothesis, Key, beginning, successors
from lmfusion.lattice.word_graph import WordGraph
from lmfusion.state import join_of

LAST: Key = (math.inf, (), True)  # behind every key
ROUNDING = 1e-4  # nats that float32 may put a log-probability above 0


@dataclass(frozen=True, slots=True)
class Limits:
    """When a search ends: see `LMFusionScorer.best_path`."""

    n: int = 1
    paths_a_call: int = 8
    max_tokens: int | None = None
    deadline: float | None = None
    gap: float = 0.0

    def __post_init__(self) -> None:
        for name, value, least in (("n", self.n, 1), ("paths_a_call", self.paths_a_call, 1),
                                   ("max_tokens", self.max_tokens, 0),
                                   ("deadline", self.deadline, 0), ("gap", self.gap, 0)):
            if value is not None and not value >= least:
                raise ValueError(f"{name} = {value!r}; a number of at least {least} expected")


@dataclass(slots=True)
class Work:
    """What a search has done."""

    paths_opened: int = 0  # texts that got a bound
    paths_extended: int = 0  # texts whose words behind them were looked up
    words_scored: int = 0  # words and endings that the language model was asked for
    calls: int = 0  # of the scorer
    tokens_computed: int = 0  # by the scorer meanwhile, whoever asked


class Search:
    """One search; `run` it once.

    Attributes:
        best: whole texts, best first, at most n.
        work: counters.
        sound: False once a log-probability above 0 was seen, after which no bound holds.
    """

    def __init__(self, scorer: Any, graph: WordGraph, *, weight: float, bonus: float,
                 endings: Sequence[str], cache_namespace: str, limits: Limits) -> None:
        self.best: list[Hypothesis] = []
        self.work = Work()
        self.sound = True
        self._scorer, self._graph, self._limits = scorer, graph, limits
        self._weight, self._bonus, self._join = weight, bonus, join_of(scorer)
        self._endings, self._namespace = list(endings), cache_namespace
        self._open = [beginning(graph)]
        self._begun = time.monotonic()

    def run(self) -> None:
        """Until the n best are proven, or a limit is met; then one text at least is whole."""
        computed = self._scorer.stats().tokens_computed
        while not self._is_close_enough() and (some := self._next(self._limits.paths_a_call)):
            self._score(some)
            for hypothesis in some:
                heapq.heappush(self._open, hypothesis)
            self.work.tokens_computed = self._scorer.stats().tokens_computed - computed
            if self._is_over():
                break
        if not self.best:
            self._complete()
        self.work.tokens_computed = self._scorer.stats().tokens_computed - computed

    @property
    def bound(self) -> float:
        """What no total of a text that is not among the best exceeds; -inf where there is none."""
        return self._open[0].bound if self._open else -math.inf

    @property
    def is_proven(self) -> bool:
        """Whether no other text comes before one of the best."""
        return self.sound and not (self._open and self._open[0].key < self._cut)

    @property
    def _cut(self) -> Key:
        """What lies behind it is not among the n best."""
        return self.best[-1].key if len(self.best) == self._limits.n else LAST

    def _is_close_enough(self) -> bool:
        full = len(self.best) == self._limits.n
        return full and self.bound < self.best[-1].bound + self._limits.gap

    def _is_over(self) -> bool:
        limits = self._limits
        return ((limits.max_tokens is not None and self.work.tokens_computed >= limits.max_tokens)
                or (limits.deadline is not None
                and time.monotonic() - self._begun >= limits.deadline))

    def _next(self, most: int) -> list[Hypothesis]:
        """The best open texts that wait for the language model; what needs none of it is done."""
        some: list[Hypothesis] = []
        while self._open and len(some) < most and self._open[0].key < self._cut:
            hypothesis = heapq.heappop(self._open)
            if not hypothesis.scored and self._asks_model(hypothesis):
                some.append(hypothesis)
            elif hypothesis.ended:
                self._finish(hypothesis)
            else:
                for successor in self._successors(hypothesis):
                    heapq.heappush(self._open, successor)
        return some

    def _asks_model(self, hypothesis: Hypothesis) -> bool:
        return self._weight > 0 and (not hypothesis.ended or bool(self._endings))

    def _finish(self, hypothesis: Hypothesis) -> None:
        bisect.insort(self.best, hypothesis)
        del self.best[self._limits.n:]

    def _successors(self, hypothesis: Hypothesis) -> list[Hypothesis]:
        found = successors(hypothesis, self._graph, self._weight, self._bonus, self._join)
        self.work.paths_extended += 1
        self.work.paths_opened += len(found)
        return found

    def _score(self, some: Sequence[Hypothesis]) -> None:
        """Asks the language model for their last words or endings."""
        rows: dict[str, list[Hypothesis]] = {}
        for hypothesis in some:
            if not hypothesis.ended:
                rows.setdefault(hypothesis.context, []).append(hypothesis)
        ended = [hypothesis for hypothesis in some if hypothesis.ended]
        if rows:
            words = [[hypothesis.words[-1] for hypothesis in row] for row in rows.values()]
            log_probs = self._scorer.log_probs(list(rows), words, cache_namespace=self._namespace)
            self.work.calls += 1
            for row, values in zip(rows.values(), log_probs):
                for hypothesis, log_prob in zip(row, values):
                    self._set(hypothesis, log_prob)
        if ended:
            texts = [hypothesis.text for hypothesis in ended]
            endings = self._scorer.score_endings(texts, self._endings,
                                                 cache_namespace=self._namespace)
            self.work.calls += 1
            for hypothesis, values in zip(ended, endings):
                self._set(hypothesis, _core.log_sum_exp(values))
        self.work.words_scored += len(some)

    def _set(self, hypothesis: Hypothesis, log_prob: float) -> None:
        self.sound = self.sound and log_prob <= ROUNDING
        hypothesis.log_prob += log_prob
        hypothesis.scored = True
        hypothesis.bound = self._weight * hypothesis.log_prob + hypothesis.best

    def _complete(self) -> None:
        """The open text with the best bound goes on as its acoustics and n-gram say best."""
        hypothesis = heapq.heappop(self._open)
        while True:
            if not hypothesis.scored and self._asks_model(hypothesis):
                self._score([hypothesis])
            if hypothesis.ended:
                self._finish(hypothesis)
                return
            hypothesis, *others = sorted(self._successors(hypothesis))
            for other in others:
                heapq.heappush(self._open, other)
