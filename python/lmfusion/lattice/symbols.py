"""Symbol tables, and labels that are numbers in one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from lmfusion.errors import LatticeError
from lmfusion.nbest.file_shape import lines_of
from lmfusion.shown import number_of, shown

Symbols = Mapping[str, int] | Mapping[int, str] | str | os.PathLike[str]
_NUMBER = re.compile(r"-?\d+")


class SymbolTable:
    """Which word a label is: its number in a table, or the word itself.

    Args:
        symbols: word -> number, number -> word, a file of lines "word number" (`words.txt`), or
            None: the labels are the words.

    Raises:
        LatticeError: a line of the file is none of a symbol table.
    """

    def __init__(self, symbols: Symbols | None) -> None:
        self._words: dict[str, str] = {}
        self._known: set[str] | None = None
        if symbols is None:
            return
        pairs = symbols.items() if isinstance(symbols, Mapping) else _pairs(Path(symbols))
        for one, other in pairs:
            word, number = (one, other) if isinstance(one, str) else (str(other), one)
            self._words[str(number)] = word
        self._known = set(self._words.values())

    def label(self, field: str, where: str) -> str:
        """What an arc says; "" for the number 0, which is epsilon in every table.

        Raises:
            LatticeError: the table does not have it, or a number has no table.
        """
        if field == "0":
            return ""
        if _NUMBER.fullmatch(field) and (self._known is None or field in self._words
                                         or field not in self._known):
            if field not in self._words:
                raise LatticeError(f"{where}: the label {field} is a number, and " +
                                   ("there is no symbol table; symbols= gives one"
                                    if self._known is None else "the symbol table has no such"))
            return self._words[field]
        if self._known is not None and field not in self._known:
            raise LatticeError(f"{where}: the symbol table does not have the label")
        return field


def _pairs(path: Path) -> list[tuple[str, int]]:
    pairs = []
    for number, line in enumerate(lines_of(path), 1):
        fields = line.split()
        if fields:
            if len(fields) != 2 or not _NUMBER.fullmatch(fields[1]):
                raise LatticeError(f"{path}, line {number}: a symbol and its number expected")
            pairs.append((fields[0], int(fields[1])))
    return pairs


def number(field: str, where: str) -> int:
    """A node's number.

    Raises:
        LatticeError: it is none.
    """
    if not field.isascii() or not field.isdigit():
        raise LatticeError(f"{where}: {shown(field)} where the number of a node is expected")
    return int(field)


def score(field: str, where: str) -> float:
    """A score or cost; "Infinity" is infinite.

    Raises:
        LatticeError: it is no number.
    """
    try:
        return number_of(field, where)
    except ValueError as error:
        raise LatticeError(str(error)) from None
