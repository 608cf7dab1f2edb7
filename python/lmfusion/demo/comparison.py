"""The same scores in every mode and by plain Hugging Face: time, tokens and differences."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lmfusion import LMFusionScorer, _core
from lmfusion.demo.lattices import BestPaths
from lmfusion.demo.rescoring import Weights
from lmfusion.demo.workloads import Workload, warm_up, whole_text
from lmfusion.demo.yardstick import HuggingFaceScorer

MODES = ("tree", "grouped", "uncached")
YARDSTICK = "Hugging Face"
BEST_ONLY = "tree, best text only"
LATTICE = "tree, lattice's best"
REPETITIONS = 3  # of the short workloads; the median counts
Scores = list[float]


class Engine(Protocol):
    """One way of scoring."""

    def score_texts(self, texts: Sequence[str]) -> list[float]: ...

    def score_continuations(self, contexts: Sequence[str],
                            candidate_words: Sequence[Sequence[str]]) -> list[list[Any]]: ...

    def start(self) -> None:
        """Forgets what was cached and counted."""

    def tokens(self) -> int:
        """Tokens computed since start()."""


@dataclass(frozen=True)
class Measurement:
    """One cell of the table."""

    workload: str
    engine: str
    candidates: int
    seconds: float
    tokens: int
    difference: float  # largest, nats, from the yardstick, of one candidate or text
    speed_up: float  # over the yardstick


@dataclass(frozen=True)
class BestOnly:
    """The question which text of each list is best, and nothing else."""

    workload: Workload  # of lists
    base_scores: Sequence[Sequence[float]]
    weights: Weights
    word_counts: Sequence[Sequence[int]]

    def expected(self, log_probs: Scores) -> list[int]:
        """The index of the best text of each list, from the scores of all."""
        scored, best = iter(log_probs), []
        for base, words in zip(self.base_scores, self.word_counts, strict=True):
            totals = [score + self.weights.weight * next(scored)
                      + self.weights.word_insertion_bonus * count
                      for score, count in zip(base, words, strict=True)]
            best.append(totals.index(max(totals)))
        return best


def compare(model: Path, source: Path, workloads: Sequence[Workload], best_only: BestOnly,
            lattices: BestPaths, done: Callable[[], None]) -> list[Measurement]:
    """Measures every workload with every engine, one engine in memory at a time.

    Args:
        model: the model file for lmfusion.
        source: the same weights for Hugging Face.
        best_only: asked of one of the workloads, besides.
        lattices: what was found in the lattices of that workload's recordings.
        done: called after each of the len(workloads) * (len(MODES) + 1) + 1 measurements.

    Raises:
        RuntimeError: the best texts are not those that the yardstick's scores say.
    """
    start = json.loads(_core.read_description(str(model)))["bos_token_id"]
    hugging_face = _HuggingFace(source, start)
    yardstick = _measure(hugging_face, workloads, done)
    wanted_of_paths = hugging_face.score_texts([whole_text(text) for text in lattices.texts
                                                if text])
    del hugging_face  # one engine in memory at a time
    slow, _, wanted = yardstick[workloads.index(best_only.workload)]
    only = [_best_only(model, best_only, slow, wanted),
            _lattices(lattices, best_only.workload, slow, wanted_of_paths)]
    done()
    rows = []
    for name in (*MODES, YARDSTICK):
        if name == YARDSTICK:
            rows += only
        results = yardstick if name == YARDSTICK else _measure(_Ours(model, name), workloads, done)
        for workload, (seconds, tokens, scores), (slow, _, wanted) in zip(
                workloads, results, yardstick, strict=True):
            difference = max(abs(a - b) for a, b in zip(scores, wanted, strict=True))
            rows.append(Measurement(workload.name, name, workload.candidates, seconds, tokens,
                                    difference, slow / seconds))
    return rows


def _best_only(model: Path, asked: BestOnly, slow: float, wanted: Scores) -> Measurement:
    scorer = LMFusionScorer(str(model), weight=1.0, casing="sentence")
    warm_up(scorer)
    lists = [list(texts) for texts in asked.workload.lists]
    seconds = []
    for _ in range(REPETITIONS):
        scorer.clear_cache()
        scorer.reset_stats()
        begin = time.perf_counter()
        found = scorer.best(lists, asked.base_scores, weight=asked.weights.weight,
                            word_insertion_bonus=asked.weights.word_insertion_bonus)
        seconds.append(time.perf_counter() - begin)
    indices = [one.best[0].index for one in found]
    if indices != asked.expected(wanted):
        raise RuntimeError("the best texts are not those of the lists scored whole")
    firsts = itertools.accumulate(map(len, lists), initial=0)
    difference = max(abs(one.best[0].log_prob - wanted[first + index])
                     for one, first, index in zip(found, firsts, indices))
    median = statistics.median(seconds)
    return Measurement(asked.workload.name, BEST_ONLY, asked.workload.candidates, median,
                       scorer.stats().tokens_computed, difference, slow / median)


def _lattices(found: BestPaths, workload: Workload, slow: float, wanted: Scores) -> Measurement:
    log_probs = [log_prob for text, log_prob in zip(found.texts, found.log_probs) if text]
    difference = max(abs(a - b) for a, b in zip(log_probs, wanted, strict=True))
    return Measurement(workload.name, LATTICE, len(log_probs), found.seconds, found.tokens,
                       difference, slow / found.seconds)


class _Ours:
    def __init__(self, model: Path, mode: str) -> None:
        self._scorer = LMFusionScorer(str(model), weight=1.0, casing="sentence", mode=mode)
        self.score_texts = self._scorer.score_texts
        self.score_continuations = self._scorer.score_continuations

    def start(self) -> None:
        self._scorer.clear_cache()
        self._scorer.reset_stats()

    def tokens(self) -> int:
        return self._scorer.stats().tokens_computed


class _HuggingFace(HuggingFaceScorer):
    def start(self) -> None:
        self.tokens_computed = 0

    def tokens(self) -> int:
        return self.tokens_computed


def _measure(engine: Engine, workloads: Sequence[Workload],
             done: Callable[[], None]) -> list[tuple[float, int, Scores]]:
    warm_up(engine)
    results = []
    for workload in workloads:
        seconds = []
        for _ in range(1 if workload.lists else REPETITIONS):
            engine.start()
            begin = time.perf_counter()
            scores = _run(engine, workload)
            seconds.append(time.perf_counter() - begin)
        results.append((statistics.median(seconds), engine.tokens(), scores))
        done()
    return results


def _run(engine: Engine, workload: Workload) -> Scores:
    scores = [score for texts in workload.lists for score in engine.score_texts(list(texts))]
    if workload.contexts:
        ragged = engine.score_continuations(list(workload.contexts),
                                            [list(words) for words in workload.candidate_words])
        scores += [score for row in ragged for score in row]
    return scores
