"""Where a text differs from its reference, word by word (jiwer's alignment)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer

_MARKS = re.compile(r"[.,?!;:\"()\[\]«»“”„…¿¡。，？！、]+(?=\s|$)|(?:(?<=\s)|^)[\"(\[«“„¿¡]+")


@dataclass(frozen=True)
class Alignment:
    """The errors of one text.

    Attributes:
        words: of the reference.
        substitutions, deletions, insertions: how many.
        at: errors at every place of the reference, [2 * words + 1]: the gap before the first word
            (words inserted there), the first word (1 if it is wrong or missing), the next gap, ...
    """

    words: int
    substitutions: int
    deletions: int
    insertions: int
    at: tuple[int, ...]

    @property
    def errors(self) -> int:
        """Wrong, missing and extra words."""
        return self.substitutions + self.deletions + self.insertions


def normalized(text: str) -> str:
    """A text for comparison: lower case, without marks before and after words.

    References and recognised texts are mostly written by different hands; case and punctuation are
    not what a recogniser is judged by.
    """
    return " ".join(_MARKS.sub(" ", text.lower()).split())


def align(references: Sequence[str], texts: Sequence[str]) -> list[Alignment]:
    """The alignment of every text with its reference; each distinct pair is aligned once."""
    pairs = list(dict.fromkeys(zip(references, texts, strict=True)))
    if not pairs:
        return []
    found = jiwer.process_words([reference for reference, _ in pairs], [text for _, text in pairs])
    known = {}
    for pair, words, chunks in zip(pairs, found.references, found.alignments):
        at = [0] * (2 * len(words) + 1)
        counts = {"substitute": 0, "delete": 0, "insert": 0}
        for chunk in chunks:
            if chunk.type == "insert":
                count = chunk.hyp_end_idx - chunk.hyp_start_idx
                at[2 * chunk.ref_start_idx] += count
                counts["insert"] += count
            elif chunk.type != "equal":
                counts[chunk.type] += chunk.ref_end_idx - chunk.ref_start_idx
                for place in range(chunk.ref_start_idx, chunk.ref_end_idx):
                    at[2 * place + 1] = 1
        known[pair] = Alignment(len(words), counts["substitute"], counts["delete"],
                                counts["insert"], tuple(at))
    return [known[pair] for pair in zip(references, texts)]
