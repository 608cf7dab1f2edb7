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
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from lmfusion.lattice.hypotheses import Hypothesis, Key, beginning, successors
from lmfusion.lattice.word_graph import WordGraph

Steps = Generator[list[Hypothesis], Sequence[float], None]
LAST: Key = (math.inf, (), True)  # behind every key
ROUNDING = 1e-4  # nats that float32 may put a log-probability above 0
# Of a call where nobody says how many: a share of the texts scored before, within limits, so that
# few are needless whether a search is short or long.
SHARE, FEWEST, MOST = 8, 8, 64
BEAM = 8  # texts that go on together when a limit has ended the search


@dataclass(frozen=True, slots=True)
class Limits:
    """When a search ends: see `LMFusionScorer.best_path`."""

    n: int = 1
    paths_a_call: int | None = None
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
    calls: int = 0  # of the scorer, that it took part in
    tokens_computed: int = 0  # by the scorer until it ended, whoever asked


class Search:
    """One search of one lattice; whoever runs it scores what its `steps` ask for.

    Attributes:
        best: whole texts, best first, at most n.
        work: counters.
        sound: False once a log-probability above 0 was seen, after which no bound holds.
    """

    def __init__(self, graph: WordGraph, *, weight: float, bonus: float, join: str,
                 scores_endings: bool, limits: Limits) -> None:
        self.best: list[Hypothesis] = []
        self.work = Work()
        self.sound = True
        self._graph, self._limits = graph, limits
        self._weight, self._bonus, self._join = weight, bonus, join
        self._scores_endings = scores_endings
        self._open = [beginning(graph)]

    def steps(self, is_over: Callable[[], bool]) -> Steps:
        """Texts whose last words or endings are to be scored, until the n best are proven, or
        `is_over()`; then one text at least is whole. It is sent their log p, nats."""
        while not self._is_close_enough() and (some := self._next(self._most())):
            self._take(some, (yield some))
            for hypothesis in some:
                heapq.heappush(self._open, hypothesis)
            if is_over():
                break
        if not self.best:
            yield from self._complete()

    @property
    def waiting(self) -> int:
        """How many partial and whole texts are neither asked for nor among the best."""
        return len(self._open)

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

    def _most(self) -> int:
        return self._limits.paths_a_call or min(MOST, max(FEWEST, self.work.words_scored // SHARE))

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
        return self._weight > 0 and (not hypothesis.ended or self._scores_endings)

    def _finish(self, hypothesis: Hypothesis) -> None:
        bisect.insort(self.best, hypothesis)
        del self.best[self._limits.n:]

    def _successors(self, hypothesis: Hypothesis) -> list[Hypothesis]:
        found = successors(hypothesis, self._graph, self._weight, self._bonus, self._join)
        self.work.paths_extended += 1
        self.work.paths_opened += len(found)
        return found

    def _take(self, some: Sequence[Hypothesis], log_probs: Sequence[float]) -> None:
        self.work.words_scored += len(some)
        self.work.calls += len({hypothesis.ended for hypothesis in some})
        for hypothesis, log_prob in zip(some, log_probs, strict=True):
            self.sound = self.sound and log_prob <= ROUNDING
            hypothesis.log_prob += log_prob
            hypothesis.scored = True
            hypothesis.bound = self._weight * hypothesis.log_prob + hypothesis.best

    def _complete(self) -> Steps:
        """The open texts that look best go on to their ends, a beam of them.

        What looks best: a word takes as much of a bound as words did so far, and a text has as many
        words as the best one without the language model.
        """
        length, loss = self._length(), self._weight * self._loss()

        def guess(one: Hypothesis) -> float:
            known = len(one.words) - (not one.scored)
            return loss * max(length - known, 0) - one.bound

        self._open.sort(key=guess)
        beam, self._open = self._open[:BEAM], self._open[BEAM:]
        while beam:
            asked = [one for one in beam if not one.scored and self._asks_model(one)]
            if asked:
                self._take(asked, (yield asked))
            for one in beam:
                if one.ended:
                    self._finish(one)
            grown = sorted((successor for one in beam if not one.ended
                            for successor in self._successors(one)), key=guess)
            beam = [one for one in grown[:BEAM] if one.key < self._cut]
            self._open += [one for one in grown if one not in beam]
        heapq.heapify(self._open)

    def _length(self) -> int:
        """Words of the best text without the language model."""
        one = beginning(self._graph)
        while not one.ended:
            one.scored = True
            one = min(successors(one, self._graph, 0.0, self._bonus, self._join),
                      key=lambda other: other.key)
        return len(one.words)

    def _loss(self) -> float:
        """Mean nats that a word took from what it was in."""
        scored = [one for one in self._open if one.scored and one.words]
        words = sum(len(one.words) for one in scored)
        return -sum(one.log_prob for one in scored) / words if words else 0.0
