"""SRILM's n-best lists, a file an utterance, whose name gives the id.

"NBestList1.0": lines "(bytelog) words"; "NBestList2.0": "(bytelog)" and eleven fields a word, of
which those within another (phones) are no words. A bytelog is a logarithm to the base
exp(1024 / 10000.5). Without either header: "acoustic lm number-of-words words", logarithms to
base 10, of which the acoustic one is the score and the other the n-gram's.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path

from lmfusion.nbest.file_shape import FileShape, lines_of, opened
from lmfusion.nbest.htk import NO_WORDS
from lmfusion.nbest.hypothesis import Form, Options
from lmfusion.nbest.shape import Lists
from lmfusion.shown import number_of

HEADERS = ("NBestList1.0", "NBestList2.0")
NATS_OF_BYTELOG = 1024 / 10000.5
_PLAIN = re.compile(r"\s*([-+.\deE]+|-inf)\s+([-+.\deE]+|-inf)\s+(\d+)(?:\s+(.*))?")
_FIELDS = 11
_HEAD = 20  # lines by which a list is recognised


def _is_list(path: Path, head: list[str], options: Options) -> bool:
    return bool(head) and (head[0].strip() in HEADERS or all(map(_is_plain, head)))


def _is_plain(line: str) -> bool:
    found = _PLAIN.fullmatch(line)
    return found is not None and int(found.group(3)) <= len((found.group(4) or "").split())


def _words_of_times(fields: list[str]) -> list[str]:
    """The words among entries "word st: start et: end g: lm a: acoustic ..."."""
    words, last_end = [], -math.inf
    for place in range(0, len(fields) - _FIELDS + 1, _FIELDS):
        start, end = (number_of(fields[place + i], "an SRILM list: a word's time")
                      for i in (2, 4))
        if start > last_end:
            words.append(fields[place])
            last_end = end
    return words


def _text(header: str) -> Form:
    def text(line: str) -> str:
        if header == HEADERS[0]:
            words = line.split()[1:]
        elif header == HEADERS[1]:
            words = _words_of_times(line.split()[1:])
        else:
            words = line.split()[3:]
        return " ".join(word for word in words if word not in NO_WORDS)

    def score(line: str, options: Options) -> float | None:
        first = line.split(maxsplit=1)[0]
        try:
            if header:
                return float(first.strip("()")) * NATS_OF_BYTELOG
            return float(first) * math.log(10)
        except ValueError:
            return None

    def ngram(line: str, options: Options) -> float:
        score = line.split(maxsplit=2)[1]
        return number_of(score, "an SRILM list: a language model's score") * math.log(10)

    return Form("SRILM n-best list", lambda _: False, text, score, None if header else ngram)


def _content(path: Path) -> tuple[str, list[str]]:
    lines = [line for line in lines_of(path) if line.strip()]
    if lines and lines[0].strip() in HEADERS:
        return lines[0].strip(), lines[1:]
    return "", lines


def _lists(path: Path, options: Options) -> Lists:
    header, lines = _content(path)
    for number, line in enumerate(lines):
        if not header and not _is_plain(line):
            raise ValueError(f"{path.name}, hypothesis {number}: \"acoustic lm number-of-words "
                             "words\" with as many words expected; the line may be cut")
        if header == HEADERS[1] and len(line.split()) % _FIELDS != 1:
            raise ValueError(f"{path.name}, hypothesis {number}: \"(bytelog)\" and {_FIELDS} "
                             f"fields a word expected, {len(line.split())} fields found; the line "
                             "may be cut")
    yield path.name.partition(".")[0], lines, _text(header)


def _write(path: Path, options: Options, orders: Iterator[list[int]], output: Path) -> None:
    header, lines = _content(path)
    with opened(output, "w") as out:
        for line in ([header] if header else []) + [lines[index] for index in next(orders)]:
            out.write(line + "\n")


def _is_folder(path: Path, head: list[str], options: Options) -> bool:
    files = _files(path) if path.is_dir() else []
    return bool(files) and _is_list(files[0], list(itertools.islice(lines_of(files[0]), _HEAD)),
                                    options)


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != ".")


def _folder_lists(path: Path, options: Options) -> Lists:
    for file in _files(path):
        yield from _lists(file, options)


def _folder_write(path: Path, options: Options, orders: Iterator[list[int]],
                  output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    for file in _files(path):
        _write(file, options, orders, output / file.name)


FOLDER = FileShape("folder of SRILM n-best lists", _is_folder, _folder_lists, _folder_write)
LIST = FileShape("SRILM n-best list", _is_list, _lists, _write)
