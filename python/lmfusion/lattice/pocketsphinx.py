"""PocketSphinx's lattices: of a decoder, or of a file that ps_lattice_write wrote.

The file's lines are its comments (`# -logbase`), "Frames N", "Nodes N" and a line a node (number,
word, first frame, first and last end frame), "Initial", "Final", "BestSegAscr", "Edges" and a line
an arc (from, to, acoustic score of the word on the first of them), "End". Scores are logarithms to
the base of the header. They hold the penalties of pauses and fillers, and no n-gram:
`with_ngram(lattice, ngram_of(decoder))` adds the decoder's.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmfusion.errors import LatticeError
from lmfusion.lattice.lattice import Arc, Lattice
from lmfusion.lattice.ngram import Ngram
from lmfusion.lattice.word_nodes import lattice_of_word_nodes
from lmfusion.nbest.file_shape import lines_of

LOG_BASE = 1.0001  # where the file names none
_COUNTS = ("Frames", "Nodes", "Initial", "Final", "BestSegAscr")


def matches(head: list[str]) -> bool:
    """Whether a file that begins so is one."""
    return bool(head) and head[0].startswith("# getcwd:")


@dataclass
class _File:
    nats: float = math.log(LOG_BASE)  # of one unit of its scores
    counts: dict[str, int] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)  # [nodes]
    frames: list[int] = field(default_factory=list)  # [nodes] where they begin
    edges: list[tuple[int, int, int]] = field(default_factory=list)
    part: str = ""

    def take(self, line: str) -> None:
        """One line; IndexError or ValueError: it has no place there."""
        fields = line.split()
        if line.startswith("# -logbase"):
            self.nats = math.log(float(fields[2]))
        elif not fields or line.startswith("#"):
            return
        elif fields[0] in _COUNTS:
            self.part, self.counts[fields[0]] = fields[0], int(fields[1])
        elif fields[0] in ("Edges", "End"):
            self.part = fields[0]
        elif self.part == "Nodes" and int(fields[0]) == len(self.words):
            self.words.append(fields[1])
            self.frames.append(int(fields[2]))
        elif self.part == "Edges":
            self.edges.append((int(fields[0]), int(fields[1]), int(fields[2])))
        elif self.part != "BestSegAscr":
            raise ValueError

    def fault(self) -> str | None:
        """What is wrong with the whole."""
        if self.part != "End":
            return 'it is cut off: the line "End" is missing'
        missing = [name for name in _COUNTS[:4] if name not in self.counts]
        if missing:
            return f"{missing[0]} is missing"
        if self.counts["Nodes"] != len(self.words):
            return f"it has {len(self.words)} nodes, and says {self.counts['Nodes']}"
        named = [self.counts["Initial"], self.counts["Final"],
                 *(node for edge in self.edges for node in edge[:2])]
        strange = [node for node in named if not 0 <= node < len(self.words)]
        return f"node {strange[0]} is not there" if strange else None


def read(path: Path, *, frames_a_second: float = 100.0) -> Iterator[Lattice]:
    """The one lattice of a file, named after it.

    Raises:
        LatticeError: the file is no such lattice, is cut off, or cannot be searched.
    """
    file = _File()
    for number, line in enumerate(lines_of(path), 1):
        try:
            file.take(line)
        except (IndexError, ValueError):
            raise LatticeError(f"{path}, line {number}: no line of PocketSphinx's lattices"
                               f"{f', in {file.part}' if file.part else ''}") from None
    if fault := file.fault():
        raise LatticeError(f"{path}: {fault}")
    begins = [frame / frames_a_second for frame in file.frames]
    last = file.counts["Frames"] / frames_a_second
    ends = {source: begins[target] for source, target, _ in file.edges}
    arcs = [Arc(source, target, "", file.nats * score,
                times=(begins[target], ends.get(target, last)))
            for source, target, score in file.edges]
    yield lattice_of_word_nodes(file.words, arcs, {file.counts["Final"]: (0.0, 0.0)},
                                file.counts["Initial"], path.stem)


def lattice_of(decoder: Any, *, name: str | None = None) -> Lattice:
    """The lattice of what a `pocketsphinx.Decoder` recognised last.

    Raises:
        LatticeError: it has none (nothing was recognised, or its search keeps none).
    """
    lattice = decoder.get_lattice()
    if lattice is None:
        raise LatticeError("the decoder has no lattice: nothing was recognised, or its search "
                           "keeps none")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name or 'utterance'}.lat")
        lattice.write(str(path))
        return next(read(path))


def ngram_of(decoder: Any) -> Ngram:
    """log p(word | words before) of the decoder's own n-gram model, nats, for `with_ngram`."""
    model = decoder.get_lm(decoder.current_search())
    nats = decoder.get_logmath().log_to_ln(1)

    def log_prob(before: tuple[str, ...], word: str) -> float:
        return nats * model.prob([word, *reversed(before)])

    return log_prob
