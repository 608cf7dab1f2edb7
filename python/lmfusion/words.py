"""Log-probabilities of whole texts, word by word, and the bases of logarithms."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from lmfusion.arguments import check_number, check_texts


def nats(base: float) -> float:
    """How many nats a unit of the logarithm to this base is.

    Raises:
        ValueError: there is no such logarithm.
        TypeError: `base` is no number.
    """
    base = check_number(base, "base")
    if not (base > 0 and base != 1):
        raise ValueError(f"base = {base!r}; a number above 0 other than 1 expected (e, 2, 10)")
    return math.log(base)


def by_words(texts: Sequence[str], score_texts: Callable[[list[str]], list[float]]
             ) -> list[list[tuple[str, float]]]:
    """[texts][words] of (word, what it adds to the score of the text up to its end)."""
    check_texts(texts, "texts")
    totals = iter(score_texts([text[:end] for text in texts for end in _word_ends(text)]))
    rows = []
    for text in texts:
        before = 0.0
        words = []
        for word in text.split():
            total = next(totals)
            words.append((word, total - before))
            before = total
        rows.append(words)
    return rows


def _word_ends(text: str) -> list[int]:
    """Where each word of a text ends; the last one takes what white space follows it."""
    ends = [match.end() for match in re.finditer(r"\S+", text)]
    return [*ends[:-1], len(text)] if ends else []
