"""`best_paths`: lattices, scorer and weights in; best paths, and what is proven of them, out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmfusion.arguments import check_progress
from lmfusion.lattice.alignment import Alignment
from lmfusion.lattice.hypotheses import Hypothesis
from lmfusion.lattice.labels import WordRule, word_of
from lmfusion.lattice.lattice import Arc, Lattice
from lmfusion.lattice.rounds import LanguageModel, Reports, run
from lmfusion.lattice.search import Limits, Search, Work
from lmfusion.lattice.word_graph import Scales, WordGraph
from lmfusion.state import join_of

if TYPE_CHECKING:
    from lmfusion.combined import CombinedScorer
    from lmfusion.scorer import LMFusionScorer, Progress


@dataclass(frozen=True, slots=True)
class Path:
    """One text of a lattice, by the path that says it with the best acoustic and n-gram score.

    total = acoustic_scale * acoustic + ngram_weight * ngram + weight * log_prob + bonus * words
    """

    text: str
    words: tuple[str, ...]
    total: float
    log_prob: float  # of the text, and its ending where asked for, nats; 0 where the weight is 0
    acoustic: float  # nats, as the ngram
    ngram: float
    arcs: tuple[Arc, ...]


@dataclass(frozen=True, slots=True)
class BestPaths:
    """What a search found.

    Attributes:
        paths: texts, best first; equal totals by their words.
        proven: whether these are the best of all paths, in this order.
        gap: no other text's total is higher than that of the last of `paths` by more; 0 where
            proven; inf where the model gave a log-probability above 0, so that no bound holds.
        work: counters of the search.
    """

    paths: list[Path]
    proven: bool
    gap: float
    work: Work


def best_paths(scorer: LMFusionScorer | CombinedScorer, lattices: Iterable[Lattice], *, n: int,
               weight: float, word_insertion_bonus: float | None, acoustic_scale: float,
               ngram_weight: float, words: WordRule | None, endings: Sequence[str],
               paths_a_call: int | None, max_tokens: int | None, deadline: float | None, gap: float,
               progress: Progress | None, **before: Any) -> list[BestPaths]:
    """`LMFusionScorer.best_paths`, which describes the arguments; `before`: context, prompt and
    namespace."""
    limits = Limits(n, paths_a_call, max_tokens, deadline, gap)
    check_progress(progress)
    if word_insertion_bonus is None:
        word_insertion_bonus = scorer.word_insertion_bonus
    _check(weight, word_insertion_bonus, acoustic_scale, ngram_weight, endings)
    scales = Scales(acoustic_scale, ngram_weight, word_insertion_bonus)
    rule = words or word_of
    kept: list[Lattice] = []

    def searches() -> Iterator[Search]:
        for lattice in lattices:
            if not isinstance(lattice, Lattice):
                raise TypeError(f"lattices[{len(kept)}]: {type(lattice).__name__} found; a Lattice "
                                "expected, of lmfusion.lattice.read")
            kept.append(lattice)
            yield Search(WordGraph(lattice, scales, rule), weight=weight,
                         bonus=word_insertion_bonus, join=join_of(scorer),
                         scores_endings=bool(endings), limits=limits)

    found = run(searches(), LanguageModel(scorer, list(endings), before), limits, Reports(progress))
    return [_result(search, Alignment(lattice, scales, rule), lattice)
            for search, lattice in zip(found, kept)]


def _result(search: Search, alignment: Alignment, lattice: Lattice) -> BestPaths:
    gap = max(0.0, search.bound - search.best[-1].bound)
    if search.is_proven or not search.sound:
        gap = 0.0 if search.is_proven else math.inf
    return BestPaths([_path(one, lattice, alignment) for one in search.best],
                     search.is_proven, gap, search.work)


def _path(whole: Hypothesis, lattice: Lattice, alignment: Alignment) -> Path:
    arcs, end = alignment.arcs_of(whole.words)
    acoustic, ngram = lattice.finals[end]
    return Path(whole.text, whole.words, whole.bound, whole.log_prob,
                acoustic + math.fsum(arc.acoustic for arc in arcs),
                ngram + math.fsum(arc.ngram for arc in arcs), tuple(arcs))


def _check(weight: float, bonus: float, acoustic_scale: float, ngram_weight: float,
           endings: Sequence[str]) -> None:
    for name, value in (("weight", weight), ("acoustic_scale", acoustic_scale),
                        ("ngram_weight", ngram_weight)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} = {value!r}; a finite number of at least 0 expected")
    if not math.isfinite(bonus):
        raise ValueError(f"word_insertion_bonus = {bonus!r}; a finite number expected")
    if isinstance(endings, str):
        raise ValueError('endings is one text; a list expected, as (".", "?")')
    for index, ending in enumerate(endings):
        for other in endings[:index]:
            if ending == other or (ending and other and (ending.startswith(other)
                                                        or other.startswith(ending))):
                raise ValueError(f"endings[{index}] begins another ending, or with it, so that a "
                                 "text could end in both at once")
