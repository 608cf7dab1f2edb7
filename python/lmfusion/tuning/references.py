"""References of utterances, and other files with one text an utterance.

Read are sclite's trn, Kaldi's text ("id words"), HTK's label files, JSON, JSON lines and tables
(also n-best files that have the references beside their hypotheses), and lines of text in the
order of the utterances.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmfusion import nbest
from lmfusion.nbest import htk, text_tables
from lmfusion.nbest.file_shape import lines_of
from lmfusion.nbest.hypothesis import Options
from lmfusion.nbest.lists import LIST_FIELDS, NAME_FIELDS
from lmfusion.nbest.parquet import is_parquet
from lmfusion.nbest.records import SCORE_FIELDS
from lmfusion.nbest.trn import text_and_id

REFERENCE_FIELDS = ("ref", "reference", "ref_text", "target", "transcription")
_HYPOTHESES = (*LIST_FIELDS, *SCORE_FIELDS)
# Beside one of these, "text" is the reference.
_RECOGNISED = ("pred_text", "rec_text", "beams")

# What the id of an utterance has and a word that begins a sentence has not.
_ID = re.compile(r"[\d_/]|\w-\w")

Named = tuple[str | None, str]


def read_texts(path: Path) -> list[Named]:
    """(id, text) of every utterance of a file, the id None where the file has none.

    Raises:
        ValueError: it has no references.
    """
    if (found := _of_records(path, beside=False)) is not None:
        return found
    lines = [line for line in lines_of(path) if line.strip() and not line.startswith(";;")]
    if lines and lines[0].strip() == htk.HEADER:
        return [(each.name, each.hypotheses[0].text)
                for each in nbest.read(path, missing="last") if each.hypotheses]
    if lines and all(map(text_and_id, lines)):
        return [(pair[1], pair[0]) for pair in map(text_and_id, lines) if pair]
    return _with_ids([line.strip() for line in lines_of(path)])


def references_beside(names: Sequence[str | None], path: Path) -> list[str]:
    """The references that an n-best file has beside its hypotheses.

    Raises:
        ValueError: it has none, or not all.
    """
    found = None if path.is_dir() else _of_records(path, beside=True)
    if found is None:
        raise ValueError(f"{path} has no references beside its hypotheses; give a file of "
                         "references with --ref")
    return _in_order(names, found, path)


def _of_records(path: Path, beside: bool) -> list[Named] | None:
    """Of JSON and of tables; None: the file is something else."""
    if is_parquet(path):
        found = list(_of_parquet(path))
    else:
        head = [line for line in itertools.islice(lines_of(path), 20) if line.strip()]
        if head and head[0].lstrip()[:1] in ("{", "["):
            found = list(_of_json(path, beside))
        elif text_tables.CSV.matches(path, head, Options()):
            found = list(_of_table(*text_tables.columns_of(path)))
        else:
            return None
    if not found:
        raise ValueError(f"{path} has no references: none of {', '.join(REFERENCE_FIELDS)} stands "
                         "in its records; give a file of references with --ref")
    return found


def _of_parquet(path: Path) -> Iterator[Named]:
    import pyarrow.parquet
    names = pyarrow.parquet.read_schema(path).names
    wanted = [name for name in names if name in (*NAME_FIELDS, *REFERENCE_FIELDS)]
    table = pyarrow.parquet.read_table(path, columns=wanted)
    yield from _of_table(wanted, [table[name].to_pylist() for name in wanted])


def _of_table(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> Iterator[Named]:
    """Of the columns of a table, whose rows are hypotheses: the first of every utterance."""
    found = dict(zip(names, columns))
    text = next((found[name] for name in REFERENCE_FIELDS if name in found), None)
    name = next((found[field] for field in NAME_FIELDS if field in found), None)
    if text is not None and name is not None:
        yield from {str(each): str(one) for each, one in zip(name, text)}.items()


def _with_ids(lines: list[str]) -> list[Named]:
    """Lines of Kaldi's text, whose first words are ids: all different, none a plain word. Other
    lines are all text."""
    parts = [_split(line) for line in lines if line]
    ids = {name for name, _ in parts}
    if len(parts) > 1 and len(ids) == len(parts) and all(map(_ID.search, ids)):
        return list(parts)
    return [(None, line) for line in lines]


def references_of(names: Sequence[str | None], path: Path) -> list[str]:
    """The reference of every utterance, by its id, else by its place.

    Raises:
        ValueError: an utterance has none; the text says how many and names the first.
    """
    return _in_order(names, read_texts(path), path)


def _in_order(names: Sequence[str | None], found: list[Named], path: Path) -> list[str]:
    by_name: dict[str, str] = {}
    for name, text in found:
        if name is not None and by_name.setdefault(name, text) != text:
            raise ValueError(f"{path} has several texts of {name!r}: one reference of every "
                             "utterance is expected, no hypotheses")
    if not by_name and found:
        table = dict(_split(line) for _, line in found)
        if any(name in table for name in names):
            by_name = table
    if by_name and any(name in by_name for name in names):
        missing = [name for name in names if name not in by_name]
        if missing:
            raise ValueError(f"{path} has no reference of {len(missing)} of {len(names)} "
                             f"utterances; the first is {missing[0]!r}")
        return [by_name[str(name)].strip() for name in names]
    if len(found) != len(names):
        raise ValueError(f"{path} has {len(found)} references for {len(names)} utterances, and no "
                         "ids in common with them: give references with ids, or as many lines")
    return [text for _, text in found]


def best_texts(path: Path) -> list[Named]:
    """(id, text) of every utterance of a result: the first of its hypotheses.

    Raises:
        ValueError: it is neither an n-best file nor a file of texts.
    """
    try:
        document = nbest.read(path)
    except ValueError:
        if path.is_dir() or path.stat().st_size == 0:
            raise
        return read_texts(path)
    return [(utterance.name, utterance.hypotheses[0].text if utterance.hypotheses else "")
            for utterance in document]


def _split(line: str) -> tuple[str, str]:
    """The first word and the rest, which a blank or a tab parts."""
    name, text = ([*line.split(None, 1), "", ""])[:2]
    return name, text


def _of_json(path: Path, beside: bool) -> Iterator[Named]:
    lines = [line for line in lines_of(path) if line.strip()]
    try:
        documents = [json.loads(line) for line in lines]
    except json.JSONDecodeError:
        try:
            documents = [json.loads("\n".join(lines))]
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
    for document in documents:
        yield from _of_document(document, None, beside)


def _of_document(document: Any, name: str | None, beside: bool) -> Iterator[Named]:
    if isinstance(document, list):
        for each in document:
            yield from _of_document(each, name, beside)
    elif isinstance(document, dict):
        name = next((str(document[field]) for field in (*NAME_FIELDS, "uid")
                     if field in document), name)
        if (text := _reference(document, beside)) is not None:
            yield name, text
        elif isinstance(document.get("utts"), dict):  # ESPnet
            for utterance, entry in document["utts"].items():
                yield from itertools.islice(
                    _of_document(entry.get("output", []), utterance, beside), 1)
        else:
            for key, value in document.items():
                if isinstance(value, str) and not beside and _is_table(document):
                    yield key, value
                elif isinstance(value, dict):
                    yield from _of_document(value, key, beside)


def _is_table(document: dict[str, Any]) -> bool:
    """{id: text}."""
    return all(isinstance(value, str) for value in document.values()) and not any(
        name in document for name in (*_HYPOTHESES, *NAME_FIELDS, "text"))


def _reference(record: dict[str, Any], beside: bool) -> str | None:
    for field in REFERENCE_FIELDS:
        if isinstance(record.get(field), str):
            return str(record[field])
    text = record.get("text")
    if isinstance(text, str) and (any(name in record for name in _RECOGNISED) or (
            not beside and not any(name in record for name in _HYPOTHESES))):
        return text
    return None
