"""How an n-best document in memory holds the lists of its utterances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lmfusion.nbest.hypothesis import Form

# Of every utterance in order: its name, its hypotheses, their form where the shape fixes it.
Lists: TypeAlias = Iterator[tuple[str | None, Sequence[Any], Form | None]]


@dataclass(frozen=True)
class Shape:
    """A document in memory.

    Attributes:
        name: for messages and docs/nbest.md.
        matches: whether a document has this shape.
        lists: the hypotheses of every utterance.
        rebuilt: the document with every list in a new order, given as indices into the old one,
            an utterance after the other; the document itself does not change, nor do utterances
            change places.
    """

    name: str
    matches: Callable[[Any], bool]
    lists: Callable[[Any], Lists]
    rebuilt: Callable[[Any, Iterator[list[int]]], Any]


def reordered(hypotheses: Sequence[Any], order: Sequence[int]) -> Any:
    """A list or tuple in a new order."""
    return type(hypotheses)([hypotheses[index] for index in order])  # type: ignore[call-arg]
