"""Rescoring of n-best lists: plain lists, and the shapes of NeMo, ESPnet and Whisper."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

TEXT_FIELDS = ("text", "pred_text", "rec_text", "transcript")
SCORE_FIELDS = ("score", "am_score", "log_prob", "avg_logprob")


class TextScorer(Protocol):
    """Anything with log p of whole texts: `LMFusionScorer`, `CombinedScorer`."""

    def score_texts(self, texts: Sequence[str]) -> list[float]: ...


@dataclass(frozen=True)
class Ranked:
    """One hypothesis: total = acoustic score + weight * log p(text) + bonus * words."""

    hypothesis: Any  # as it was given
    text: str
    score: float  # the recogniser's own, as it was given; 0 where it gave none
    log_prob: float  # of the text, nats
    total: float


def rank(nbests: Sequence[Sequence[Any]], scorer: TextScorer, *, weight: float = 0.3,
         word_insertion_bonus: float = 0.0, acoustic_weight: float = 1.0) -> list[list[Ranked]]:
    """Every list with its scores, best first; equal totals keep their order.

    Args:
        nbests: [utterances][hypotheses]. A hypothesis is a text, a pair (text, score), a mapping
            or an object with one of TEXT_FIELDS and, if it has a score, one of SCORE_FIELDS; a
            Whisper result's score is the sum over its segments of avg_logprob * tokens.
        scorer: asked once, for the texts of all lists.
        weight, word_insertion_bonus, acoustic_weight: of the total.

    Raises:
        ValueError: a hypothesis has no text.
    """
    texts = [[_text(hypothesis) for hypothesis in nbest] for nbest in nbests]
    log_probs = iter(scorer.score_texts([text for nbest in texts for text in nbest]))
    ranked = []
    for nbest, nbest_texts in zip(nbests, texts):
        rows = []
        for hypothesis, text in zip(nbest, nbest_texts):
            score, log_prob = _score(hypothesis), next(log_probs)
            total = (acoustic_weight * score + weight * log_prob
                     + word_insertion_bonus * len(text.split()))
            rows.append(Ranked(hypothesis, text, score, log_prob, total))
        ranked.append(sorted(rows, key=lambda row: -row.total))
    return ranked


def rescore(nbest: Any, scorer: TextScorer, **options: float) -> Any:
    """What was given, its hypotheses best first.

    Args:
        nbest: a list of hypotheses (see `rank`); NeMo's object with `n_best_hypotheses`, or a list
            of them; a mapping with "nbest" or "hypotheses", or a list of them; ESPnet's
            {"utts": {name: {"output": [...]}}}. Mappings are copied, NeMo's objects too.
        scorer: asked once.
        options: of `rank`.
    """
    result = copy.copy(nbest) if isinstance(nbest, list) else copy.deepcopy(nbest)
    if isinstance(result, list) and result and all(_holds_lists(item) for item in result):
        result = copy.deepcopy(result)
    lists = list(_lists(result))
    for hypotheses, ranked in zip(lists, rank(lists, scorer, **options)):
        hypotheses[:] = [row.hypothesis for row in ranked]
    return result


def _holds_lists(item: Any) -> bool:
    return (hasattr(item, "n_best_hypotheses")
            or (isinstance(item, Mapping) and ("nbest" in item or "hypotheses" in item)))


def _lists(document: Any) -> Iterator[list[Any]]:
    if isinstance(document, list):
        if document and all(_holds_lists(item) for item in document):
            for item in document:
                yield from _lists(item)
        else:
            yield document
    elif hasattr(document, "n_best_hypotheses"):
        yield document.n_best_hypotheses
    elif isinstance(document, Mapping) and "utts" in document:
        for utterance in document["utts"].values():
            yield utterance["output"]
    elif isinstance(document, Mapping) and _holds_lists(document):
        yield document["nbest"] if "nbest" in document else document["hypotheses"]
    else:
        raise ValueError(f"a {type(document).__name__} is not an n-best list of a known shape; "
                         "give a list of hypotheses")


def _field(hypothesis: Any, names: Sequence[str]) -> Any:
    for name in names:
        value = (hypothesis.get(name) if isinstance(hypothesis, Mapping)
                 else getattr(hypothesis, name, None))
        if value is not None:
            return value
    return None


def _text(hypothesis: Any) -> str:
    if isinstance(hypothesis, str):
        return hypothesis
    text = hypothesis[0] if isinstance(hypothesis, tuple) else _field(hypothesis, TEXT_FIELDS)
    if not isinstance(text, str):
        raise ValueError(f"the hypothesis {hypothesis!r} has no text; one of "
                         f"{', '.join(TEXT_FIELDS)} expected")
    return text.strip()


def _score(hypothesis: Any) -> float:
    if isinstance(hypothesis, str):
        return 0.0
    if isinstance(hypothesis, tuple):
        return float(hypothesis[1]) if len(hypothesis) > 1 else 0.0
    if isinstance(hypothesis, Mapping) and "segments" in hypothesis:
        return sum(segment["avg_logprob"] * max(1, len(segment.get("tokens", ())))
                   for segment in hypothesis["segments"])
    score = _field(hypothesis, SCORE_FIELDS)
    return 0.0 if score is None else float(score)
