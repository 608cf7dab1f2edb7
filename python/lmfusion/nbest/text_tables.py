"""Text files of lines: NeMo's beam search .tsv, and CSV or .tsv with a line of names.

NeMo's eval_beamsearch_ngram writes "text<TAB>score" without names, a fixed number of lines an
utterance: `beam_size=` says how many. The score is the search's sum of natural logarithms.
With a line of names, columns are found as in tables.py, and lines of an utterance take each
other's places.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmfusion.nbest.file_shape import FileShape, decoded, lines_of, opened
from lmfusion.nbest.hypothesis import Form, Options
from lmfusion.nbest.shape import Lists
from lmfusion.nbest.tables import Columns, Table, row_order
from lmfusion.shown import shown


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_beams(path: Path, head: list[str], options: Options) -> bool:
    lines = [line for line in head if line.strip() or "\t" in line]
    return bool(lines) and all(
        line.count("\t") == 1 and _number(line.rpartition("\t")[2]) is not None for line in lines)


BEAM = Form("NeMo beams .tsv", lambda _: False, lambda line: line.rpartition("\t")[0],
            lambda line, options: options.nats(float(line.rpartition("\t")[2])))


def _chunks(path: Path, options: Options) -> Iterator[list[str]]:
    if options.beam_size is None:
        raise ValueError(f"{path}: lines of text and score without utterances; give beam_size=, "
                         "the number of lines of every utterance")
    lines = (line for line in lines_of(path) if line.strip() or "\t" in line)
    for number in itertools.count(1):
        chunk = list(itertools.islice(lines, options.beam_size))
        if not chunk:
            return
        if len(chunk) < options.beam_size:
            raise ValueError(f"{path}: utterance {number} has {len(chunk)} lines where beam_size = "
                             f"{options.beam_size}: utterances would be mixed up")
        for line in chunk:
            if "\t" not in line or _number(line.rpartition("\t")[2]) is None:
                raise ValueError(f"{path}: a line of utterance {number}, {shown(line)}, is not a "
                                 "text, a tab and a number")
        yield chunk


def _beams_write(path: Path, options: Options, orders: Iterator[list[int]], output: Path) -> None:
    with opened(output, "w") as out:
        for chunk in _chunks(path, options):
            out.writelines(chunk[index] + "\n" for index in next(orders))


BEAMS = FileShape("NeMo beams .tsv with beam_size=", _is_beams,
                  lambda path, options: ((None, chunk, BEAM) for chunk in _chunks(path, options)),
                  _beams_write)


def _delimiter(header: str) -> str:
    return max("\t,;", key=header.count)  # the first of those that are equally many


def _has_names(path: Path, head: list[str], options: Options) -> bool:
    if not head:
        return False
    names = next(csv.reader(head[:1], delimiter=_delimiter(head[0])))
    if len(names) < 2 or any(_number(name) is not None for name in names):
        return False
    if options.columns:
        return set(options.columns.values()) <= set(names)
    columns = Columns(names, {})
    return columns.text is not None and columns.score is not None


def _rows(path: Path) -> tuple[list[str], list[list[str]], str]:
    with decoded(path), opened(path) as file:
        header = file.readline()
        delimiter = _delimiter(header)
        names = next(csv.reader([header.removeprefix("\ufeff")], delimiter=delimiter))
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            rows = [row for row in reader if row]
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num + 1}: {error}; quotes within a field "
                             "are doubled and the field is quoted") from None
    for number, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise ValueError(f"{path}, row {number}: {len(row)} fields, {len(names)} expected")
    return names, rows, delimiter


def columns_of(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of the columns, and what stands in them."""
    names, rows, _ = _rows(path)
    return names, [[row[place] for row in rows] for place in range(len(names))]


def _table(names: list[str], rows: list[list[str]], options: Options) -> Table:
    score = Columns(names, options.columns).score

    def value(name: str, text: str) -> Any:
        return (None if text == "" else _number(text) if _number(text) is not None else text) \
            if name == score else text

    columns = {name: [value(name, row[place]) for row in rows]
               for place, name in enumerate(names)}
    return Table(columns, options.columns)


def _lists(path: Path, options: Options) -> Lists:
    names, rows, _ = _rows(path)
    return _table(names, rows, options).lists()


def _write(path: Path, options: Options, orders: Iterator[list[int]], output: Path) -> None:
    names, rows, delimiter = _rows(path)
    order = row_order(list(_table(names, rows, options).groups.values()), orders)
    with opened(output, "w") as file:
        out = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        out.writerow(names)
        out.writerows(rows[row] for row in order)


CSV = FileShape("CSV or .tsv with named columns", _has_names, _lists, _write)
