"""The best weights and text form over saved parts: a grid, every point of which is tried.

A total's order does not change with its scale, so the acoustic weight is 1 (or 0, where the
language model decides alone) and the others are relative to it. Their steps follow from the data:
a language model's weight is a ratio of what both parts differ by within a list, from 1/30 to 30;
a bonus is in the same unit. Lists that have an order and no scores are taken as scored by their
order: the place in the list, from 0, counts against a hypothesis (`rank_weight`).

With few utterances one point that is better than all around it is chance, so a point counts with
the mean of its neighbours in weight and bonus.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmfusion.nbest.ranking import Weights
from lmfusion.tuning.parts import Parts
from lmfusion.tuning.settings import Settings
from lmfusion.tuning.text_form import TextForm

RATIOS = (0.0, *(float(ratio) for ratio in np.logspace(-1.5, 1.5, 21)), float("inf"))
BONUSES = tuple(float(np.sign(step) * step * step) for step in np.linspace(-1.2, 1.2, 21))
NORMALIZATIONS = (0.0, 0.5, 1.0)
NGRAM_RATIOS = (0.0, 0.25, 0.5, 1.0, 2.0)
NEIGHBOURS = 1  # steps to either side
FOLDS = 5


@dataclass(frozen=True)
class Plane:
    """All ratios and bonuses of one form, normalisation and n-gram weight.

    Attributes:
        acoustic, weight: [ratios] of the total.
        bonus: [ratios, bonuses].
        errors: [ratios, bonuses, folds].
    """

    form: TextForm
    normalization: float
    ngram: float
    acoustic: np.ndarray
    weight: np.ndarray
    bonus: np.ndarray
    errors: np.ndarray
    by_rank: bool = False  # the order of the lists stands for their scores

    def weights(self, ratio: int, bonus: int) -> Weights:
        """Of one point."""
        acoustic = float(self.acoustic[ratio])
        return Weights(weight=float(self.weight[ratio]),
                       word_insertion_bonus=float(self.bonus[ratio, bonus]),
                       acoustic_weight=0.0 if self.by_rank else acoustic, ngram_weight=self.ngram,
                       length_normalization=self.normalization,
                       rank_weight=acoustic if self.by_rank else 0.0)


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        settings: the best on all utterances.
        chosen: [utterances] the places that these choose.
        held_out: [utterances] the places chosen by the settings that are best on the other folds.
        by_form: the same held-out places of every form alone.
        plane: where the best settings lie, for a picture.
        points: how many were tried. seconds: how long that took.
    """

    settings: Settings
    chosen: np.ndarray
    held_out: np.ndarray
    by_form: dict[TextForm, np.ndarray]
    plane: Plane
    best: tuple[int, int]
    points: int
    seconds: float


def tune(parts: Parts, *, folds: int = FOLDS, seed: int = 0,
         normalizations: Sequence[float] = NORMALIZATIONS,
         advance: Callable[[int], None] = lambda count: None) -> Tuned:
    """Tries every point, over all utterances and with each fold left out.

    Args:
        parts: with the log_probs of every form to try.
        folds: into which utterances are dealt at random.
        advance: called with the number of points of every plane.

    Raises:
        ValueError: fewer utterances than folds, or fewer than 2 folds.
    """
    count = len(parts.names)
    if folds < 2 or count < folds:
        raise ValueError(f"{count} utterances in {folds} folds: at least 2 folds, and as many "
                         "utterances, expected")
    fold_of = np.random.default_rng(seed).permutation(count) % folds
    begin = time.perf_counter()
    planes = []
    for plane in _planes(parts, fold_of, folds, normalizations):
        planes.append(plane)
        advance(plane.bonus.size)
    everything = list(range(folds))
    plane, best = _best(planes, everything)
    seconds = time.perf_counter() - begin
    settings = Settings(plane.weights(*best), plane.form)
    return Tuned(settings, choose(parts, settings), _held_out(parts, planes, fold_of, folds),
                 {form: _held_out(parts, [each for each in planes if each.form == form], fold_of,
                                  folds) for form in parts.log_probs},
                 plane, best, sum(each.bonus.size for each in planes), seconds)


def choose(parts: Parts, settings: Settings) -> np.ndarray:
    """[utterances] the place of the hypothesis with the highest total, the first of equal ones."""
    totals = _totals(parts, settings)
    return np.asarray(totals.argmax(axis=1))


def _totals(parts: Parts, settings: Settings) -> np.ndarray:
    weights = settings.weights
    total = sum(weight * part for weight, part in (
        (weights.acoustic_weight, parts.score), (weights.weight, parts.log_probs[settings.form]),
        (weights.ngram_weight, parts.ngram), (weights.rank_weight, _order(parts))) if weight)
    total = total / _lengths(parts, weights.length_normalization)
    total = total + weights.word_insertion_bonus * parts.words
    return np.where(parts.there, total, -np.inf)


def _order(parts: Parts) -> np.ndarray:
    """0, -1, -2, ...: the order of every list as if it were scores."""
    return np.broadcast_to(-np.arange(parts.there.shape[1], dtype=float), parts.there.shape)


def _lengths(parts: Parts, normalization: float) -> np.ndarray:
    return np.asarray(np.maximum(parts.words, 1) ** normalization)


def _held_out(parts: Parts, planes: list[Plane], fold_of: np.ndarray, folds: int) -> np.ndarray:
    chosen = np.zeros(len(fold_of), dtype=np.int64)
    for fold in range(folds):
        plane, best = _best(planes, [each for each in range(folds) if each != fold])
        settings = Settings(plane.weights(*best), plane.form)
        chosen[fold_of == fold] = choose(parts, settings)[fold_of == fold]
    return chosen


def _best(planes: list[Plane], folds: list[int]) -> tuple[Plane, tuple[int, int]]:
    """The point around which errors are fewest, the plainest of equal ones."""
    found = []
    for plane in planes:
        errors = plane.errors[:, :, folds].sum(axis=2).astype(float)
        padded = np.pad(errors, NEIGHBOURS, mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(padded, (2 * NEIGHBOURS + 1,) * 2)
        smooth = around.mean(axis=(2, 3))
        ratio, bonus = np.unravel_index(int((smooth + 1e-6 * errors).argmin()), smooth.shape)
        found.append((float(smooth[ratio, bonus]), plane, (int(ratio), int(bonus))))
    _, plane, best = min(found, key=lambda each: each[0])
    return plane, best


def _planes(parts: Parts, fold_of: np.ndarray, folds: int,
            normalizations: Sequence[float]) -> Iterator[Plane]:
    membership = np.eye(folds, dtype=np.int64)[fold_of]  # [utterances, folds]
    by_rank = _spread(_finite(parts.score, parts.there), parts.there) == 0
    scores = _order(parts) if by_rank else parts.score
    for form, log_probs in parts.log_probs.items():
        for normalization in normalizations:
            lengths = _lengths(parts, normalization)
            score, log_prob, ngram = (_finite(part / lengths, parts.there)
                                      for part in (scores, log_probs, parts.ngram))
            spread = [_spread(part, parts.there) for part in (score, log_prob, ngram)]
            for ngram_ratio in NGRAM_RATIOS if spread[2] else (0.0,):
                ngram_weight = ngram_ratio * (spread[0] or 1.0) / (spread[2] or 1.0)
                yield _plane(parts, Plane(form, normalization, ngram_weight, *_grid(
                    spread, _spread(parts.words, parts.there)), np.zeros(0), by_rank),
                             score, log_prob, ngram, membership)


def _grid(spread: list[float], word_spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Acoustic weights and weights [ratios], bonuses [ratios, bonuses]."""
    scale = (spread[0] or 1.0) / (spread[1] or 1.0)
    ratios = np.array([0.0, *RATIOS[-1:]] if not spread[0] else RATIOS)
    alone = np.isinf(ratios)
    acoustic = np.where(alone, 0.0, 1.0)
    weight = np.where(alone, 1.0, np.where(alone, 0.0, ratios) * scale)
    unit = (acoustic * spread[0] + weight * spread[1]) / (word_spread or 1.0)
    return acoustic, weight, unit[:, None] * np.array(BONUSES)[None, :]


def _plane(parts: Parts, plane: Plane, score: np.ndarray, log_prob: np.ndarray,
           ngram: np.ndarray, membership: np.ndarray) -> Plane:
    """With its errors."""
    errors = np.zeros((*plane.bonus.shape, membership.shape[1]), dtype=np.int64)
    nothing = parts.reference_words * ~parts.there.any(axis=1)  # of empty lists
    for ratio, (acoustic, weight) in enumerate(zip(plane.acoustic, plane.weight)):
        base = acoustic * score + weight * log_prob + plane.ngram * ngram
        base = np.where(parts.there, base, -np.inf)
        totals = base[None] + plane.bonus[ratio][:, None, None] * parts.words[None]
        chosen = totals.argmax(axis=2)  # [bonuses, utterances]
        made = np.take_along_axis(parts.errors, chosen.T, axis=1).T + nothing
        errors[ratio] = made @ membership
    return replace(plane, errors=errors)


def _spread(part: np.ndarray, there: np.ndarray) -> float:
    """The mean over lists of the deviation within them."""
    counts = there.sum(axis=1)
    some = counts > 1
    if not some.any():
        return 0.0
    part, there, counts = part[some], there[some], counts[some]
    mean = (part * there).sum(axis=1) / counts
    deviations = np.sqrt((((part - mean[:, None]) ** 2) * there).sum(axis=1) / counts)
    found = float(deviations.mean())
    return found if found > 1e-9 else 0.0


def _finite(part: np.ndarray, there: np.ndarray) -> np.ndarray:
    """-infinity as a number below all others, so that 0 times it is 0."""
    lowest = part[there & np.isfinite(part)].min(initial=0.0)
    return np.where(np.isfinite(part), part, 10 * lowest - 1e4)
