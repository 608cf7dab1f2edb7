"""The arithmetic of n-best rescoring: a sum of scores, its weights, and the word error rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from lmfusion.demo.recognition import Hypothesis
from lmfusion.demo.utterances import Utterance

WEIGHTS = tuple(0.5 * step for step in range(61))  # recogniser's units a nat
BONUSES = tuple(5.0 * step for step in range(-12, 13))  # recogniser's units a word
NEIGHBOURHOOD = 2  # steps to either side


@dataclass(frozen=True)
class Weights:
    """total = recogniser's score + weight * log p + word_insertion_bonus * words."""

    weight: float
    word_insertion_bonus: float

    def total(self, hypothesis: Hypothesis, log_prob: float) -> float:
        """The score of one hypothesis; log_prob in nats."""
        return (hypothesis.score + self.weight * log_prob
                + self.word_insertion_bonus * len(hypothesis.text.split()))

    def best(self, hypotheses: Sequence[Hypothesis], log_probs: Sequence[float]) -> str:
        """The text with the highest total; "" of an empty list."""
        totals = [self.total(*pair) for pair in zip(hypotheses, log_probs, strict=True)]
        return hypotheses[int(np.argmax(totals))].text if totals else ""


def word_error_rate(references: Sequence[str], texts: Sequence[str]) -> float:
    """Wrong, missing and extra words over the words of the references."""
    return float(jiwer.wer(list(references), list(texts)))


def word_errors(reference: str, text: str) -> int:
    """Wrong, missing and extra words of one text."""
    found = jiwer.process_words(reference, text)
    return found.substitutions + found.deletions + found.insertions


def oracle(utterance: Utterance) -> str:
    """The text of an n-best list with the fewest errors: what no rescoring can beat."""
    texts = [hypothesis.text for hypothesis in utterance.recognition.hypotheses]
    return min(texts, key=lambda text: word_errors(utterance.reference, text), default="")


def tune(utterances: Sequence[Utterance], log_probs: Sequence[Sequence[float]]) -> Weights:
    """The weights of a grid around which word errors are fewest.

    Each point counts with the mean of its neighbourhood: with so few sentences a single point that
    is better than all around it is chance.

    Args:
        utterances: never those that are reported on.
        log_probs: [utterances][hypotheses], nats.
    """
    lists = [_Arrays.of(*pair) for pair in zip(utterances, log_probs, strict=True)]
    errors = np.array([[sum(each.errors_with(Weights(weight, bonus)) for each in lists)
                        for bonus in BONUSES] for weight in WEIGHTS])
    neighbours = np.lib.stride_tricks.sliding_window_view(
        np.pad(errors, NEIGHBOURHOOD, mode="edge"), (2 * NEIGHBOURHOOD + 1,) * 2)
    weight, bonus = np.unravel_index(neighbours.mean(axis=(2, 3)).argmin(), errors.shape)
    return Weights(WEIGHTS[weight], BONUSES[bonus])


@dataclass(frozen=True)
class _Arrays:
    """One n-best list, [hypotheses] each."""

    scores: np.ndarray
    log_probs: np.ndarray
    words: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, utterance: Utterance, log_probs: Sequence[float]) -> _Arrays:
        hypotheses = utterance.recognition.hypotheses
        return cls(np.array([hypothesis.score for hypothesis in hypotheses]), np.array(log_probs),
                   np.array([len(hypothesis.text.split()) for hypothesis in hypotheses]),
                   np.array([word_errors(utterance.reference, hypothesis.text)
                             for hypothesis in hypotheses]))

    def errors_with(self, weights: Weights) -> int:
        totals = (self.scores + weights.weight * self.log_probs
                  + weights.word_insertion_bonus * self.words)
        return int(self.errors[np.argmax(totals)])
