"""How files hold n-best lists."""

from __future__ import annotations

import contextlib
import gzip
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from lmfusion.nbest.hypothesis import Options
from lmfusion.nbest.shape import Lists


@dataclass(frozen=True)
class FileShape:
    """A file or folder of n-best lists.

    Attributes:
        name: for messages and docs/nbest.md.
        matches: whether a path has this shape; given the first lines of a file, [] of a folder.
        lists: the hypotheses of every utterance, read as they are asked for.
        write: the same shape at another path, every list in a new order, as the orders come.
    """

    name: str
    matches: Callable[[Path, list[str], Options], bool]
    lists: Callable[[Path, Options], Lists]
    write: Callable[[Path, Options, Iterator[list[int]], Path], None]


def opened(path: Path, mode: str = "r") -> IO[str]:
    """A text file in UTF-8, compressed where its name ends in .gz; line ends are kept, a byte-order
    mark before them is not.

    What is compressed has neither name nor time in it: the same text is the same bytes.
    """
    if path.suffix == ".gz":
        if mode == "w":
            return io.TextIOWrapper(_Gzip(path), encoding="utf-8", newline="")
        return cast(IO[str], gzip.open(path, mode + "t", encoding="utf-8-sig", newline=""))
    return open(path, mode, encoding="utf-8" if mode == "w" else "utf-8-sig", newline="")


class _Gzip(gzip.GzipFile):
    """To write, and to close with its file."""

    def __init__(self, path: Path) -> None:
        self._below = path.open("wb")
        super().__init__(filename="", mode="wb", fileobj=self._below, mtime=0)

    def close(self) -> None:
        super().close()
        self._below.close()


class NotUtf8(ValueError):
    """A file of text is none in UTF-8."""


@contextlib.contextmanager
def decoded(path: Path) -> Iterator[None]:
    """Names a file that is not UTF-8 (NotUtf8)."""
    try:
        yield
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise NotUtf8(f"{path} is not UTF-8 (byte {byte:#04x}); convert it, with iconv say"
                      ) from None


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a file without their ends and without a byte-order mark."""
    with decoded(path), opened(path) as file:
        for number, line in enumerate(file):
            yield (line.removeprefix("\ufeff") if number == 0 else line).rstrip("\r\n")


def table_of(path: Path) -> dict[str, str]:
    """A Kaldi text table: id -> the rest of its line, "" where there is none.

    Raises:
        ValueError: an id stands there twice.
    """
    result: dict[str, str] = {}
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        name, _, rest = line.strip().replace("\t", " ").partition(" ")
        if name in result:
            raise ValueError(f"{path}, line {number}: {name} is there twice")
        result[name] = rest.strip()
    return result
