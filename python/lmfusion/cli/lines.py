"""Lines that commands read; a byte-order mark before the first is no text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path


def lines_of_stdin() -> Iterator[str]:
    """The lines of stdin as they come, without their ends."""
    for number, line in enumerate(sys.stdin):
        yield (line if number else line.removeprefix("\ufeff")).rstrip("\r\n")


def lines_of_file(path: Path) -> Iterator[str]:
    """The lines of a file in UTF-8, without their ends."""
    with open(path, encoding="utf-8-sig") as file:
        for line in file:
            yield line.rstrip("\n")
