"""k2's text format, as `k2.to_str` writes it; scores are logarithms (nats), not negated.

A line is an arc, "from to label score", or with aux labels "from to label aux score"; arcs into the
final state have the label -1; the last line is the number of the final state. State 0 is the start.
Words are the aux labels where there are some.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmfusion.errors import LatticeError
from lmfusion.lattice.lattice import Arc, Lattice
from lmfusion.lattice.symbols import Symbols, SymbolTable, number, score
from lmfusion.nbest.file_shape import lines_of

FINAL = "-1"


def matches(head: list[str]) -> bool:
    """Whether a file with these lines is one: only k2 has arcs with the label -1."""
    return any(fields[2] == FINAL for line in head if len(fields := line.split()) in (4, 5))


def read(path: Path, *, symbols: Symbols | None = None, ngram: bool = False) -> Iterator[Lattice]:
    """The one lattice of a file, named after it.

    Args:
        symbols: of the words; without it labels are the words. A label 0 is epsilon.
        ngram: whether scores are the n-gram's.

    Raises:
        LatticeError: the file is no such lattice, a label is not known, or it cannot be searched.
    """
    table = SymbolTable(symbols)
    arcs: list[Arc] = []
    final: int | None = None
    for count, line in enumerate(lines_of(path), 1):
        fields = line.split()
        where = f"{path}, line {count}"
        if final is not None and fields:
            raise LatticeError(f"{where}: the line before names the final state, and must be the "
                               "last")
        if len(fields) == 1:
            final = number(fields[0], where)
        elif len(fields) in (4, 5):
            label, log_prob = fields[-2], score(fields[-1], where)
            arcs.append(Arc(number(fields[0], where), number(fields[1], where),
                            "" if label == FINAL else table.label(label, where),
                            *((0.0, log_prob) if ngram else (log_prob, 0.0))))
        elif fields:
            raise LatticeError(f"{where}: {len(fields)} fields; an arc has 4 or, with an aux "
                               "label, 5, and the last line 1")
    yield Lattice(arcs, {} if final is None else {final: (0.0, 0.0)}, 0, path.stem)
