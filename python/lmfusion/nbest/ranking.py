"""Ranking of n-best lists: the recogniser's score, the language model's, a bonus a word."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lmfusion.nbest.hypothesis import Hypothesis, Utterance
from lmfusion.nbest.reading import NBest, read
from lmfusion.replaced_file import moved_into

if TYPE_CHECKING:
    from lmfusion.scorer import Progress

HYPOTHESES_A_CALL = 2048  # of a file, so that it need not fit into memory


class TextScorer(Protocol):
    """Anything with log p of whole texts: `LMFusionScorer`, `CombinedScorer`."""

    def score_texts(self, texts: Sequence[str]) -> list[float]: ...


@dataclass(frozen=True)
class Ranked:
    """One hypothesis; `Weights.total` has the formula of its total."""

    hypothesis: Any  # as it was given
    text: str
    score: float  # the recogniser's own, nats; -inf where it was missing
    log_prob: float  # of the text, nats
    total: float
    words: int = 0
    index: int = 0  # where it stood in its list
    ngram: float = 0.0  # of another language model, nats


@dataclass(frozen=True)
class Weights:
    """Of the total: (acoustic_weight * score + weight * log p + ngram_weight * ngram
    - rank_weight * place) / words ** length_normalization + word_insertion_bonus * words, the place
    in the list counted from 0: for lists that have an order and no scores."""

    weight: float = 0.3
    word_insertion_bonus: float = 0.0
    acoustic_weight: float = 1.0
    ngram_weight: float = 0.0
    length_normalization: float = 0.0
    rank_weight: float = 0.0

    def total(self, score: float, log_prob: float, words: int, ngram: float = 0.0,
              place: int = 0) -> float:
        """-inf where a part that counts is; 0 * -inf counts as 0. No word counts as one."""
        parts = ((self.acoustic_weight, score), (self.weight, log_prob),
                 (self.ngram_weight, ngram), (-self.rank_weight, place))
        total = sum(weight * part for weight, part in parts if weight)
        if self.length_normalization:
            total /= max(words, 1) ** self.length_normalization
        return total + self.word_insertion_bonus * words

    def ranked(self, utterance: Utterance, log_probs: Iterable[float]) -> list[Ranked]:
        """The hypotheses best first, equal totals in the order given.

        Args:
            log_probs: of every hypothesis, nats; those whose is NaN (not computed) come last.
        """
        rows = [self.row(one, index, log_prob) for index, (one, log_prob)
                in enumerate(zip(utterance.hypotheses, log_probs, strict=True))]
        return sorted(rows, key=lambda row: (math.isnan(row.total),
                                             0.0 if math.isnan(row.total) else -row.total))

    def row(self, one: Hypothesis, index: int, log_prob: float) -> Ranked:
        """A hypothesis, which is at `index` of its list, with its log p, nats."""
        words = len(one.text.split())
        total = self.total(one.score, log_prob, words, one.ngram, index)
        return Ranked(one.given, one.text, one.score, log_prob, total, words, index, one.ngram)


def rank_utterances(utterances: Iterable[Utterance], scorer: TextScorer, weights: Weights,
                    hypotheses_a_call: int | None = None, n: int | None = None,
                    progress: Progress | None = None) -> Iterator[list[Ranked]]:
    """Every utterance's hypotheses best first, equal totals in the order given.

    Args:
        hypotheses_a_call: utterances are scored together up to so many; None: all in one call.
        n: only so many of each; a scorer with a method `best` computes no more than that takes.
        progress: called as progress(done, total) of the hypotheses read so far, as the scorer's
            method calls its own; what it raises ends the call.
    """
    if n is not None and n < 1:
        raise ValueError(f"n = {n}; at least 1 expected")
    before = 0
    for some in batches(utterances, hypotheses_a_call):
        told = _told(progress, before)
        before += sum(len(utterance.hypotheses) for utterance in some)
        if n is not None and hasattr(scorer, "best") and not weights.length_normalization:
            yield from _best(some, scorer, weights, n, told)
            continue
        texts = [hypothesis.text for utterance in some for hypothesis in utterance.hypotheses]
        score: Any = scorer.score_texts
        log_probs = iter(score(texts, **told) if texts else [])
        for utterance in some:
            yield weights.ranked(utterance,
                                 itertools.islice(log_probs, len(utterance.hypotheses)))[:n]


def _told(progress: Progress | None, before: int) -> dict[str, Progress]:
    """The keyword of a scorer's call behind `before` hypotheses; none for who asks for none."""
    if progress is None:
        return {}
    return {"progress": lambda done, total: progress(before + done, before + total)}


def _best(utterances: Sequence[Utterance], scorer: Any, weights: Weights,
          n: int, told: dict[str, Progress]) -> Iterator[list[Ranked]]:
    lists = [[one.text for one in utterance.hypotheses] for utterance in utterances]
    base = [[weights.total(one.score, 0, 0, one.ngram, place)
             for place, one in enumerate(utterance.hypotheses)] for utterance in utterances]
    found = scorer.best(lists, base, weight=weights.weight,
                        word_insertion_bonus=weights.word_insertion_bonus, n=n, **told)
    for utterance, best in zip(utterances, found):
        yield [weights.row(utterance.hypotheses[one.index], one.index, one.log_prob)
               for one in best.best]


def batches(utterances: Iterable[Utterance], most: int | None) -> Iterator[list[Utterance]]:
    """Whole utterances together until they have so many hypotheses; None: all at once."""
    batch: list[Utterance] = []
    size = 0
    for utterance in utterances:
        batch.append(utterance)
        size += len(utterance.hypotheses)
        if most is not None and size >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def rank(nbests: Any, scorer: TextScorer, *, weight: float = 0.3,
         word_insertion_bonus: float = 0.0, acoustic_weight: float = 1.0, n: int | None = None,
         progress: Progress | None = None, **reading: Any) -> list[list[Ranked]]:
    """Every utterance's hypotheses with their parts, best first; equal totals keep their order.

    Args:
        nbests: any shape that `read` knows, such as a list of lists of hypotheses.
        scorer: asked once, for the texts of all utterances (of a file: some at a time).
        weight, word_insertion_bonus, acoustic_weight: of the total.
        n: only so many of each utterance, for less work (`LMFusionScorer.best`); None: all.
        progress: called as progress(done, total), of the hypotheses read so far.
        reading: of `read`, such as missing="last".

    Raises:
        ValueError: as `read`; n below 1.
    """
    document = read(nbests, **reading)
    weights = Weights(weight, word_insertion_bonus, acoustic_weight)
    return list(rank_utterances(document, scorer, weights, _batch_size(document), n,
                                progress))


def rescore(nbest: Any, scorer: TextScorer, *, weight: float = 0.3,
            word_insertion_bonus: float = 0.0, acoustic_weight: float = 1.0,
            n: int | None = None, output: str | Path | None = None,
            parts: list[list[Ranked]] | None = None, progress: Progress | None = None,
            **reading: Any) -> Any:
    """What was given, every utterance's hypotheses best first; utterances keep their places.

    Args:
        nbest: any shape that `read` knows. What is in memory is not changed.
        scorer: asked once (of a file: some utterances at a time).
        weight, word_insertion_bonus, acoustic_weight: of the total.
        n: only so many are ranked, for less work (`LMFusionScorer.best`); the others follow in the
            order given, without parts. None: all.
        output: of a file or folder, where to write the same shape, whole files or none; beside
            it, OUTPUT.parts.tsv has utterance, rank, score, log p, words, total and text of every
            hypothesis.
        parts: a list to which every utterance's `Ranked` hypotheses are added.
        progress: called as progress(done, total), of the hypotheses read so far.
        reading: of `read`, such as missing="last".

    Returns:
        The document, or `output`.

    Raises:
        ValueError: as `read`; a path without `output`.
    """
    document = read(nbest, **reading)
    if document.is_file and output is None:
        raise ValueError(f"{nbest} is a path: give output=, where to write the ranked "
                         f"{document.shape}")
    weights = Weights(weight, word_insertion_bonus, acoustic_weight)
    utterances, named, sized = itertools.tee(document, 3)
    ranked = rank_utterances(utterances, scorer, weights, _batch_size(document), n, progress)
    if parts is not None:
        ranked = _kept(ranked, parts)
    if output is None:
        return document.rebuilt(iter(list(orders_of(ranked, sized))))  # read whole, then rebuilt
    output = Path(output)
    document.must_not_be(output)
    write_ranked(document, zip(named, ranked), output, sized)
    return output


def write_ranked(document: NBest, ranked: Iterable[tuple[Utterance, list[Ranked]]], output: Path,
                 utterances: Iterable[Utterance] | None = None) -> None:
    """Writes what was read in a new order, and OUTPUT.parts.tsv beside it; both whole or none.

    Args:
        ranked: every utterance with what was ranked of it.
        utterances: as of `orders_of`.
    """
    with (moved_into(output.parent) as folder,
          open(folder / f"{output.name}.parts.tsv", "w", encoding="utf-8") as file):
        document.write(orders_of(_with_parts(ranked, file), utterances), folder / output.name)


def _batch_size(document: NBest) -> int | None:
    return HYPOTHESES_A_CALL if document.is_file else None


def orders_of(ranked: Iterable[list[Ranked]],
              utterances: Iterable[Utterance] | None = None) -> Iterator[list[int]]:
    """Indices of the hypotheses as they were ranked; of `utterances`, those that were not follow in
    the order given."""
    whole = itertools.repeat(None) if utterances is None else utterances
    for rows, utterance in zip(ranked, whole):
        order = [row.index for row in rows]
        rest = set(range(len(utterance.hypotheses) if utterance else 0)) - set(order)
        yield order + sorted(rest)


def _kept(ranked: Iterable[list[Ranked]], parts: list[list[Ranked]]) -> Iterator[list[Ranked]]:
    for rows in ranked:
        parts.append(rows)
        yield rows


def _with_parts(pairs: Iterable[tuple[Utterance, list[Ranked]]],
                file: Any) -> Iterator[list[Ranked]]:
    """Writes the parts, with their names first, as the ranked lists pass."""
    file.write("utterance\trank\tscore\tlog_prob\twords\ttotal\ttext\n")
    for number, (utterance, rows) in enumerate(pairs):
        name = utterance.name or str(number)
        for place, row in enumerate(rows, 1):
            text = " ".join(row.text.split())
            file.write(f"{name}\t{place}\t{row.score:.6g}\t{row.log_prob:.6g}\t{row.words}\t"
                       f"{row.total:.6g}\t{text}\n")
        yield rows
