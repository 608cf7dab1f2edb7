"""HTK's n-best master label files: alternatives of a file stand between lines "///".

A line is "start end word score", the score the natural logarithm of the word's likelihood, as
HVite writes it; a hypothesis's score is their sum. Silence and the marks of a text's start and end
are no words of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmfusion.nbest.file_shape import FileShape, lines_of, opened
from lmfusion.nbest.hypothesis import Form, Options
from lmfusion.nbest.shape import Lists
from lmfusion.shown import shown

NO_WORDS = frozenset({"!NULL", "!ENTER", "!EXIT", "SENT-START", "SENT-END", "<s>", "</s>", "sil",
                      "sp", "SIL", "SP", "<sil>", "-pau-"})
_OCTAL = re.compile(r"\\([0-7]{3})")
HEADER = "#!MLF!#"


def word_of(label: str) -> str:
    """A label without HTK's quotes and escapes."""
    if len(label) > 1 and label[0] == label[-1] and label[0] in "\"'":
        label = label[1:-1]
    return _OCTAL.sub(lambda found: chr(int(found.group(1), 8)), label).replace("\\'", "'") \
        .replace('\\"', '"')


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _fields(line: str) -> tuple[str, float | None]:
    """(label, score) of a line: [start [end]] label [score] ..."""
    fields = line.split()
    start = 0
    while start < min(2, len(fields) - 1) and re.fullmatch(r"-?\d+", fields[start]):
        start += 1
    score = _number(fields[start + 1]) if len(fields) > start + 1 else None
    return fields[start], score


def _text(lines: list[str]) -> str:
    words = [word_of(_fields(line)[0]) for line in lines]
    return " ".join(word for word in words if word not in NO_WORDS)


def _score(lines: list[str], _: Options) -> Any:
    scores = [score for line in lines if (score := _fields(line)[1]) is not None]
    return sum(scores) if scores else None


ALTERNATIVE = Form("HTK n-best label file", lambda _: False, _text, _score)


def _files(path: Path) -> Iterator[tuple[str, list[list[str]]]]:
    """Every file's pattern and alternatives."""
    pattern: str | None = None
    alternatives: list[list[str]] = []
    for number, line in enumerate(lines_of(path), 1):
        stripped = line.strip()
        if (stripped == HEADER and number == 1) or not stripped:
            continue
        if pattern is None:
            if not (len(stripped) > 1 and stripped[0] == stripped[-1] == '"'):
                raise ValueError(f"{path}, line {number}: {shown(stripped)} where the name of a "
                                 "file in quotes is expected")
            pattern, alternatives = stripped, [[]]
        elif stripped == ".":
            yield pattern, [lines for lines in alternatives if lines]
            pattern = None
        elif stripped == "///":
            alternatives.append([])
        else:
            alternatives[-1].append(line)
    if pattern is not None:
        raise ValueError(f'{path} ends within {pattern}; a line "." is missing')


def _lists(path: Path, options: Options) -> Lists:
    for pattern, alternatives in _files(path):
        yield Path(pattern.strip('"')).stem, alternatives, ALTERNATIVE


def _write(path: Path, options: Options, orders: Iterator[list[int]], output: Path) -> None:
    with opened(output, "w") as out:
        out.write(HEADER + "\n")
        for pattern, alternatives in _files(path):
            blocks = ["".join(line + "\n" for line in alternatives[index])
                      for index in next(orders)]
            out.write(pattern + "\n" + "///\n".join(blocks) + ".\n")


LABELS = FileShape("HTK n-best label file (MLF)",
                   lambda path, head, options: bool(head) and head[0].strip() == HEADER,
                   _lists, _write)
