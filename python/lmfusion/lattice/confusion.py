"""Confusion networks: slots in a row, each with its words and their posterior probabilities.

SRILM's files (wlat-format(5), `lattice-tool -write-mesh`) have lines "name NAME", "numaligns N",
"posterior P" and "align SLOT WORD PROBABILITY ...", where `*DELETE*` says that a slot has no word.
The probabilities' logarithms become the acoustic scores; "reference", "hyps" and "info" are left
alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lmfusion.errors import LatticeError
from lmfusion.lattice.lattice import Arc, Lattice
from lmfusion.lattice.symbols import number, score
from lmfusion.nbest.file_shape import lines_of

NO_WORD = "*DELETE*"
LEFT_ALONE = ("name", "posterior", "reference", "hyps", "info", "time")


def confusion_network(slots: Sequence[Mapping[str, float]], *, name: str | None = None) -> Lattice:
    """The lattice of slots in memory.

    Args:
        slots: in the order of speech, each word -> log-probability (nats); "" for no word.

    Raises:
        LatticeError: there are no slots, one is empty, or a log-probability is NaN or +inf.
    """
    return Lattice((Arc(slot, slot + 1, word, log_prob) for slot, words in enumerate(slots)
                    for word, log_prob in words.items()), {len(slots): (0.0, 0.0)}, 0, name)


def matches(head: list[str]) -> bool:
    """Whether a file that begins so is one."""
    return any(line.split()[:1] == ["numaligns"] for line in head)


def read(path: Path) -> Iterator[Lattice]:
    """The one confusion network of a file.

    Raises:
        LatticeError: the file is none, a slot is missing, or a probability is negative.
    """
    name = path.stem
    count: int | None = None
    slots: dict[int, dict[str, float]] = {}
    for at, line in enumerate(lines_of(path), 1):
        where = f"{path}, line {at}"
        fields = line.split()
        if fields[:1] == ["name"] and len(fields) > 1:
            name = fields[1]
        elif fields[:1] == ["numaligns"] and len(fields) == 2:
            count = number(fields[1], where)
        elif fields[:1] == ["align"] and len(fields) > 2 and len(fields) % 2 == 0:
            slots[number(fields[1], where)] = {
                "" if word == NO_WORD else word: _log(score(field, where), where)
                for word, field in zip(fields[2::2], fields[3::2])}
        elif fields and fields[0] not in LEFT_ALONE:
            raise LatticeError(f'{where}: "align SLOT WORD PROBABILITY ..." expected')
    if count is None or sorted(slots) != list(range(count)):
        raise LatticeError(f"{path}: numaligns is {'missing' if count is None else count}, and "
                           f"{len(slots)} slots are there; all from 0 expected")
    yield confusion_network([slots[slot] for slot in range(count)], name=name)


def _log(probability: float, where: str) -> float:
    if not probability >= 0:
        raise LatticeError(f"{where}: the probability {probability}; at least 0 expected")
    return math.log(probability) if probability else -math.inf
