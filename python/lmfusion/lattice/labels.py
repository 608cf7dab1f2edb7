"""Which labels of a lattice are words of the text, and which words."""

from __future__ import annotations

import re
from collections.abc import Callable

from lmfusion.nbest.htk import NO_WORDS

WordRule = Callable[[str], str]  # label -> the word or words of the text; "" for none

_PRONUNCIATION = re.compile(r"(?<=.)\(\d+\)$")
_NO_WORD = re.compile(r"<.*>|\[.*\]|\+\+.*\+\+|!(NULL|ENTER|EXIT|SENT_START|SENT_END)|#\d+")


def word_of(label: str) -> str:
    """The default rule: "the(2)" -> "the"; "" for silences, noises and marks of a text's ends.

    No words are what stands in <>, [] or ++ ++ (`<s>`, `<sil>`, `<eps>`, `[NOISE]`, `++UM++`),
    HTK's `!NULL` and the like, disambiguation symbols `#0`, and the silences of `NO_WORDS`.
    """
    if label in NO_WORDS or _NO_WORD.fullmatch(label):
        return ""
    return _PRONUNCIATION.sub("", label)
