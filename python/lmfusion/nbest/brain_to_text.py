"""Lines "text;acoustic;ngram" of the brain-to-text benchmark's decoder, an empty line between
utterances; "text;acoustic;ngram;llm;total" as its rescorer writes them are read too.

All scores are sums of natural logarithms: the acoustic one is the score, the n-gram's stands apart.
An utterance is named by its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from lmfusion.nbest.file_shape import FileShape, lines_of, opened
from lmfusion.nbest.hypothesis import Form, Options
from lmfusion.nbest.shape import Lists

_NUMBER = r"[-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|inf|nan)"
_LINE = re.compile(rf"(.*?);({_NUMBER});({_NUMBER})(?:;({_NUMBER});({_NUMBER}))?")


def fields_of(line: str) -> tuple[str, float, float]:
    """(text, acoustic, n-gram) of a line; ValueError if it is none."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"a line of {len(line)} letters is not text;acoustic;ngram with or "
                         "without ;llm;total")
    return found[1], float(found[2]), float(found[3])


HYPOTHESIS = Form("brain-to-text line", lambda _: False, lambda line: fields_of(line)[0],
                  lambda line, _: fields_of(line)[1], lambda line, _: fields_of(line)[2])


def _is_lines(path: Path, head: list[str], options: Options) -> bool:
    lines = [line for line in head if line.strip()]
    return bool(lines) and all(_LINE.fullmatch(line) for line in lines)


def utterances(path: Path) -> Iterator[list[str]]:
    """The lines of every utterance."""
    lines: list[str] = []
    for line in lines_of(path):
        if line.strip():
            lines.append(line)
        elif lines:
            yield lines
            lines = []
    if lines:
        yield lines


def _lists(path: Path, options: Options) -> Lists:
    for number, lines in enumerate(utterances(path)):
        yield str(number), lines, HYPOTHESIS


def _write(path: Path, options: Options, orders: Iterator[list[int]], output: Path) -> None:
    with opened(output, "w") as out:
        for number, lines in enumerate(utterances(path)):
            out.write("\n" if number else "")
            out.writelines(lines[index] + "\n" for index in next(orders))


LINES = FileShape("brain-to-text lines", _is_lines, _lists, _write)
