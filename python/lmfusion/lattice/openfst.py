"""OpenFst's text format, as `fstprint` writes it; weights are tropical: negated logarithms (nats).

A line is an arc, "from to input output [weight]", or of an acceptor "from to label [weight]", or a
final state, "state [weight]". The first state of the first line is the start. Output labels are the
words.
A weight is one number, so it is all in the acoustic score, or in the n-gram's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmfusion.errors import LatticeError
from lmfusion.lattice.lattice import Arc, Lattice
from lmfusion.lattice.symbols import Symbols, SymbolTable, number, score
from lmfusion.nbest.file_shape import lines_of


def read(path: Path, *, symbols: Symbols | None = None, acceptor: bool = False,
         ngram: bool = False) -> Iterator[Lattice]:
    """The one lattice of a file, named after it.

    Args:
        symbols: of the words; without it labels are the words. A label 0 is epsilon.
        acceptor: arcs have one label (as `fstcompile --acceptor`).
        ngram: whether weights are the n-gram's.

    Raises:
        LatticeError: the file is no such lattice, a label is not known, or it cannot be searched.
    """
    table = SymbolTable(symbols)
    labels = 1 if acceptor else 2
    arcs: list[Arc] = []
    finals: dict[int, tuple[float, float]] = {}
    start: int | None = None
    for count, line in enumerate(lines_of(path), 1):
        fields = line.split()
        if not fields:
            continue
        where = f"{path}, line {count}"
        state = number(fields[0], where)
        start = state if start is None else start
        if len(fields) <= 2:
            finals[state] = _parts(fields[1:], ngram, where)
        elif len(fields) in (2 + labels, 3 + labels):
            arcs.append(Arc(state, number(fields[1], where), table.label(fields[1 + labels], where),
                            *_parts(fields[2 + labels:], ngram, where)))
        else:
            raise LatticeError(f"{where}: {len(fields)} fields; an arc has {2 + labels} or "
                               f"{3 + labels} (acceptor={acceptor}), a final state 1 or 2")
    if start is None:
        raise LatticeError(f"{path} is empty")
    yield Lattice(arcs, finals, start, path.stem)


def _parts(weight: list[str], ngram: bool, where: str) -> tuple[float, float]:
    """(acoustic, n-gram) of a weight, if there is one."""
    log_prob = -score(weight[0], where) if weight else 0.0
    return (0.0, log_prob) if ngram else (log_prob, 0.0)
