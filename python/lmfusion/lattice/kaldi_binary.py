"""Kaldi's binary lattices: archives of "id ", then an OpenFst VectorFst; or one FST alone.

The packages kaldiio and kaldi-native-io read no lattices, and kaldifst no archives of them. Numbers
are little-endian. An FST is its magic number, the names of its kind and of its arcs, version,
flags, properties, start, states and arcs; then for every state its final weight and its arcs: input
and output label, weight, next state. A weight is two costs, graph and acoustic; a compact lattice's
has transitions behind them. inf: no final state.
"""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from lmfusion.errors import LatticeError
from lmfusion.lattice.lattice import Arc, Lattice
from lmfusion.lattice.symbols import SymbolTable

MAGIC = struct.pack("<i", 2125659606)
KINDS = {"compactlattice44": True, "lattice4": False}  # of arcs: whether transitions follow
_SYMBOL_TABLES = 3  # of the flags
_LONGEST_ID = 4096


def opened(path: Path) -> BinaryIO:
    """The bytes of a file, of what is in it where its name ends in .gz."""
    return cast("BinaryIO", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def is_binary(path: Path) -> bool:
    """Whether a file has an FST at its beginning, perhaps behind an id."""
    with opened(path) as file:
        head = file.read(_LONGEST_ID)
    return head.startswith(MAGIC) or b" " + MAGIC in head or b" \0B" + MAGIC in head


def read(path: Path, table: SymbolTable) -> Iterator[Lattice]:
    """The lattices of a file, by their ids; one alone is named after the file.

    Raises:
        LatticeError: the file is damaged, or a lattice cannot be searched.
    """
    with opened(path) as stream:
        file = _File(path, stream)
        if stream.read(len(MAGIC)) == MAGIC:
            yield _lattice(file, path.name.split(".")[0], table)
            return
        stream.seek(0)
        while (name := file.id()) is not None:
            yield _lattice(file, name, table)


class _File:
    """Numbers and names of a file."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._stream = stream
        self.where = str(path)

    def bytes(self, count: int) -> bytes:
        found = self._stream.read(count)
        if len(found) < count:
            raise LatticeError(f"{self.where} is cut off")
        return found

    def numbers(self, form: str) -> tuple[float, ...]:
        return struct.unpack(f"<{form}", self.bytes(struct.calcsize(f"<{form}")))

    def integer(self, form: str, what: str) -> int:
        [found] = self.numbers(form)
        if found < 0:
            raise LatticeError(f"{self.where} is damaged: {found} {what}")
        return int(found)

    def name(self) -> str:
        size = self.integer("i", "letters of a name")
        return self.bytes(min(size, _LONGEST_ID)).decode("ascii", "replace")

    def id(self) -> str | None:
        """The id before an FST, whose magic number is read too; None: the file ends."""
        letters = bytearray()
        while (letter := self._stream.read(1)) not in (b"", b" "):
            letters += letter
            if len(letters) > _LONGEST_ID:
                raise LatticeError(f"{self.where}: no id before a lattice")
        if not letter and not letters.strip():
            return None
        found = self.bytes(len(MAGIC))
        if found.startswith(b"\0B"):
            found = found[2:] + self.bytes(2)
        if found != MAGIC:
            raise LatticeError(f"{self.where} has something else than a lattice behind an id")
        return letters.decode("utf-8", "replace")


def _lattice(file: _File, name: str, table: SymbolTable) -> Lattice:
    """One FST behind its magic number."""
    file.where = f"{file.where.split(': the lattice of')[0]}: the lattice of {name!r}"
    form, kind = file.name(), file.name()
    if form != "vector" or kind not in KINDS:
        raise LatticeError(f"{file.where} is an FST of the kind {form!r} with arcs {kind!r}; "
                           f"'vector' with {' or '.join(map(repr, KINDS))} expected")
    _, flags = file.numbers("ii")
    if int(flags) & _SYMBOL_TABLES:
        raise LatticeError(f"{file.where} has a symbol table of its own; Kaldi writes none")
    file.numbers("Q")  # properties
    [start] = file.numbers("q")
    states, _ = file.integer("q", "states"), file.numbers("q")
    arcs, finals = [], {}
    for state in range(states):
        graph, acoustic = _weight(file, KINDS[kind])
        if not math.isinf(graph + acoustic):
            finals[state] = (-acoustic, -graph)
        for _ in range(file.integer("q", "arcs")):
            _, label = file.numbers("ii")
            graph, acoustic = _weight(file, KINDS[kind])
            arcs.append(Arc(state, file.integer("i", "as a state"),
                            table.label(str(int(label)), file.where), -acoustic, -graph))
    if start < 0:
        raise LatticeError(f"{file.where} is empty")
    return Lattice(arcs, finals, int(start), name)


def _weight(file: _File, compact: bool) -> tuple[float, float]:
    graph, acoustic = file.numbers("ff")
    if compact:
        file.bytes(4 * file.integer("i", "transitions"))
    return graph, acoustic
