"""The recogniser's own lattices: the best path of each, beside the best text of its list."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pocketsphinx

from lmfusion import LMFusionScorer
from lmfusion.demo.rescoring import Weights
from lmfusion.demo.utterances import Utterance
from lmfusion.demo.workloads import warm_up
from lmfusion.lattice import Lattice, with_ngram
from lmfusion.lattice.pocketsphinx import ngram_of, read

NGRAM_WEIGHT = 9.5  # PocketSphinx's bestpathlw, the weight of its own n-gram
TOKENS_A_LATTICE = 500  # on average: a misheard sentence may have no likely path at all


@dataclass(frozen=True)
class BestPaths:
    """What the searches found, all together."""

    texts: list[str]  # "" where nothing was recognised
    log_probs: list[float]  # nats, with a full stop
    proven: int
    seconds: float
    tokens: int


def read_lattices(utterances: Iterable[Utterance]) -> Iterator[Lattice | None]:
    """PocketSphinx's lattices with the scores of its n-gram model; None: nothing was recognised.

    One by one, since every node is there once for each history: a sentence has 200,000 arcs, which
    take 10 MB.
    """
    log_prob = ngram_of(pocketsphinx.Decoder(loglevel="FATAL"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "utterance.lat")
        for utterance in utterances:
            path.write_text(utterance.recognition.lattice, encoding="utf-8")
            yield (with_ngram(next(read(path)), log_prob)
                   if utterance.recognition.lattice else None)


def best_paths(model: Path, lattices: Iterable[Lattice | None], weights: Weights) -> BestPaths:
    """The best path of every lattice, all scores weighed as in the lists."""
    scorer = LMFusionScorer(str(model), weight=1.0, casing="sentence")
    warm_up(scorer)
    every = list(lattices)
    heard = [lattice for lattice in every if lattice is not None]
    scorer.clear_cache()
    scorer.reset_stats()
    begin = time.perf_counter()
    found = iter(scorer.best_paths(
        heard, weight=weights.weight, word_insertion_bonus=weights.word_insertion_bonus,
        ngram_weight=NGRAM_WEIGHT, endings=["."], max_tokens=TOKENS_A_LATTICE * len(heard)))
    seconds = time.perf_counter() - begin
    results = [None if lattice is None else next(found) for lattice in every]
    return BestPaths([one.paths[0].text if one else "" for one in results],
                     [one.paths[0].log_prob if one else 0.0 for one in results],
                     sum(one is None or one.proven for one in results), seconds,
                     scorer.stats().tokens_computed)
