"""Kaldi's lattices, any number of utterances in a file; binary ones are read by kaldi_binary.py.

In a text (`lattice-copy ark:... ark,t:...`) a line is the id of an utterance, an arc, a final
state, or empty after the last of an utterance. Compact lattices have arcs "from to word
graph,acoustic,transitions", lattices "from to transition word graph,acoustic"; a weight that is
left out is 0,0. Both parts are costs: negated logarithms (nats), the acoustic one unscaled. The
graph cost holds the language model's, pronunciations' and transitions', and becomes the n-gram
score. The first arc's state is the start.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmfusion.errors import LatticeError
from lmfusion.lattice import kaldi_binary
from lmfusion.lattice.lattice import Arc, Lattice
from lmfusion.lattice.symbols import Symbols, SymbolTable, number, score
from lmfusion.nbest.file_shape import lines_of

FIELDS = {True: 3, False: 4}  # of an arc without its weight: whether the lattice is compact


def matches(head: list[str]) -> bool:
    """Whether a file that begins so is one: an id, then an arc whose weight has commas."""
    return (len(head) > 1 and len(head[0].split()) == 1 and len(head[1].split()) > 2
            and any("," in line.split()[-1] for line in head[1:] if line.strip()))


def read(path: Path, *, symbols: Symbols | None = None) -> Iterator[Lattice]:
    """The lattices of a file, by their ids.

    Args:
        symbols: words.txt; without it labels are the words (`int2sym.pl -f 3`, or 4). 0 is epsilon.

    Raises:
        LatticeError: the file is no such archive or damaged, a label is not known, or a lattice
            cannot be searched.
    """
    table = SymbolTable(symbols)
    if kaldi_binary.is_binary(path):
        yield from kaldi_binary.read(path, table)
        return
    name: str | None = None
    lines: list[tuple[str, list[str]]] = []
    for count, line in enumerate(lines_of(path), 1):
        fields = line.split()
        where = f"{path}, line {count}"
        if not fields:
            if name is not None:
                yield _lattice(name, lines, table, path)
            name, lines = None, []
        elif name is None:
            if len(fields) != 1:
                raise LatticeError(f"{where}: the id of an utterance expected")
            name = fields[0]
        else:
            lines.append((where, fields))
    if name is not None:
        yield _lattice(name, lines, table, path)


def _lattice(name: str, lines: list[tuple[str, list[str]]], table: SymbolTable,
             path: Path) -> Lattice:
    if not lines:
        raise LatticeError(f"{path}: the lattice of {name!r} is empty")
    compact = any(fields[-1].count(",") == 2 for _, fields in lines)
    width = FIELDS[compact]
    arcs, finals = [], {}
    for where, fields in lines:
        state = number(fields[0], where)
        if len(fields) <= 2:
            finals[state] = _parts(fields[1:], compact, where)
        elif len(fields) in (width, width + 1):
            arcs.append(Arc(state, number(fields[1], where), table.label(fields[width - 1], where),
                            *_parts(fields[width:], compact, where)))
        else:
            raise LatticeError(f"{where}: {len(fields)} fields; an arc of this lattice has {width} "
                               f"or {width + 1}, a final state 1 or 2")
    return Lattice(arcs, finals, number(lines[0][1][0], lines[0][0]), name)


def _parts(weight: list[str], compact: bool, where: str) -> tuple[float, float]:
    """(acoustic, n-gram) of a weight, if there is one."""
    if not weight:
        return 0.0, 0.0
    parts = weight[0].split(",")
    if len(parts) != (3 if compact else 2):
        raise LatticeError(f"{where}: a weight of {len(parts)} parts between commas; "
                           f"{3 if compact else 2} expected")
    graph, acoustic = (score(part, where) for part in parts[:2])
    return -acoustic, -graph
