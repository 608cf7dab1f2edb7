"""Files that are whole or not there: written beside their place and moved into it in one step."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Where to write what becomes `path` at the end of the block; nothing, if the block raises."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def moved_into(folder: Path) -> Iterator[Path]:
    """A folder whose files move into `folder` at the end of the block, each in one step, what is
    beside a file (NAME.parts.tsv) before the file itself; none of them, if the block raises."""
    temporary = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=folder))
    try:
        yield temporary
        for path in sorted((path for path in temporary.rglob("*") if path.is_file()),
                           reverse=True):
            target = folder / path.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
