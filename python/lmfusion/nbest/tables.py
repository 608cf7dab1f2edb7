"""Tables: pandas and pyarrow, mappings of columns, lists of rows, CSV read by any of them.

A row is a hypothesis. The columns are found by name, or given: `columns={"utterance": "uid",
"text": "asr_text", "score": "ctc"}`. Rows of an utterance need not stand together: they take each
other's places, those of other utterances stay. The score is a sum of natural logarithms
(`log_base=` says otherwise).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lmfusion.nbest.hypothesis import Form, Options, is_missing, is_number, number
from lmfusion.nbest.records import SCORE_FIELDS, TEXT_FIELDS
from lmfusion.nbest.shape import Lists, Shape

UTTERANCE_FIELDS = ("utterance", "utterance_id", "utt", "utt_id", "uttid", "uid", "key",
                    "audio_filepath")
_ROLES = {"utterance": UTTERANCE_FIELDS, "text": TEXT_FIELDS, "score": SCORE_FIELDS}


class Columns:
    """The names of the columns of a table.

    Raises:
        ValueError: a name given is not there.
    """

    def __init__(self, names: Sequence[str], given: Mapping[str, str]) -> None:
        for role, name in given.items():
            if role not in _ROLES:
                raise ValueError(f"columns[{role!r}]; one of {', '.join(_ROLES)} expected")
            if name not in names:
                raise ValueError(f"columns[{role!r}] = {name!r}; the table has "
                                 f"{', '.join(map(str, names))}")
        found = {role: given.get(role) or next((name for name in known if name in names), None)
                 for role, known in _ROLES.items()}
        self.utterance, self.text, self.score = (found["utterance"], found["text"],
                                                 found["score"])


def groups(names: Sequence[Any] | None, rows: int) -> dict[Any, list[int]]:
    """The rows of every utterance, utterances in the order of their first rows."""
    found: dict[Any, list[int]] = {}
    for row in range(rows):
        found.setdefault(None if names is None else names[row], []).append(row)
    return found


def row_order(places: Iterator[list[int]] | Sequence[list[int]],
              orders: Iterator[list[int]]) -> list[int]:
    """Which old row stands in every new one."""
    result: dict[int, int] = {}
    for rows in places:
        result.update(zip(rows, [rows[index] for index in next(orders)]))
    return [result[row] for row in range(len(result))]


def _names(table: Any) -> list[str] | None:
    """The columns of a table; None for anything else."""
    if isinstance(table, Mapping):
        columns = list(table)
        lists = all(isinstance(column, (list, tuple)) for column in table.values())
        same = len({len(column) for column in table.values()}) == 1 if lists else False
        return columns if same else None
    for attribute in ("column_names", "columns"):  # pyarrow, pandas
        names = getattr(table, attribute, None)
        if names is not None and hasattr(table, "take") and not callable(names):
            return [str(name) for name in names]
    return None


def _values(table: Any, name: str) -> list[Any]:
    column = table[name]
    for method in ("to_pylist", "tolist"):  # pyarrow, pandas
        if hasattr(column, method):
            return list(getattr(column, method)())
    return list(column)


def _pair_score(pair: Any, options: Options) -> Any:
    return options.nats(number(pair[1])) if is_number(pair[1]) else pair[1]


ROW = Form("row of a table", lambda _: False,
           lambda pair: pair[0] if isinstance(pair[0], str) else None, _pair_score)


class Table:
    """A table with its columns found."""

    def __init__(self, table: Any, given: Mapping[str, str]) -> None:
        names = _names(table)
        assert names is not None
        columns = Columns(names, given)
        if columns.text is None or columns.score is None:
            raise ValueError(
                f"a table with the columns {', '.join(names)}: which are the text and the score? "
                'Give columns={"text": ..., "score": ...}')
        self.table = table
        self.texts = _values(table, columns.text)
        self.scores = _values(table, columns.score)
        utterances = None if columns.utterance is None else _values(table, columns.utterance)
        for row, name in enumerate(utterances or ()):
            if is_missing(name) or name != name:  # NaN
                raise ValueError(f"row {row} of the table has no {columns.utterance}; the id of an "
                                 "utterance expected")
        self.groups = groups(utterances, len(self.texts))

    def lists(self) -> Lists:
        """Every utterance's rows, as pairs of text and score."""
        for name, rows in self.groups.items():
            yield (None if name is None else str(name),
                   [(self.texts[row], self.scores[row]) for row in rows], ROW)

    def rebuilt(self, orders: Iterator[list[int]]) -> Any:
        """A table of the same kind."""
        order = row_order(list(self.groups.values()), orders)
        if isinstance(self.table, Mapping):
            return {name: [column[row] for row in order] for name, column in self.table.items()}
        return self.table.take(order)


def is_table(document: Any, given: Mapping[str, str] | None = None) -> bool:
    """A table whose text column is named or found."""
    names = _names(document)
    if names is None:
        return False
    if not isinstance(document, Mapping):
        return True
    text = (given or {}).get("text") or next((name for name in TEXT_FIELDS if name in names), None)
    return text in names and all(isinstance(value, str) for value in document[text])


TABLE = Shape("table", is_table, lambda table: Table(table, {}).lists(),
              lambda table, orders: Table(table, {}).rebuilt(orders))


def _is_rows(document: Any) -> bool:
    return isinstance(document, list) and bool(document) and all(
        isinstance(row, Mapping) and Columns(list(row), {}).utterance is not None
        and Columns(list(row), {}).text is not None
        and Columns(list(row), {}).score is not None for row in document)


def _columns(rows: list[Any]) -> dict[str, list[Any]]:
    columns = Columns(list(rows[0]), {})
    return {name: [row.get(name) for row in rows]
            for name in (columns.utterance, columns.text, columns.score) if name is not None}


def _rows_rebuilt(rows: list[Any], orders: Iterator[list[int]]) -> Any:
    table = Table(_columns(rows), {})
    return [rows[row] for row in row_order(list(table.groups.values()), orders)]


ROWS = Shape("rows with utterance, text and score", _is_rows,
             lambda rows: Table(_columns(rows), {}).lists(), _rows_rebuilt)
