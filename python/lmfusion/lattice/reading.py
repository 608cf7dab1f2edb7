"""Lattice files of every format, told by what stands in them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lmfusion.errors import LatticeError
from lmfusion.lattice import confusion, k2, kaldi, openfst, pocketsphinx, slf
from lmfusion.lattice.lattice import Lattice
from lmfusion.nbest.file_shape import NotUtf8, lines_of

FORMATS: dict[str, Callable[..., Iterator[Lattice]]] = {
    "slf": slf.read, "pocketsphinx": pocketsphinx.read, "confusion": confusion.read,
    "kaldi": kaldi.read, "k2": k2.read, "openfst": openfst.read}
_MATCHES: dict[str, Callable[[list[str]], bool]] = {
    "slf": slf.matches, "pocketsphinx": pocketsphinx.matches, "confusion": confusion.matches,
    "kaldi": kaldi.matches, "k2": k2.matches}
HEAD = 20  # lines that tell a format


def read_all(path: str | os.PathLike[str], *, format: str | None = None,
             **options: Any) -> Iterator[Lattice]:
    """The lattices of a file, read as they are asked for.

    Args:
        path: compressed where its name ends in .gz.
        format: "slf", "openfst", "k2", "kaldi", "confusion" or "pocketsphinx"; None: what the file
            looks like, and "openfst" where it has nothing but arcs and states.
        options: of the format, as `symbols=`; docs/lattices.md has them.

    Raises:
        LatticeError: the file is not of the format, or a lattice cannot be searched.
        ValueError: no such format or option.
    """
    path = Path(path)
    name = _format(path) if format is None else format
    if name not in FORMATS:
        raise ValueError(f"format = {name!r}; one of {', '.join(map(repr, FORMATS))} expected")
    try:
        lattices = FORMATS[name](path, **options)
    except TypeError as error:
        raise ValueError(f"the format {name!r} has no such option: {error}") from error
    found = False
    try:
        for lattice in lattices:
            found = True
            yield lattice
    except NotUtf8 as error:
        raise LatticeError(str(error)) from None
    if not found:
        raise LatticeError(f"{path} has no lattice")


def read(path: str | os.PathLike[str], *, format: str | None = None, **options: Any) -> Lattice:
    """The lattice of a file that has one; arguments and errors as `read_all`."""
    first, *others = itertools.islice(read_all(path, format=format, **options), 2)
    if others:
        raise LatticeError(f"{path} has more than one lattice; read_all reads them")
    return first


def _format(path: Path) -> str:
    try:
        head = list(itertools.islice(lines_of(path), HEAD))
    except NotUtf8:
        return "kaldi"  # whose archives may be binary
    for name, matches in _MATCHES.items():
        if matches(head):
            return name
    # k2's final arcs may stand far behind: labels of -1 tell them from OpenFst's.
    return "k2" if k2.matches(list(lines_of(path))) else "openfst"
