"""ESPnet 2's folders: {1,2,...}best_recog, each with files `text`, `score`, `token` by id.

The text is of `text`; the score of `score`, the search's weighted sum of natural logarithms, which
may read "tensor(-5.43)" or "np.float32(-5.43)". Of several speakers (text_spk1, ...) `speaker=`
takes one. Every file of ids is written in the new order; anything else is copied.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lmfusion.nbest.file_shape import FileShape, opened, table_of
from lmfusion.nbest.hypothesis import Form, Options
from lmfusion.nbest.shape import Lists

_NUMBER = re.compile(r"(?:(?:tensor|(?:np|numpy)\.\w+)\()?\s*\[?\s*"
                     r"([-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|inf|nan))")


def _matches(path: Path, head: list[str], options: Options) -> bool:
    return path.is_dir() and (path / "1best_recog").is_dir()


def _ranks(path: Path) -> list[Path]:
    """The folders in order; the first that is missing ends them."""
    folders: list[Path] = []
    while (folder := path / f"{len(folders) + 1}best_recog").is_dir():
        folders.append(folder)
    return folders


def _file(folder: Path, name: str, options: Options) -> Path:
    path = folder / (name if options.speaker is None else f"{name}_spk{options.speaker}")
    if not path.exists():
        speakers = sorted(each.name for each in folder.glob(f"{name}_spk*"))
        advice = f"; it has {', '.join(speakers)}: give speaker=" if speakers else ""
        raise ValueError(f"the n-best folder {folder} has no file {path.name!r}{advice}")
    return path


def _score(pair: Any, _: Options) -> Any:
    found = _NUMBER.match(pair[1]) if pair[1] is not None else None
    return float(found.group(1)) if found else pair[1] or None


ENTRY = Form("ESPnet n-best folder", lambda _: False, lambda pair: pair[0], _score)


def _lists(path: Path, options: Options) -> Lists:
    texts = [table_of(_file(folder, "text", options)) for folder in _ranks(path)]
    scores = [table_of(_file(folder, "score", options)) for folder in _ranks(path)]
    for name in _names(scores, texts):
        yield name, [(of_text[name], of_score.get(name))
                     for of_text, of_score in zip(texts, scores) if name in of_text], ENTRY


def _names(*tables: list[dict[str, str]]) -> list[str]:
    names: dict[str, None] = {}
    for ranks in tables:
        for table in ranks:
            names.update(dict.fromkeys(table))
    return list(names)


def _write(path: Path, options: Options, orders: Iterator[list[int]], output: Path) -> None:
    folders = _ranks(path)
    texts = [table_of(_file(folder, "text", options)) for folder in folders]
    scores = [table_of(_file(folder, "score", options)) for folder in folders]
    source: dict[str, dict[int, int]] = {}  # id -> new rank -> old rank
    for name in _names(scores, texts):
        there = [rank for rank, table in enumerate(texts) if name in table]
        source[name] = dict(zip(there, [there[index] for index in next(orders)]))
    suffix = "" if options.speaker is None else f"_spk{options.speaker}"
    for rank, folder in enumerate(folders):
        target = output / folder.name
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.iterdir()):
            if not all((other / file.name).exists() for other in folders) or (
                    not file.name.endswith(suffix)):
                shutil.copy2(file, target / file.name)
                continue
            tables = [table_of(other / file.name) for other in folders]
            with opened(target / file.name, "w") as out:
                for name in tables[rank]:
                    value = tables[source.get(name, {}).get(rank, rank)].get(name, "")
                    out.write(f"{name} {value}".rstrip() + "\n")


FOLDER = FileShape("ESPnet n-best folder", _matches, _lists, _write)
