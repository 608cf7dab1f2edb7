"""The sentences that two results have different, for people to read."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from lmfusion.tuning.alignment import Alignment


@dataclass(frozen=True)
class Change:
    """One utterance; the words as (text, kind), kind "same" or "other" than in the other text."""

    name: str
    reference: str
    before: list[tuple[str, str]]
    after: list[tuple[str, str]]
    errors_before: int
    errors_after: int


def changes(names: Sequence[str], references: Sequence[str], before: Sequence[str],
            after: Sequence[str], errors_before: Sequence[Alignment],
            errors_after: Sequence[Alignment]) -> list[Change]:
    """Those whose texts differ: what got better first, most first."""
    found = []
    for name, reference, one, other, old, new in zip(names, references, before, after,
                                                     errors_before, errors_after, strict=True):
        if one.split() != other.split():
            marked = _marked(one.split(), other.split())
            found.append(Change(name, reference, *marked, old.errors, new.errors))
    return sorted(found, key=lambda change: change.errors_after - change.errors_before)


def _marked(one: list[str], other: list[str]
            ) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    left: list[tuple[str, str]] = []
    right: list[tuple[str, str]] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        mark = "same" if kind == "equal" else "other"
        left += [(" ".join(one[a:b]), mark)] if b > a else []
        right += [(" ".join(other[c:d]), mark)] if d > c else []
    return left, right
