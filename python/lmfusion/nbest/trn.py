"""NIST sclite's .trn: lines "words (id)".

Lines of one id that follow each other are its hypotheses, best first; mostly there is one. There
are no scores: the language model and the words decide. Comments (";;") are kept where they are.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from lmfusion.nbest.file_shape import FileShape, lines_of, opened
from lmfusion.nbest.hypothesis import Form, Options
from lmfusion.nbest.shape import Lists

_LINE = re.compile(r"(.*?)\s*\(([^()\s]+)\)\s*")


def text_and_id(line: str) -> tuple[str, str] | None:
    """(words, id) of a line; None if it is none."""
    found = _LINE.fullmatch(line)
    return None if found is None else (found[1].strip(), found[2])


HYPOTHESIS = Form("sclite trn", lambda _: False,
                  lambda line: (text_and_id(line) or (None,))[0], lambda *_: 0.0)


def _is_comment(line: str) -> bool:
    return not line.strip() or line.startswith(";;")


def _is_trn(path: Path, head: list[str], options: Options) -> bool:
    lines = [line for line in head if not _is_comment(line)]
    return bool(lines) and all(map(text_and_id, lines))


def _groups(path: Path) -> Iterator[tuple[str | None, list[str]]]:
    """Lines by id; comments and empty lines under None."""
    def identity(line: str) -> str | None:
        if _is_comment(line):
            return None
        found = text_and_id(line)
        if found is None:
            raise ValueError(f"{path}: a line of {len(line)} letters does not end in an id in "
                             "brackets")
        return found[1]
    for name, lines in itertools.groupby(lines_of(path), identity):
        yield name, list(lines)


def _lists(path: Path, options: Options) -> Lists:
    for name, lines in _groups(path):
        if name is not None:
            yield name, lines, HYPOTHESIS


def _write(path: Path, options: Options, orders: Iterator[list[int]], output: Path) -> None:
    with opened(output, "w") as out:
        for name, lines in _groups(path):
            order = range(len(lines)) if name is None else next(orders)
            out.writelines(lines[index] + "\n" for index in order)


TRN = FileShape("sclite .trn", _is_trn, _lists, _write)
