"""How sure a difference of word error rates is.

- Bootstrap over utterances: M. Bisani, H. Ney, "Bootstrap estimates for confidence intervals in ASR
  performance evaluation", ICASSP 2004: utterances are drawn with replacement, both systems on the
  same ones; the probability of improvement is the share of draws in which the second system has
  fewer errors (equal ones count by half).
- MAPSSWE, the matched-pairs sentence-segment word error test: L. Gillick, S. J. Cox, "Some
  statistical issues in the comparison of speech recognition algorithms", ICASSP 1989, with the
  segments of D. S. Pallett et al., "Tools for the analysis of benchmark speech recognition tests",
  ICASSP 1990: stretches with errors of either system, bounded by two words or more that both have
  right, or by the utterance. With Z_i the errors of the first less those of the second system in
  segment i, W = mean(Z) / (deviation(Z) / sqrt(n)) is nearly standard normal if they are alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lmfusion.tuning.alignment import Alignment

SAMPLES = 10_000
LEVEL = 0.95
# Fewer utterances than these tell nothing at LEVEL: even if one system had the fewer errors in all
# five that differ, a sign test would say 2 / 2 ** 5 = 6 %.
FEWEST = 6
GOOD_WORDS = 2  # between two segments
_CHUNK = 2_000_000  # numbers drawn at once


@dataclass(frozen=True)
class Comparison:
    """Two results of the same utterances; rates are errors a word of the references."""

    utterances: int
    words: int
    rate_before: float
    rate_after: float
    interval_before: tuple[float, float]
    interval_after: tuple[float, float]
    interval_change: tuple[float, float]  # of rate_after - rate_before
    probability_of_improvement: float
    differing: int  # utterances in which one system has more errors than the other
    segments: int
    mapsswe_w: float  # above 0: the second system has fewer errors
    mapsswe_p: float  # two-sided

    @property
    def is_better(self) -> bool:
        """Fewer errors, by both tests at 5 %, in utterances enough for such tests."""
        return self._is_sure and self.interval_change[1] < 0

    @property
    def _is_sure(self) -> bool:
        low, high = self.interval_change
        return (self.differing >= FEWEST and self.mapsswe_p < 1 - LEVEL
                and (high < 0 < self.mapsswe_w or low > 0 > self.mapsswe_w))

    @property
    def verdict(self) -> str:
        """What the figures say, in words."""
        change = self.rate_after - self.rate_before
        if change == 0:
            return "The same number of errors."
        better = change < 0
        low, high = self.interval_change
        if self._is_sure:
            return f"{'Better' if better else 'WORSE'}, and not by chance (both tests at 5 %)."
        kind = "A gain" if better else "A loss"
        if self.differing < FEWEST:
            return (f"{kind} that may well be chance: only {self.differing} utterances have "
                    f"another number of errors, and below {FEWEST} no test can tell. More would.")
        return (f"{kind} that may well be chance: the interval of the change is "
                f"[{100 * low:+.2f}, {100 * high:+.2f}] points, MAPSSWE p = {self.mapsswe_p:.3f}. "
                "More utterances would tell.")

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the verdict."""
        return {**asdict(self), "is_better": self.is_better, "verdict": self.verdict}


def compare(before: Sequence[Alignment], after: Sequence[Alignment], *, samples: int = SAMPLES,
            seed: int = 0) -> Comparison:
    """Two results of the same utterances, in the same order."""
    words = np.array([each.words for each in before], dtype=np.int64)
    errors = np.array([[each.errors for each in result] for result in (before, after)])
    rates = bootstrap(words, errors, samples=samples, seed=seed)
    change = rates[1] - rates[0]
    segments, w, p = mapsswe(before, after)
    total = max(int(words.sum()), 1)
    return Comparison(
        len(before), int(words.sum()), float(errors[0].sum() / total),
        float(errors[1].sum() / total), _interval(rates[0]), _interval(rates[1]),
        _interval(change), float((change < 0).mean() + (change == 0).mean() / 2),
        int((errors[0] != errors[1]).sum()), segments, w, p)


def bootstrap(words: np.ndarray, errors: np.ndarray, *, samples: int = SAMPLES,
              seed: int = 0) -> np.ndarray:
    """Word error rates of drawn utterances.

    Args:
        words: [utterances], of the references.
        errors: [systems, utterances].

    Returns:
        [systems, samples]; all systems of a sample have the same utterances.
    """
    count = len(words)
    generator = np.random.default_rng(seed)
    rates = np.zeros((len(errors), samples))
    step = max(1, _CHUNK // max(count, 1))
    for begin in range(0, samples if count else 0, step):
        end = min(begin + step, samples)
        drawn = generator.integers(0, count, (end - begin, count))
        rates[:, begin:end] = errors[:, drawn].sum(axis=2) / np.maximum(words[drawn].sum(axis=1), 1)
    return rates


def mapsswe(before: Sequence[Alignment], after: Sequence[Alignment]) -> tuple[int, float, float]:
    """(segments, W, two-sided p) of the matched-pairs sentence-segment word error test."""
    differences = np.array([difference for one, other in zip(before, after, strict=True)
                            for difference in segment_differences(one, other)], dtype=float)
    count = len(differences)
    if count < 2 or not differences.any():
        return count, 0.0, 1.0
    deviation = differences.std(ddof=1)
    if deviation == 0:  # every segment has the same difference
        w = math.copysign(math.inf, differences[0])
    else:
        w = float(differences.mean() / (deviation / math.sqrt(count)))
    return count, w, math.erfc(abs(w) / math.sqrt(2))


def segment_differences(before: Alignment, after: Alignment) -> list[int]:
    """Errors of `before` less those of `after` in every segment of an utterance."""
    found: list[int] = []
    open_difference: int | None = None
    good = 0  # right words since the last error
    for place, (one, other) in enumerate(zip(before.at, after.at, strict=True)):
        if one or other:
            if open_difference is not None and good >= GOOD_WORDS:
                found.append(open_difference)
                open_difference = None
            open_difference = (open_difference or 0) + one - other
            good = 0
        elif place % 2:
            good += 1
    if open_difference is not None:
        found.append(open_difference)
    return found


def _interval(samples: np.ndarray) -> tuple[float, float]:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(samples, [tail, 100 - tail])
    return float(low), float(high)
