"""One reader for every n-best shape, in memory and in files."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmfusion.nbest import (
    brain_to_text,
    espnet_folder,
    htk,
    json_files,
    kaldi,
    parquet,
    slf,
    srilm,
    tables,
    text_tables,
    trn,
)
from lmfusion.nbest.file_shape import FileShape, lines_of
from lmfusion.nbest.hypothesis import Form, Options, Utterance, read_hypothesis
from lmfusion.nbest.lists import SHAPES, form_of, shape_of
from lmfusion.nbest.shape import Lists, Shape

FILES = (parquet.PARQUET, espnet_folder.FOLDER, kaldi.FOLDER, kaldi.TEXT, htk.LABELS, slf.LATTICE,
         json_files.DOCUMENT, json_files.LINES, text_tables.CSV, text_tables.BEAMS,
         srilm.FOLDER, srilm.LIST, brain_to_text.LINES, trn.TRN)
_HEAD_LINES = 20


class NBest:
    """An n-best document: iterate for its utterances, in order, as often as needed.

    Attributes:
        shape: the name of the shape that was recognised.
    """

    def __init__(self, source: Any, shape: Shape | FileShape, options: Options) -> None:
        self.shape = shape.name
        self.source = source
        self._shape = shape
        self._options = options

    @property
    def is_file(self) -> bool:
        """Whether it is read from a file or folder."""
        return isinstance(self._shape, FileShape)

    def __iter__(self) -> Iterator[Utterance]:
        for number, (name, hypotheses, form) in enumerate(self._lists()):
            where = f"utterance {number}" + (f" ({name!r})" if name else "")
            yield Utterance(name, [
                read_hypothesis(given, self._form(given, form, first, f"{where}, hypothesis {i}"),
                                f"{where}, hypothesis {i}", self._options)
                for first in [form_of(hypotheses) if form is None else form]
                for i, given in enumerate(hypotheses)])

    def rebuilt(self, orders: Iterator[list[int]]) -> Any:
        """The document in memory with every list in a new order; the source does not change.

        Args:
            orders: of every utterance the indices of its hypotheses, best first.
        """
        assert isinstance(self._shape, Shape)
        return self._shape.rebuilt(self.source, orders)

    def write(self, orders: Iterator[list[int]], output: Path) -> None:
        """Writes a file or folder of the same shape with every list in a new order."""
        assert isinstance(self._shape, FileShape)
        self.must_not_be(output)
        self._shape.write(self.source, self._options, orders, output)

    def must_not_be(self, output: Path) -> None:
        """Refuses to write over what is read (ValueError)."""
        if output.resolve() == Path(self.source).resolve():
            raise ValueError(f"{output} is what is read; give another path to write to")

    def _lists(self) -> Lists:
        if isinstance(self._shape, FileShape):
            return self._shape.lists(self.source, self._options)
        return self._shape.lists(self.source)

    def _form(self, given: Any, fixed: Form | None, first: Form | None, where: str) -> Form:
        if fixed is not None:
            return fixed
        if first is None or not first.matches(given):
            raise ValueError(f"{where} is a {type(given).__name__}"
                             + ("" if first is None else f" where the list begins with a "
                                f"{first.name}")
                             + "; hypotheses of one known form expected")
        return first


def read(source: Any, *, missing: str | None = None, text: Any = None, token_count: Any = None,
         log_base: float | None = None, columns: Mapping[str, str] | None = None,
         beam_size: int | None = None, scores: str | Path | Sequence[str | Path] = (),
         costs: bool | None = None, speaker: int | None = None) -> NBest:
    """Recognises an n-best document; docs/nbest.md lists the shapes.

    Args:
        source: what a decoder returned, or a path (str or Path) of a file or folder.
        missing: "last" puts hypotheses whose score is missing or NaN last; None refuses them.
        text: a function of a hypothesis that gives its text, for shapes that have ids only.
        token_count: the number of tokens of a text, for Whisper segments without tokens.
        log_base: of the scores, for shapes that do not say it; natural logarithms by default.
        columns: of a table, by role: {"utterance": ..., "text": ..., "score": ...}.
        beam_size: lines an utterance, for NeMo's .tsv.
        scores: files of scores beside a Kaldi text; several are added up.
        costs: whether those are costs (negated logarithms); None: by their names.
        speaker: which one, of an ESPnet folder of several.

    Raises:
        ValueError: the shape is not recognised; the message lists those that are. While
            iterating: a hypothesis has no text or no score, or something is malformed.
        OSError: a path cannot be read.
    """
    files = (scores,) if isinstance(scores, (str, Path)) else tuple(scores)
    options = Options(missing, text, token_count, log_base, columns or {}, beam_size, files, costs,
                      speaker)
    if isinstance(source, (str, Path)):
        path = Path(source)
        return NBest(path, _file_shape(path, options), options)
    shape = _table(options) if options.columns else shape_of(source)
    if shape is None or (options.columns and not tables.is_table(source, options.columns)):
        raise ValueError(json_files.unknown(source, "this document") + "; or a path")
    return NBest(source, shape, options)


def _table(options: Options) -> Shape:
    given = options.columns
    return Shape("table", tables.TABLE.matches, lambda table: tables.Table(table, given).lists(),
                 lambda table, orders: tables.Table(table, given).rebuilt(orders))


def _file_shape(path: Path, options: Options) -> FileShape:
    binary = path.is_dir() or parquet.is_parquet(path)
    head = [] if binary else list(itertools.islice(lines_of(path), _HEAD_LINES))
    if not binary and not any(line.strip() for line in head):
        raise ValueError(f"{path} is empty; an n-best file is expected")
    for shape in FILES:
        if shape.matches(path, head, options):
            return shape
    raise ValueError(f"{path} is no n-best file of a known shape; known are: "
                     + "; ".join(shape.name for shape in FILES) + "; and, as JSON, "
                     + "; ".join(dict.fromkeys(shape.name for shape in SHAPES)))
