"""More than one model in the score: a log-linear sum with a weight each."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Ragged = list[list[float]]


class Component(Protocol):
    """A model of a combination; `LMFusionScorer`, `NGram` and `PhraseList` are."""

    def log_probs(self, contexts: Sequence[str],
                  candidate_words: Sequence[Sequence[str]]) -> list[list[Any]]: ...  # floats

    def score_texts(self, texts: Sequence[str]) -> list[float]: ...


class CombinedScorer:
    """score = sum over models of weight * part + word_insertion_bonus, per candidate word.

    Args:
        components: the models by name.
        weights: one a model; may be changed at any time.
        word_insertion_bonus: added to every word.

    Raises:
        ValueError: `weights` names other models than `components`.
    """

    __slots__ = ("components", "weights", "word_insertion_bonus")

    def __init__(self, components: Mapping[str, Component], weights: Mapping[str, float], *,
                 word_insertion_bonus: float = 0.0) -> None:
        if set(components) != set(weights):
            raise ValueError(f"weights of {sorted(weights)} for the models {sorted(components)}; "
                             "one weight a model expected")
        self.components = dict(components)
        self.weights = dict(weights)
        self.word_insertion_bonus = word_insertion_bonus

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={weight!r} * {self.components[name]!r}"
                          for name, weight in self.weights.items())
        return f"CombinedScorer({parts}, word_insertion_bonus={self.word_insertion_bonus!r})"

    def parts(self, contexts: Sequence[str],
              candidate_words: Sequence[Sequence[str]]) -> dict[str, Ragged]:
        """What each model says, unweighted: name -> [contexts][candidates]."""
        return {name: component.log_probs(contexts, candidate_words)
                for name, component in self.components.items()}

    def combine(self, parts: Mapping[str, Ragged], *, weights: Mapping[str, float] | None = None,
                word_insertion_bonus: float | None = None) -> Ragged:
        """The scores of `parts` under these or other weights; asks no model."""
        weights = self.weights if weights is None else weights
        bonus = self.word_insertion_bonus if word_insertion_bonus is None else word_insertion_bonus
        rows = zip(*(parts[name] for name in weights))
        return [[sum(weight * part for weight, part in zip(weights.values(), word)) + bonus
                 for word in zip(*row)] for row in rows]

    def score_continuations(self, contexts: Sequence[str],
                            candidate_words: Sequence[Sequence[str]]) -> Ragged:
        """[contexts][candidates], as `LMFusionScorer.score_continuations`."""
        return self.combine(self.parts(contexts, candidate_words))

    def score_texts(self, texts: Sequence[str]) -> list[float]:
        """The weighted sum of whole texts, without the bonus."""
        parts = [[weight * part for part in self.components[name].score_texts(texts)]
                 for name, weight in self.weights.items()]
        return [sum(text) for text in zip(*parts)] if parts else [0.0] * len(texts)


class NGram:
    """An n-gram model read by the package `kenlm`, in nats.

    Args:
        model: an ARPA or binary file, or a `kenlm.Model`.
        casing: what the model's words look like, from decoder text.

    Raises:
        ImportError: the package kenlm is not installed.
        OSError: the file cannot be read.
    """

    __slots__ = ("_casing", "_model", "_new_state")

    def __init__(self, model: str | os.PathLike[str] | Any, *,
                 casing: Callable[[str], str] = str.lower) -> None:
        import kenlm
        is_path = isinstance(model, (str, os.PathLike))
        self._model: Any = kenlm.Model(os.fspath(model)) if is_path else model
        self._new_state = kenlm.State
        self._casing = casing

    def __repr__(self) -> str:
        return f"NGram(order {self._model.order})"

    def log_probs(self, contexts: Sequence[str],
                  candidate_words: Sequence[Sequence[str]]) -> Ragged:
        """log p(word | context); a candidate of several words is their sum."""
        rows = []
        for context, words in zip(contexts, candidate_words, strict=True):
            state = self._state(self._casing(context).split()) if words else None
            rows.append([self._walk(state, self._casing(word).split())[1] for word in words])
        return rows

    def log_prob(self, context: str, word: str) -> float:
        """log p of one candidate: a `fallback` of `LMFusionScorer.score_continuations`."""
        return self.log_probs([context], [[word]])[0][0]

    def score_texts(self, texts: Sequence[str]) -> list[float]:
        """log p of whole texts, without their end."""
        return [row[0] for row in self.log_probs([""] * len(texts), [[text] for text in texts])]

    def _state(self, words: list[str]) -> Any:
        state = self._new_state()
        recent = words[-(self._model.order - 1):] if self._model.order > 1 else []
        if len(recent) < len(words):  # all that the model looks at
            self._model.NullContextWrite(state)
        else:
            self._model.BeginSentenceWrite(state)
        return self._walk(state, recent)[0]

    def _walk(self, state: Any, words: Sequence[str]) -> tuple[Any, float]:
        log10 = 0.0
        for word in words:
            after = self._new_state()
            log10 += self._model.BaseScore(state, word, after)
            state = after
        return state, log10 * math.log(10)


class PhraseList:
    """Phrases that a decoder should favour or avoid, with a weight each ("hotwords").

    Words are compared without case and without punctuation around them, so a phrase counts
    however the text is cased. A phrase of n words gives weight / n with each of its words; what
    the words gave is taken back by the first word that does not go on with it, so only whole
    phrases count in the end. Of phrases that are begun at once, the furthest counts.

    Args:
        phrases: phrase -> weight; negative to avoid one.

    Raises:
        ValueError: a phrase has no words.
    """

    __slots__ = ("_longest", "_phrases")

    def __init__(self, phrases: Mapping[str, float]) -> None:
        self._phrases: dict[tuple[str, ...], float] = {}
        for phrase, weight in phrases.items():
            words = tuple(_plain_words(phrase))
            if not words:
                raise ValueError(f"the phrase {phrase!r} has no words")
            self._phrases[words] = weight
        self._longest = max(map(len, self._phrases), default=0)

    def __repr__(self) -> str:
        phrases = {" ".join(words): weight for words, weight in self._phrases.items()}
        return f"PhraseList({phrases!r})"

    def log_probs(self, contexts: Sequence[str],
                  candidate_words: Sequence[Sequence[str]]) -> Ragged:
        """[contexts][candidates] of what a candidate adds."""
        rows = []
        for context, words in zip(contexts, candidate_words, strict=True):
            recent = _plain_words(context)[-self._longest:] if self._longest else []
            before = self._value(recent)
            rows.append([self._value(recent + _plain_words(word)) - before for word in words])
        return rows

    def score_texts(self, texts: Sequence[str]) -> list[float]:
        """[texts] of the weights of the whole phrases in them."""
        return [self._whole(_plain_words(text)) for text in texts]

    def score_endings(self, texts: Sequence[str], endings: Sequence[str] = ("",)) -> Ragged:
        """[texts][endings] of what an end adds: it takes back what a phrase that it cuts off gave.

        So the words of a decoder's text and its end together give what `score_texts` gives.
        """
        rows = []
        for text in texts:
            words = _plain_words(text)
            rows.append([self._whole(words) - self._value(words)] * len(endings))
        return rows

    def _value(self, words: list[str]) -> float:
        """Whole phrases among `words`, and the share of one that their end has begun."""
        begun = [weight * size / len(phrase) for phrase, weight in self._phrases.items()
                 for size in range(1, min(len(phrase), len(words) + 1))
                 if tuple(words[-size:]) == phrase[:size]]
        return self._whole(words) + max(begun, key=abs, default=0.0)

    def _whole(self, words: list[str]) -> float:
        return sum(self._phrases.get(tuple(words[begin:end]), 0.0)
                   for end in range(1, len(words) + 1)
                   for begin in range(max(0, end - self._longest), end))


def _plain_words(text: str) -> list[str]:
    """The words of a text, case folded, without the punctuation around them."""
    words = []
    for word in text.casefold().split():
        letters = [i for i, letter in enumerate(word) if letter.isalnum()]
        if letters:
            words.append(word[letters[0]:letters[-1] + 1])
    return words
