"""The scorer's methods as requests: what each takes, how much it asks, and its call.

Every class is the JSON object of one path, with the arguments of the method of the same name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from lmfusion.scorer import LMFusionScorer

Number = Annotated[float, Field(strict=False)]  # "-Infinity" too
Floors = Number | list[list[Number]]


class Call(BaseModel):
    """What every call has."""

    model_config = ConfigDict(extra="forbid", strict=True)

    cache_namespace: str = Field("", max_length=256)

    def candidates(self) -> int:
        """How many words or texts it asks for."""
        raise NotImplementedError

    def run(self, scorer: LMFusionScorer, namespace: str, waited: float) -> Any:
        """Calls the scorer.

        Args:
            namespace: of the cache, made of the caller's name and `cache_namespace`.
            waited: seconds that the call spent in the queue, which its deadline counts.
        """
        raise NotImplementedError


class LogProbs(Call):
    """/log_probs: nats, unweighted."""

    contexts: list[str]
    candidate_words: list[list[str]]
    floor: Floors | None = None
    deadline: Number | None = None

    def candidates(self) -> int:
        return max(len(self.contexts), sum(map(len, self.candidate_words)))

    def left(self, waited: float) -> float | None:
        """Seconds of the deadline that are left."""
        return None if self.deadline is None else self.deadline - waited

    def run(self, scorer: LMFusionScorer, namespace: str, waited: float) -> Any:
        return scorer.log_probs(self.contexts, self.candidate_words, floor=self.floor,
                                deadline=self.left(waited), cache_namespace=namespace)


class ScoreContinuations(LogProbs):
    """/score_continuations: weight * log p + bonus, by default the scorer's own."""

    weight: Number | None = None
    word_insertion_bonus: Number | None = None

    def run(self, scorer: LMFusionScorer, namespace: str, waited: float) -> Any:
        weight = scorer.weight if self.weight is None else self.weight
        bonus = (scorer.word_insertion_bonus if self.word_insertion_bonus is None
                 else self.word_insertion_bonus)
        log_probs = scorer.log_probs(
            self.contexts, self.candidate_words, floor=_unweighted(self.floor, weight, bonus),
            deadline=self.left(waited), cache_namespace=namespace)
        return [[None if log_prob is None else -math.inf if log_prob == -math.inf
                 else weight * log_prob + bonus for log_prob in row] for row in log_probs]


def _unweighted(floor: Floors | None, weight: float, bonus: float) -> Floors | None:
    """The floor of log p that a floor of the score stands for."""
    if floor is None:
        return None
    if not weight > 0:
        raise ValueError(f"floors need a weight above 0, and weight = {weight!r}")
    if isinstance(floor, list):
        return [[(each - bonus) / weight for each in row] for row in floor]
    return (floor - bonus) / weight


class _Texts(Call):
    texts: list[str]

    def candidates(self) -> int:
        return len(self.texts)


class ScoreTexts(_Texts):
    """/score_texts: nats."""

    eos: bool = False

    def run(self, scorer: LMFusionScorer, namespace: str, waited: float) -> Any:
        return scorer.score_texts(self.texts, eos=self.eos, cache_namespace=namespace)


class ScoreTextsBatch(_Texts):
    """/score_texts_batch: nats of texts as they are given, without casing."""

    length_normalize: bool = False

    def run(self, scorer: LMFusionScorer, namespace: str, waited: float) -> Any:
        return scorer.score_texts_batch(self.texts, length_normalize=self.length_normalize,
                                        cache_namespace=namespace)


class TokenLogProbs(_Texts):
    """/token_log_probs: [token, nats] of every token of every text."""

    def run(self, scorer: LMFusionScorer, namespace: str, waited: float) -> Any:
        return scorer.token_log_probs(self.texts, cache_namespace=namespace)


class WordLogProbs(_Texts):
    """/word_log_probs: [word, nats] of every word of every text."""

    def run(self, scorer: LMFusionScorer, namespace: str, waited: float) -> Any:
        return scorer.word_log_probs(self.texts, cache_namespace=namespace)


class Perplexity(_Texts):
    """/perplexity: exp(-mean log p of a token)."""

    def run(self, scorer: LMFusionScorer, namespace: str, waited: float) -> Any:
        return scorer.perplexity(self.texts, cache_namespace=namespace)


class ScoreEndings(_Texts):
    """/score_endings: nats, [texts][endings]."""

    endings: list[str] = [".", "?", "!"]

    def candidates(self) -> int:
        return len(self.texts) * max(1, len(self.endings))

    def run(self, scorer: LMFusionScorer, namespace: str, waited: float) -> Any:
        return scorer.score_endings(self.texts, self.endings, cache_namespace=namespace)


class ScoreTokenPaths(Call):
    """/score_token_paths: nats of each token of a path from `scored_begin` on."""

    paths: list[list[int]]
    scored_begin: list[int]

    def candidates(self) -> int:
        return len(self.paths)

    def run(self, scorer: LMFusionScorer, namespace: str, waited: float) -> Any:
        return scorer.score_token_paths(self.paths, self.scored_begin, cache_namespace=namespace)


class Prime(Call):
    """/prime: computes now what later calls will ask for; the number of tokens computed."""

    contexts: list[str] = []
    vocabulary: list[str] = []
    after: list[str] = [""]

    def candidates(self) -> int:
        return len(self.contexts) + len(self.vocabulary) * len(self.after)

    def run(self, scorer: LMFusionScorer, namespace: str, waited: float) -> Any:
        return scorer.prime(self.contexts, vocabulary=self.vocabulary, after=self.after,
                            cache_namespace=namespace)


CALLS: dict[str, type[Call]] = {
    "score_continuations": ScoreContinuations, "log_probs": LogProbs, "score_texts": ScoreTexts,
    "score_texts_batch": ScoreTextsBatch, "token_log_probs": TokenLogProbs,
    "word_log_probs": WordLogProbs, "perplexity": Perplexity, "score_endings": ScoreEndings,
    "score_token_paths": ScoreTokenPaths, "prime": Prime}


def unscored(result: Any) -> int:
    """How many numbers of a result are missing because a deadline passed."""
    if isinstance(result, Sequence) and not isinstance(result, str):
        return sum(map(unscored, result))
    return int(result is None)
