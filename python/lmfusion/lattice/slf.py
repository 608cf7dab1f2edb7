"""HTK's standard lattice format (SLF): the HTK Book, "HTK Standard Lattice Format".

A link has `a=` (acoustic) and `l=` (language model) log-likelihoods to the base of the header
(`base=`; e without it); what a link does not give is 0. Words stand on links, or on nodes: then a
link takes the word of the node where it ends. Times are those of nodes (`t=`, seconds). The scales
of the header (`lmscale=`, `wdpenalty=`, `acscale=`) are left to the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmfusion.errors import LatticeError
from lmfusion.lattice.lattice import Arc, Lattice
from lmfusion.lattice.symbols import score
from lmfusion.lattice.word_nodes import lattice_of_word_nodes
from lmfusion.nbest.htk import word_of
from lmfusion.nbest.slf import SlfFile
from lmfusion.shown import shown


def matches(head: list[str]) -> bool:
    """Whether a file that begins so is one."""
    return any(line.startswith("VERSION=") for line in head)


def read(path: Path) -> Iterator[Lattice]:
    """The one lattice of a file.

    Raises:
        LatticeError: the file is no such lattice, or cannot be searched.
    """
    try:
        file = SlfFile(path)
        start, end = file.ends()
        nats = file.nats
    except LatticeError:
        raise
    except ValueError as error:
        raise LatticeError(str(error)) from None
    numbers = {name: number for number, name in enumerate(file.nodes)}
    for name, what in ((start, "start"), (end, "end")):
        if name not in numbers:
            raise LatticeError(f"{path}: the {what} is node {shown(name)}, which is not there")
    words = [word_of(node["W"]) if "W" in node else "" for node in file.nodes.values()]
    arcs = [_arc(path, file, numbers, source, link, nats)
            for source, links in file.links.items() for link in links]
    yield lattice_of_word_nodes(words, arcs, {numbers[end]: (0.0, 0.0)}, numbers[start],
                                file.fields.get("UTTERANCE", path.stem))


def _arc(path: Path, file: SlfFile, numbers: dict[str, int], source: str, link: dict[str, str],
         nats: float) -> Arc:
    where = f"{path}, link {shown(link['J'])}"
    for node in (source, link["E"]):
        if node not in numbers:
            raise LatticeError(f"{where}: node {shown(node)} is not there")
    acoustic = score(link.get("a", link.get("acoustic", "0")), where)
    ngram = score(link.get("l", link.get("language", "0")), where)
    ends = [score(file.nodes[node]["t"], where) for node in (source, link["E"])
            if "t" in file.nodes[node]]
    label = word_of(link["W"]) if "W" in link else ""
    return Arc(numbers[source], numbers[link["E"]], label, nats * acoustic, nats * ngram,
               (ends[0], ends[1]) if len(ends) == 2 else None)
