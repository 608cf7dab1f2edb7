"""Phrases that a decoder should favour or avoid, as a model of a `CombinedScorer`."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from lmfusion import _core
from lmfusion.arguments import check_number, check_rows, check_texts

Ragged = list[list[float]]


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
        ValueError: a phrase has no words, or a weight is no number.
        TypeError: `phrases` is no mapping of text to number.
    """

    __slots__ = ("_longest", "_phrases")

    def __init__(self, phrases: Mapping[str, float]) -> None:
        self._phrases: dict[tuple[str, ...], float] = {}
        if not isinstance(phrases, Mapping):
            raise TypeError(f"phrases: {type(phrases).__name__} found; a mapping of phrases to "
                            "weights expected")
        check_texts(list(phrases), "phrases")
        for i, (phrase, weight) in enumerate(phrases.items()):
            words = tuple(_plain_words(phrase))
            if not words:
                raise ValueError(f"phrases[{i}] has no words")
            self._phrases[words] = check_number(weight, f"the weight of phrases[{i}]")
        self._longest = max(map(len, self._phrases), default=0)

    def __repr__(self) -> str:
        return f"PhraseList(phrases: {len(self._phrases)})"

    def log_probs(self, contexts: Sequence[str], candidate_words: Sequence[Sequence[str]], *,
                  join: str | None = None) -> Ragged:
        """[contexts][candidates] of what a candidate adds, joined as `LMFusionScorer` does."""
        check_rows(contexts, candidate_words)
        rows = []
        for context, words in zip(contexts, candidate_words):
            run = "" if context[-1:].isspace() else "".join(context.split()[-1:])  # may grow
            recent = self._recent(context[:len(context) - len(run)])
            before = self._value(recent + _plain_words(run))
            rows.append([self._value(recent + _plain_words(
                run + _core.separator(context, word, join or "auto") + word)) - before
                for word in words])
        return rows

    def score_texts(self, texts: Sequence[str]) -> list[float]:
        """[texts] of the weights of the whole phrases in them."""
        check_texts(texts, "texts")
        return [self._whole(_plain_words(text)) for text in texts]

    def score_endings(self, texts: Sequence[str], endings: Sequence[str] = ("",)) -> Ragged:
        """[texts][endings] of what an end adds: it takes back what a phrase that it cuts off gave.

        So the words of a decoder's text and its end together give what `score_texts` gives.
        """
        check_texts(texts, "texts")
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
