"""Parquet: a table with a hypothesis a row, its columns found as in tables.py.

Rows of an utterance stand together; it may begin in one row group and end in the next. Read and
written a row group at a time, with the schema and the compression of what was read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmfusion.nbest.file_shape import FileShape
from lmfusion.nbest.hypothesis import Options
from lmfusion.nbest.shape import Lists
from lmfusion.nbest.tables import ROW, Columns

if TYPE_CHECKING:
    import pyarrow

MAGIC = b"PAR1"


def _is_parquet(path: Path, head: list[str], options: Options) -> bool:
    return path.is_file() and is_parquet(path)


def is_parquet(path: Path) -> bool:
    """By its first bytes."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _utterances(path: Path, options: Options) -> Iterator[tuple[str, pyarrow.Table, Columns]]:
    """Every utterance's rows, in order."""
    import pyarrow
    import pyarrow.parquet
    seen: set[str] = set()
    waiting: list[pyarrow.Table] = []
    name: str | None = None
    with pyarrow.parquet.ParquetFile(path) as file:
        columns = Columns(file.schema_arrow.names, options.columns)
        if columns.utterance is None or columns.text is None or columns.score is None:
            raise ValueError(f"{path} has the columns {', '.join(file.schema_arrow.names)}: which "
                             "are the utterance, the text and the score? Give columns={...}")
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            names = [str(each) for each in table[columns.utterance].to_pylist()]
            begin = 0
            for row in range(len(names) + 1):
                if row < len(names) and (row == begin or names[row] == names[begin]):
                    continue
                if names[begin] == name:
                    waiting.append(table.slice(begin, row - begin))
                else:
                    if name is not None:
                        yield name, pyarrow.concat_tables(waiting), columns
                    name, waiting = names[begin], [table.slice(begin, row - begin)]
                    if name in seen:
                        raise ValueError(f"{path}: the rows of utterance {name!r} do not stand "
                                         "together; sort the file by utterance first")
                    seen.add(name)
                begin = row
    if name is not None:
        yield name, pyarrow.concat_tables(waiting), columns


def _lists(path: Path, options: Options) -> Lists:
    for name, table, columns in _utterances(path, options):
        texts: list[Any] = table[columns.text].to_pylist()
        yield name, list(zip(texts, table[columns.score].to_pylist())), ROW


def _write(path: Path, options: Options, orders: Iterator[list[int]], output: Path) -> None:
    import pyarrow
    import pyarrow.parquet
    with pyarrow.parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        rows_a_group = file.metadata.row_group(0).num_rows if file.num_row_groups else 1
        compression = (file.metadata.row_group(0).column(0).compression.lower()
                       if file.num_row_groups else "snappy")
    with pyarrow.parquet.ParquetWriter(output, schema, compression=compression) as out:
        waiting: list[pyarrow.Table] = []
        for _, table, _ in _utterances(path, options):
            waiting.append(table.take(next(orders)))
            if sum(len(each) for each in waiting) >= rows_a_group:
                out.write_table(pyarrow.concat_tables(waiting))
                waiting = []
        if waiting:
            out.write_table(pyarrow.concat_tables(waiting))


PARQUET = FileShape("Parquet table", _is_parquet, _lists, _write)
