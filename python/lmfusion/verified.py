"""A cheap model first, an exact one for what is near the top: `Verified`, and its margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lmfusion import _core
from lmfusion.errors import CalibrationError
from lmfusion.scorer import LMFusionScorer, Progress

_OF_SCORES = ("compute", "device", "casing", "boundary", "bos", "join", "special_tokens",
              "max_context_length")


@dataclass(frozen=True)
class Margin:
    """How far behind the best of a cheap scorer the best of an exact one may be.

    Of lists like those that were measured, at least the share `agreement` has all its n best within
    `nats`: so says `calibrate`, which is wrong with a probability of at most 1 - `confidence`.
    """

    nats: float  # of log p
    agreement: float
    confidence: float
    lists: int  # that were measured
    # What it was measured for; another of these needs a margin of its own.
    weight: float
    word_insertion_bonus: float
    n: int
    cheap: str
    exact: str


class Verified:
    """Best texts by an exact scorer, which is asked for what a cheap one puts near the top only.

    The numbers of the texts returned are the exact scorer's own. That no other text is better is as
    sure as the margin is; where a text was left by the margin alone, its bound and the gap of its
    list are inf. Goes where a scorer goes that is asked for the best: `nbest.rank(..., n=)`,
    `nbest.rescore(..., n=)`. Both models are in memory (docs/verify.md).

    Args:
        cheap: the same model with compute="int8" or "bfloat16", or a smaller one.
        exact: the scorer whose answer is wanted.
        margin: of `calibrate`, or a number of nats that claims nothing. inf: `cheap` is not asked.

    Raises:
        CalibrationError: the margin was measured for other scorers.
        ValueError: it is NaN or below 0.
    """

    __slots__ = ("cheap", "exact", "margin")

    def __init__(self, cheap: LMFusionScorer, exact: LMFusionScorer,
                 margin: Margin | float) -> None:
        if isinstance(margin, Margin):
            for role, scorer in (("cheap", cheap), ("exact", exact)):
                if name_of(scorer) != getattr(margin, role):
                    raise CalibrationError(
                        f"the margin was measured with {getattr(margin, role)} as the {role} "
                        f"scorer, not with {name_of(scorer)}; measure it again (calibrate)")
        elif not margin >= 0:
            raise ValueError(f"margin = {margin!r}; 0 nats or more expected")
        self.cheap, self.exact, self.margin = cheap, exact, margin

    def __repr__(self) -> str:
        return f"Verified({self.cheap!r}, {self.exact!r}, margin={self.margin!r})"

    def best(self, lists: Sequence[Sequence[str]],
             base_scores: Sequence[Sequence[float]] | None = None, *,
             weight: float | None = None, word_insertion_bonus: float | None = None, n: int = 1,
             gap: float = 0.0, within: float = 0.0, eos: bool = False,
             deadline: float | None = None, context: str | Sequence[str] = (), prompt: str = "",
             cache_namespace: str = "",
             progress: Progress | None = None) -> list[_core.BestList]:
        """As `LMFusionScorer.best`, by the exact scorer among what the cheap one puts near the top.

        Weights that are not given are the exact scorer's. `gap` and `within` are for it alone.
        `progress` is told of the cheap search, then anew of the exact one.

        Raises:
            CalibrationError: the margin was measured for other weights or another n.
        """
        cheap = self.cheap
        cheap.weight  # noqa: B018  (an Error if it is closed)
        nats = self.margin
        if isinstance(nats, Margin):
            _check_use(nats, n=n, weight=self.exact.weight if weight is None else weight,
                       word_insertion_bonus=(self.exact.word_insertion_bonus
                                             if word_insertion_bonus is None
                                             else word_insertion_bonus))
            nats = nats.nats
        return self.exact._core.best(lists, base_scores, weight, word_insertion_bonus, n, gap,
                                     within, eos, deadline, cache_namespace, context, prompt,
                                     progress, cheap._core, nats)

    def score_texts(self, texts: Sequence[str], *, eos: bool = False, cache_namespace: str = "",
                    progress: Progress | None = None) -> list[float]:
        """log p of every text, nats, by the exact scorer: nothing is saved."""
        return self.exact.score_texts(texts, eos=eos, cache_namespace=cache_namespace,
                                      progress=progress)


def calibrate(cheap: LMFusionScorer, exact: LMFusionScorer, lists: Sequence[Sequence[str]],
              base_scores: Sequence[Sequence[float]] | None = None, *,
              weight: float | None = None, word_insertion_bonus: float | None = None, n: int = 1,
              agreement: float = 0.999, confidence: float = 0.95) -> Margin:
    """The margin that keeps the exact scorer's n best for a share of lists like these.

    All texts are scored by both. The margin is an order statistic of what each list needed, so it
    supposes nothing of how errors are distributed; that the lists are drawn as later ones will be,
    one independently of the other, it does suppose.

    Args:
        lists, base_scores, weight, word_insertion_bonus, n: as for `best`; the weights must be
            those that `Verified.best` will be asked with.
        agreement: share of lists whose n best are kept, at least; between 0 and 1.
        confidence: of that statement; between 0 and 1.

    Raises:
        CalibrationError: too few lists for the statement (the text says how many it takes), or
            a weight of 0, under which no scorer is asked.
        ValueError: other shapes, or a share that is not between 0 and 1.
    """
    weight = exact.weight if weight is None else weight
    if word_insertion_bonus is None:
        word_insertion_bonus = exact.word_insertion_bonus
    if weight == 0:
        raise CalibrationError("weight = 0: the models do not count, so there is no margin")
    above = most_above(len(lists), agreement, confidence)
    needed = sorted(needed_margins(cheap, exact, lists, base_scores, weight=weight,
                                   word_insertion_bonus=word_insertion_bonus, n=n))
    return Margin(needed[len(needed) - 1 - above], agreement, confidence, len(lists), weight,
                  word_insertion_bonus, n, name_of(cheap), name_of(exact))


def needed_margins(cheap: LMFusionScorer, exact: LMFusionScorer, lists: Sequence[Sequence[str]],
                   base_scores: Sequence[Sequence[float]] | None = None, *, weight: float,
                   word_insertion_bonus: float, n: int = 1) -> list[float]:
    """[lists] of the least margin, nats, that keeps the exact scorer's n best; 0 for no texts."""
    guessed, right = (scorer.best(lists, base_scores, weight=weight, n=n, within=math.inf,
                                  word_insertion_bonus=word_insertion_bonus)
                      for scorer in (cheap, exact))
    needed = []
    for by_cheap, by_exact in zip(guessed, right):
        totals = {one.index: one.total for one in [*by_cheap.best, *by_cheap.beaten]}
        nth = min((one.total for one in by_cheap.best), default=0.0)
        least = min((totals[one.index] for one in by_exact.best), default=0.0)
        needed.append(0.0 if nth == least else (nth - least) / abs(weight))
    return needed


def most_above(lists: int, agreement: float, confidence: float) -> int:
    """How many of the lists measured may need more than the margin.

    If more than the share 1 - agreement of all lists needed more, so few of those measured would
    with a probability of at most 1 - confidence (binomial).
    """
    for name, share in (("agreement", agreement), ("confidence", confidence)):
        if not 0 < share < 1:
            raise ValueError(f"{name} = {share!r}; a share between 0 and 1 expected")
    log_miss, log_keep = math.log1p(-agreement), math.log(agreement)
    most, probability = -1, 0.0
    for above in range(lists):
        probability += math.exp(math.lgamma(lists + 1) - math.lgamma(above + 1)
                                - math.lgamma(lists - above + 1) + above * log_miss
                                + (lists - above) * log_keep)
        if probability > 1 - confidence:
            break
        most = above
    if most < 0:
        wanted = math.ceil(math.log1p(-confidence) / log_keep)
        shown = f"; {lists:,} can show {(1 - confidence) ** (1 / lists):.4f}" if lists else ""
        raise CalibrationError(f"an agreement of {agreement} with confidence {confidence} takes "
                               f"{wanted:,} lists, {lists:,} given{shown}")
    return most


def _check_use(margin: Margin, **use: Any) -> None:
    for name, value in use.items():
        if getattr(margin, name) != value:
            raise CalibrationError(f"the margin was measured for {name} = {getattr(margin, name)}, "
                                   f"not for {value}; measure it again (calibrate)")


def name_of(scorer: LMFusionScorer) -> str:
    """The model and the options that scores depend on, as a margin remembers them."""
    options = scorer.options
    model = str(scorer.description.get("weights_sha256", "a model without a description"))[:16]
    return " ".join([model, *(f"{name}={options[name]!r}" for name in _OF_SCORES
                              if not callable(options[name]))])
