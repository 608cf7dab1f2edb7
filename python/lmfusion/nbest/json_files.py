"""JSON: one document in a file, or a document a line (NeMo's manifests).

What stands in it has one of the shapes in memory. A file of lines is read and written a line at a
time, unless its lines are rows of a table (utterance, text, score).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmfusion.nbest import nemo, tables
from lmfusion.nbest.file_shape import FileShape, decoded, lines_of, opened
from lmfusion.nbest.hypothesis import Options
from lmfusion.nbest.lists import SHAPES, form_of, shape_of
from lmfusion.nbest.shape import Lists, Shape


def _is_lines(path: Path, head: list[str], options: Options) -> bool:
    lines = [line for line in head if line.strip()]
    try:
        first = json.loads(lines[0]) if lines else None
    except json.JSONDecodeError:
        return False
    return isinstance(first, (dict, list)) and (
        len(lines) > 1 or path.suffix == ".jsonl" or nemo.is_manifest_line(first)
        or shape_of(first) is None)


def _is_document(path: Path, head: list[str], options: Options) -> bool:
    first = next((line.lstrip() for line in head if line.strip()), "")
    return first[:1] in ("{", "[") and not _is_lines(path, head, options)


def _document(path: Path) -> tuple[Any, Shape]:
    with decoded(path), opened(path) as file:
        try:
            document = json.loads(file.read().removeprefix("\ufeff"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
    shape = shape_of(document)
    if shape is None:
        raise ValueError(unknown(document, str(path)))
    return document, shape


def unknown(document: Any, where: str) -> str:
    """What to say about a document that is not recognised."""
    if isinstance(document, dict) and (form := form_of([document])) is not None:
        return (f"{where} is one hypothesis ({form.name}), which leaves nothing to choose from; a "
                "list of all hypotheses of an utterance is expected")
    return (f"{where} ({type(document).__name__}) is no n-best list of a known shape; known are: "
            + "; ".join(dict.fromkeys(shape.name for shape in SHAPES)))


def _document_lists(path: Path, options: Options) -> Lists:
    document, shape = _document(path)
    return shape.lists(document)


def _document_write(path: Path, options: Options, orders: Iterator[list[int]],
                    output: Path) -> None:
    document, shape = _document(path)
    with opened(output, "w") as out:
        json.dump(shape.rebuilt(document, orders), out, indent=4, ensure_ascii=False)
        out.write("\n")


def _lines(path: Path) -> Iterator[tuple[str, Any, Shape]]:
    """Every line, its document, its shape."""
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from None
        shape = shape_of(document)
        if shape is None:
            raise ValueError(unknown(document, f"{path}, line {number}"))
        yield line, document, shape


def _row_lines(path: Path) -> list[Any] | None:
    """The lines, if they are rows of a table."""
    first = json.loads(next(line for line in lines_of(path) if line.strip()))
    if not tables.ROWS.matches([first]):
        return None
    rows = [json.loads(line) for line in lines_of(path) if line.strip()]
    return rows if tables.ROWS.matches(rows) else None


def _lines_lists(path: Path, options: Options) -> Lists:
    if (rows := _row_lines(path)) is not None:
        yield from tables.ROWS.lists(rows)
        return
    for _, document, shape in _lines(path):
        yield from shape.lists(document)


def _lines_write(path: Path, options: Options, orders: Iterator[list[int]], output: Path) -> None:
    rows = _row_lines(path)
    with opened(output, "w") as out:
        if rows is not None:
            for row in tables.ROWS.rebuilt(rows, orders):
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
            return
        for line, document, shape in _lines(path):
            rebuilt = shape.rebuilt(document, orders)
            out.write(json.dumps(rebuilt, ensure_ascii=line.isascii()) + "\n")


DOCUMENT = FileShape("JSON document", _is_document, _document_lists, _document_write)
LINES = FileShape("JSON lines", _is_lines, _lines_lists, _lines_write)
