"""HTK's standard lattice format (SLF), read as the n-best list of its paths.

Words stand on nodes or on links. A path's score is the sum of the acoustic likelihoods `a=` of its
links, logarithms to the base that the header gives (`base=`; e without it), taken to nats;
`l=`, of the lattice's own language model, is left alone. What is written has one chain of links a
path, the best first.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lmfusion.nbest.file_shape import FileShape, lines_of, opened
from lmfusion.nbest.htk import NO_WORDS, word_of
from lmfusion.nbest.hypothesis import Form, Options
from lmfusion.nbest.shape import Lists
from lmfusion.shown import number_of, shown

MOST_PATHS = 10_000


@dataclass(frozen=True)
class _Step:
    link: dict[str, str]
    node: dict[str, str]  # the one where the link ends

    @property
    def word(self) -> str:
        """As the file writes it; "" where there is none."""
        return self.link.get("W") or self.node.get("W", "")


class SlfFile:
    """The fields of an SLF file: its header, nodes and links."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header: list[str] = []
        self.nodes: dict[str, dict[str, str]] = {}
        self.links: dict[str, list[dict[str, str]]] = {}  # by the node where they start
        self.fields: dict[str, str] = {}
        for line in lines_of(path):
            if line.strip() and not line.startswith("#"):
                self._take(line)

    def _take(self, line: str) -> None:
        fields = dict(part.partition("=")[::2] for part in _parts(line))
        if "I" in fields:
            self.nodes[fields["I"]] = fields
        elif "J" in fields:
            start, end = fields.get("S", fields.get("START")), fields.get("E", fields.get("END"))
            if start is None or end is None:
                raise ValueError(f"{self.path}: link {shown(fields['J'])} has no start or no end")
            self.links.setdefault(start, []).append({**fields, "E": end})
        else:
            self.fields.update(fields)
            if not {"N", "L", "NODES", "LINKS"} & set(fields):
                self.header.append(line)

    @property
    def nats(self) -> float:
        """Of one of the file's units."""
        base = number_of(self.fields.get("base", str(math.e)), f"{self.path}: base")
        if base <= 0:
            raise ValueError(f"{self.path}: base={base}: likelihoods that are no logarithms are "
                             "not read")
        return math.log(base)

    def ends(self) -> tuple[str, str]:
        """The names of the node where every path starts, and of the one where it ends."""
        ends = {link["E"] for links in self.links.values() for link in links}
        return (self.fields.get("start") or self._only(set(self.links) - ends, "start"),
                self.fields.get("end") or self._only(ends - set(self.links), "end"))

    def paths(self) -> list[list[_Step]]:
        """From the start to the end, in the order of the links.

        Raises:
            ValueError: more than MOST_PATHS, or a cycle.
        """
        start, end = self.ends()
        found: list[list[_Step]] = []
        open_paths: list[tuple[str, list[_Step]]] = [(start, [])]
        while open_paths:
            node, steps = open_paths.pop()
            if node == end:
                found.append(steps)
            elif len(steps) > len(self.nodes) or len(found) > MOST_PATHS:
                raise ValueError(
                    f"{self.path} has more than {MOST_PATHS} paths, or a cycle: it is a lattice, "
                    "not an n-best list; take the best paths first (lattice-tool -nbest-decode)")
            else:
                for link in reversed(self.links.get(node, [])):
                    if link["E"] not in self.nodes:
                        raise ValueError(f"{self.path}: link {shown(link['J'])} ends at "
                                         f"node {shown(link['E'])}, which is not there")
                    open_paths.append((link["E"],
                                       [*steps, _Step(link, self.nodes[link["E"]])]))
        return found

    def _only(self, candidates: set[str], what: str) -> str:
        if len(candidates) != 1:
            raise ValueError(f"{self.path}: {len(candidates)} nodes may be the {what}; one "
                             f"expected, or {what}= in the header")
        return candidates.pop()


def _parts(line: str) -> list[str]:
    try:
        return shlex.split(line, posix=False)
    except ValueError:  # an apostrophe in a word
        return line.split()


def _text(path: list[_Step]) -> str:
    words = [word_of(step.word) for step in path if step.word]
    return " ".join(word for word in words if word not in NO_WORDS)


def _path_form(lattice: SlfFile) -> Form:
    def score(path: list[_Step], options: Options) -> float | None:
        values = [step.link.get("a", step.link.get("acoustic")) for step in path]
        if any(value is None for value in values):
            return None
        return lattice.nats * sum(number_of(value, f"{lattice.path}: a link's likelihood")
                                  for value in values if value is not None)

    return Form("HTK SLF path", lambda _: False, _text, score)


def _lists(path: Path, options: Options) -> Lists:
    lattice = SlfFile(path)
    yield lattice.fields.get("UTTERANCE", path.stem), lattice.paths(), _path_form(lattice)


def _write(path: Path, options: Options, orders: Iterator[list[int]], output: Path) -> None:
    lattice = SlfFile(path)
    paths = lattice.paths()
    nodes, links = ["I=0", "I=1"], list[str]()
    for steps in [paths[index] for index in next(orders)]:
        before = 0
        for place, step in enumerate(steps):
            after = 1 if place == len(steps) - 1 else len(nodes)
            if after > 1:
                time = f"\tt={step.node['t']}" if "t" in step.node else ""
                nodes.append(f"I={after}{time}")
            kept = "\t".join(f"{name}={value}" for name, value in step.link.items()
                             if name not in ("J", "S", "E", "START", "END", "W"))
            word = step.word or "!NULL"
            links.append(f"J={len(links)}\tS={before}\tE={after}\tW={word}\t{kept}".rstrip())
            before = after
    header = [line for line in lattice.header if not line.startswith(("start=", "end="))]
    with opened(output, "w") as out:
        out.write("\n".join([*header, "start=0 end=1", f"N={len(nodes)} L={len(links)}", *nodes,
                             *links]) + "\n")


LATTICE = FileShape("HTK standard lattice (SLF)",
                    lambda path, head, options: any(line.startswith("VERSION=")
                                                    for line in head[:5]),
                    _lists, _write)
