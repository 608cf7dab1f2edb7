"""The same scores in every mode and by plain Hugging Face: time, tokens and differences."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lmfusion import LMFusionScorer
from lmfusion.demo.workloads import Workload
from lmfusion.demo.yardstick import HuggingFaceScorer

MODES = ("tree", "grouped", "uncached")
YARDSTICK = "Hugging Face"
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


def compare(model: Path, source: Path, workloads: Sequence[Workload],
            done: Callable[[], None]) -> list[Measurement]:
    """Measures every workload with every engine, one engine in memory at a time.

    Args:
        model: the model file for lmfusion.
        source: the same weights for Hugging Face.
        done: called after each of the len(workloads) * (len(MODES) + 1) measurements.
    """
    yardstick = _measure(_HuggingFace(source), workloads, done)
    rows = []
    for name in (*MODES, YARDSTICK):
        results = yardstick if name == YARDSTICK else _measure(_Ours(model, name), workloads, done)
        for workload, (seconds, tokens, scores), (slow, _, wanted) in zip(
                workloads, results, yardstick, strict=True):
            difference = max(abs(a - b) for a, b in zip(scores, wanted, strict=True))
            rows.append(Measurement(workload.name, name, workload.candidates, seconds, tokens,
                                    difference, slow / seconds))
    return rows


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
    engine.score_texts(["the first pass is slower than others", "so it does not count"])
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
