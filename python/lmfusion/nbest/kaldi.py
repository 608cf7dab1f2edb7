"""Kaldi's n-best texts: lines "utt-N words", and files of scores by the same ids.

As lattice-to-nbest and nbest-to-linear write them, or a folder of rnnlmrescore with `words_text`
and `acwt`. The ids end in the hypothesis's number; hypotheses are taken in the order of these.
Scores are given as `scores=`, one path or several, which are added up. Kaldi writes costs, which
are negated: files named acwt, lmwt or *cost* are costs, others are if `costs=True`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmfusion.nbest.file_shape import FileShape, opened, table_of
from lmfusion.nbest.hypothesis import Form, Options
from lmfusion.nbest.shape import Lists
from lmfusion.shown import shown

_ID = re.compile(r"(.*)-(\d+)")
_COSTS = re.compile(r"acwt|lmwt|cost")
FOLDER_TEXT, FOLDER_SCORE = "words_text", "acwt"


def _is_text(path: Path, head: list[str], options: Options) -> bool:
    return path.is_file() and bool(options.scores) and bool(head) and all(
        _ID.fullmatch(line.split(None, 1)[0]) for line in head if line.strip())


def _is_folder(path: Path, head: list[str], options: Options) -> bool:
    return path.is_dir() and all((path / name).is_file() for name in (FOLDER_TEXT, FOLDER_SCORE))


def _split(name: str, path: Path) -> tuple[str, int]:
    found = _ID.fullmatch(name)
    if found is None:
        raise ValueError(f'{path}: the id {name!r} does not end in the number of a hypothesis, '
                         'as in "utt-1"')
    return found.group(1), int(found.group(2))


def _utterances(path: Path, texts: dict[str, str]) -> dict[str, list[str]]:
    """The ids of every utterance's hypotheses by their numbers."""
    found: dict[str, list[str]] = {}
    for name in texts:
        found.setdefault(_split(name, path)[0], []).append(name)
    return {utterance: sorted(names, key=lambda name: _split(name, path)[1])
            for utterance, names in found.items()}


def _numbers(path: Path, options: Options) -> dict[str, float]:
    """Of a file of scores: id -> score, costs negated."""
    numbers = {}
    for name, value in table_of(path).items():
        try:
            numbers[name] = float(value)
        except ValueError:
            raise ValueError(f"{path}: the score of {name}, {shown(value)}, is not a "
                             "number") from None
    costs = options.costs
    if costs is None:
        costs = _COSTS.search(path.name) is not None
        if not costs and any(number > 0 for number in numbers.values()):
            raise ValueError(f"{path} has numbers above 0, which may be costs, as Kaldi writes "
                             "them; say so with costs=True, or costs=False")
    return {name: -number if costs else number for name, number in numbers.items()}


ENTRY = Form("Kaldi n-best text", lambda _: False, lambda pair: pair[0],
             lambda pair, options: None if pair[1] is None else options.nats(pair[1]))


def _lists(path: Path, options: Options) -> Lists:
    texts = table_of(path)
    files = [_numbers(Path(each), options) for each in options.scores]

    def total(name: str) -> float | None:
        return sum(file[name] for file in files) if all(name in file for file in files) else None

    for utterance, names in _utterances(path, texts).items():
        yield utterance, [(texts[name], total(name)) for name in names], ENTRY


def _write(path: Path, options: Options, orders: Iterator[list[int]], output: Path) -> None:
    utterances = _utterances(path, table_of(path))
    renamed: dict[str, str] = {}  # new id -> old id
    for names in utterances.values():
        renamed.update(zip(names, [names[index] for index in next(orders)]))
    output.mkdir(parents=True, exist_ok=True)
    for file in (path, *map(Path, options.scores)):
        table = table_of(file)
        with opened(output / file.name, "w") as out:
            for name, old in renamed.items():
                if old in table:
                    out.write(f"{name} {table[old]}".rstrip() + "\n")


def _of_folder(path: Path, options: Options) -> tuple[Path, Any]:
    scores = options.scores or (path / FOLDER_SCORE,)
    return path / FOLDER_TEXT, Options(**{**vars(options), "scores": tuple(scores)})


TEXT = FileShape("Kaldi n-best text with scores=", _is_text, _lists, _write)
FOLDER = FileShape("Kaldi n-best folder", _is_folder,
                   lambda path, options: _lists(*_of_folder(path, options)),
                   lambda path, options, orders, output:
                   _write(*_of_folder(path, options), orders, output))
