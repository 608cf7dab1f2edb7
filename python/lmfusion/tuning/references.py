"""References of utterances, and other files with one text an utterance.

Read are sclite's trn, Kaldi's text ("id words"), JSON and JSON lines (also an n-best file that has
the references beside its hypotheses), and lines of text in the order of the utterances.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmfusion import nbest
from lmfusion.nbest.file_shape import lines_of
from lmfusion.nbest.lists import LIST_FIELDS, NAME_FIELDS
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
    head = [line for line in itertools.islice(lines_of(path), 20) if line.strip()]
    if head and head[0].lstrip()[:1] in ("{", "["):
        found = list(_of_json(path))
        if not found:
            raise ValueError(f"{path} has no references: none of "
                             f"{', '.join(REFERENCE_FIELDS)} stands in its records; give a file "
                             "of references with --ref")
        return found
    lines = [line for line in lines_of(path) if line.strip() and not line.startswith(";;")]
    if lines and all(map(text_and_id, lines)):
        return [(pair[1], pair[0]) for pair in map(text_and_id, lines) if pair]
    return _with_ids([line.strip() for line in lines_of(path)])


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
    found = read_texts(path)
    by_name = {name: text for name, text in found if name is not None}
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
        return read_texts(path)
    return [(utterance.name, utterance.hypotheses[0].text if utterance.hypotheses else "")
            for utterance in document]


def _split(line: str) -> tuple[str, str]:
    """The first word and the rest, which a blank or a tab parts."""
    name, text = ([*line.split(None, 1), "", ""])[:2]
    return name, text


def _of_json(path: Path) -> Iterator[Named]:
    lines = [line for line in lines_of(path) if line.strip()]
    try:
        documents = [json.loads(line) for line in lines]
    except json.JSONDecodeError:
        try:
            documents = [json.loads("\n".join(lines))]
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
    for document in documents:
        yield from _of_document(document, None)


def _of_document(document: Any, name: str | None) -> Iterator[Named]:
    if isinstance(document, list):
        for each in document:
            yield from _of_document(each, name)
    elif isinstance(document, dict):
        name = next((str(document[field]) for field in (*NAME_FIELDS, "uid")
                     if field in document), name)
        if (text := _reference(document)) is not None:
            yield name, text
        elif isinstance(document.get("utts"), dict):  # ESPnet
            for utterance, entry in document["utts"].items():
                yield from itertools.islice(_of_document(entry.get("output", []), utterance), 1)
        else:
            for key, value in document.items():
                if isinstance(value, str) and _is_table(document):
                    yield key, value
                elif isinstance(value, dict):
                    yield from _of_document(value, key)


def _is_table(document: dict[str, Any]) -> bool:
    """{id: text}."""
    return all(isinstance(value, str) for value in document.values()) and not any(
        name in document for name in (*_HYPOTHESES, *NAME_FIELDS, "text"))


def _reference(record: dict[str, Any]) -> str | None:
    for field in REFERENCE_FIELDS:
        if isinstance(record.get(field), str):
            return str(record[field])
    text = record.get("text")
    if isinstance(text, str) and (any(name in record for name in _RECOGNISED) or not any(
            name in record for name in _HYPOTHESES)):
        return text
    return None
