"""More than one model in the score: a log-linear sum with a weight each."""

from __future__ import annotations

import math
import os
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from lmfusion import _core
from lmfusion.scorer import Floor, LMFusionScorer, needs_deadline

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

    def parts(self, contexts: Sequence[str], candidate_words: Sequence[Sequence[str]], *,
              deadline: float | None = None, join: str | None = None, cache_namespace: str = ""
              ) -> dict[str, Ragged]:
        """What each model says, unweighted: name -> [contexts][candidates].

        Args:
            deadline: seconds, for the language models (`LMFusionScorer`), which are asked one after
                another; what is not scored by then is NaN.
            join: how words join their contexts, in place of each model's own.
            cache_namespace: of the language models' caches.
        """
        until = math.inf if deadline is None else time.monotonic() + deadline
        parts = {}
        for name, component in self.components.items():
            if isinstance(component, LMFusionScorer):
                left = None if deadline is None else until - time.monotonic()
                scored = component.log_probs(contexts, candidate_words, deadline=left,
                                             join=join, cache_namespace=cache_namespace)
                parts[name] = [[math.nan if part is None else part for part in row]
                               for row in scored]
            elif isinstance(component, PhraseList):
                parts[name] = component.log_probs(contexts, candidate_words, join=join)
            else:
                parts[name] = component.log_probs(contexts, candidate_words)
        return parts

    def combine(self, parts: Mapping[str, Ragged], *, weights: Mapping[str, float] | None = None,
                word_insertion_bonus: float | None = None) -> Ragged:
        """The scores of `parts` under these or other weights; asks no model."""
        weights = self.weights if weights is None else weights
        bonus = self.word_insertion_bonus if word_insertion_bonus is None else word_insertion_bonus
        weighted = [(weight, parts[name]) for name, weight in weights.items()]
        shape: Ragged = next(iter(parts.values()), [])
        return [[sum(weight * part[i][j] for weight, part in weighted) + bonus
                 for j in range(len(row))] for i, row in enumerate(shape)]

    def score_continuations(self, contexts: Sequence[str],
                            candidate_words: Sequence[Sequence[str]], *,
                            floor: Floor | None = None, deadline: float | None = None,
                            fallback: Callable[[str, str], float] | None = None,
                            join: str | None = None, cache_namespace: str = ""
                            ) -> list[list[float | None]]:
        """[contexts][candidates], as `LMFusionScorer.score_continuations`.

        A floor is compared with the whole sum, so it saves no work; what a deadline left unscored
        is None, or where there is a `fallback(context, word)`, what it says plus the bonus.

        Raises:
            ValueError: a fallback without a deadline.
        """
        needs_deadline(fallback, deadline)
        scores: list[list[float | None]] = [
            [None if math.isnan(score) else score for score in row]
            for row in self.combine(self.parts(contexts, candidate_words, deadline=deadline,
                                               join=join, cache_namespace=cache_namespace))]
        if fallback is not None:
            for context, words, row in zip(contexts, candidate_words, scores):
                for i, (word, score) in enumerate(zip(words, row)):
                    if score is None:
                        row[i] = fallback(context, word) + self.word_insertion_bonus
        if floor is not None:
            _prune(scores, floor)
        return scores

    def log_probs(self, contexts: Sequence[str], candidate_words: Sequence[Sequence[str]], *,
                  join: str | None = None, cache_namespace: str = "") -> Ragged:
        """The weighted sum of the parts without the bonus; so a `StateScorer` takes this too."""
        return self.combine(self.parts(contexts, candidate_words, join=join,
                                       cache_namespace=cache_namespace),
                            word_insertion_bonus=0.0)

    def score_endings(self, texts: Sequence[str], endings: Sequence[str] = (".", "?", "!"), *,
                      cache_namespace: str = "") -> Ragged:
        """[texts][endings], weighted, of the models that know of endings; an `NGram` does not."""
        total = [[0.0] * len(endings) for _ in texts]
        for name, weight in self.weights.items():
            component: Any = self.components[name]
            if hasattr(component, "score_endings"):
                whose = ({"cache_namespace": cache_namespace}
                         if isinstance(component, LMFusionScorer) else {})
                part = component.score_endings(texts, endings, **whose)
                total = [[a + weight * b for a, b in zip(*rows)] for rows in zip(total, part)]
        return total

    def score_texts(self, texts: Sequence[str], *, eos: bool = False,
                    cache_namespace: str = "") -> list[float]:
        """The weighted sum of whole texts, without the bonus; `eos`: language models end them."""
        parts = []
        for name, weight in self.weights.items():
            component: Any = self.components[name]
            whose = ({"eos": eos, "cache_namespace": cache_namespace}
                     if isinstance(component, LMFusionScorer) else {})
            parts.append([weight * part for part in component.score_texts(texts, **whose)])
        return [sum(text) for text in zip(*parts)] if parts else [0.0] * len(texts)


def _prune(scores: list[list[float | None]], floor: Floor) -> None:
    """-inf for what is below its floor."""
    floor_rows: Any = floor
    if not hasattr(floor, "__len__") or getattr(floor, "ndim", 1) == 0:  # numpy's numbers have it
        floor_rows = [[float(cast(float, floor))] * len(row) for row in scores]
    if len(floor_rows) != len(scores):
        raise ValueError(f"floor has {len(floor_rows)} rows for {len(scores)} contexts; one number "
                         "a candidate expected")
    for i, (row, floors) in enumerate(zip(scores, floor_rows)):
        if len(floors) != len(row):
            raise ValueError(f"floor[{i}] has {len(floors)} numbers for {len(row)} candidates; one "
                             "a candidate expected")
        for j, score in enumerate(row):
            if math.isnan(floors[j]):
                raise ValueError(f"floor[{i}][{j}] is NaN; a number expected")
            if score is not None and score < floors[j]:
                row[j] = -math.inf


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

    Words are compared without case, without punctuation around them, composed (NFC) and with one
    apostrophe, so a phrase counts however the text is written. A character of a script that is
    written without spaces is a word of its own. A phrase of n words gives weight / n with each of
    its words; what the words gave is taken back by the first word that does not go on with it, so
    only whole phrases count in the end. Of phrases that are begun at once, the furthest counts.

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

    def log_probs(self, contexts: Sequence[str], candidate_words: Sequence[Sequence[str]], *,
                  join: str | None = None) -> Ragged:
        """[contexts][candidates] of what a candidate adds, joined as `LMFusionScorer` does."""
        rows = []
        for context, words in zip(contexts, candidate_words, strict=True):
            run = "" if context[-1:].isspace() else "".join(context.split()[-1:])  # may grow
            recent = self._recent(context[:len(context) - len(run)])
            before = self._value(recent + _plain_words(run))
            rows.append([self._value(recent + _plain_words(
                run + _core.separator(context, word, join or "auto") + word)) - before
                for word in words])
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

    def _recent(self, text: str) -> list[str]:
        """The last words of a text, as many as matter."""
        return _plain_words(text)[-self._longest:] if self._longest else []

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


APOSTROPHES = str.maketrans("’ʼ＇", "'''")


def _plain_words(text: str) -> list[str]:
    """The words of a text, as `PhraseList` compares them."""
    words = []
    plain = unicodedata.normalize("NFC", text).casefold().translate(APOSTROPHES)
    for word in unicodedata.normalize("NFC", plain).split():
        letters = [i for i, letter in enumerate(word) if letter.isalnum()]
        if letters:
            words += _without_spaces(word[letters[0]:letters[-1] + 1])
    return words


def _without_spaces(word: str) -> list[str]:
    """A word, where its script needs no spaces its characters."""
    if word.isascii():
        return [word]
    parts = [""]
    for letter in word:
        is_mark = unicodedata.category(letter).startswith("M")
        if not is_mark and any(map(_core.written_without_spaces, (letter, parts[-1]))):
            parts.append("")
        parts[-1] += letter
    return [part for part in parts if any(map(str.isalnum, part))]
