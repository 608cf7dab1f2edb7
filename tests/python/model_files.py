"""Model files with other parts than the exporter wrote, for tests of those who read them."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

DESCRIPTION = "extra/lmfusion.json"
PARTS = "extra/lmfusion.parts.json"


def read_parts(path: Path) -> dict[str, bytes]:
    """Every entry of a model file by its name below the archive's folder, in their order."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write_parts(parts: dict[str, bytes], path: Path) -> Path:
    """An archive of these entries; its own checksums are right."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(zipfile.ZipInfo(f"model/{name}"), content)
    return path


def with_right_table(parts: dict[str, bytes]) -> dict[str, bytes]:
    """The same parts, and a table that agrees with them: what an exporter would have written."""
    table = json.loads(parts[PARTS])
    table["parts"] = {
        name: {"bytes": len(content), "crc32": zlib.crc32(content),
               "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in parts.items() if name != PARTS}
    return {**parts, PARTS: json.dumps(table).encode()}


def with_description(path: Path, change: Callable[[dict[str, Any]], object],
                     changed: Path) -> Path:
    """A copy of a file whose description was changed, and whose table knows it."""
    parts = read_parts(path)
    description = json.loads(parts[DESCRIPTION])
    change(description)
    parts[DESCRIPTION] = json.dumps(description).encode()
    return write_parts(with_right_table(parts), changed)
