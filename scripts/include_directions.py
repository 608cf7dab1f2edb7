"""Whether every include of src/ points the way src/README.md says: `./run lint` asks."""

from __future__ import annotations

import re
import sys
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "src"
# A room may include itself and these; include/lmfusion is everybody's.
MAY_INCLUDE = {
    "base": set(),
    "kernels": {"base"},
    "bundle": {"base"},
    "text": {"base"},
    "tree": {"base", "bundle"},
    "cache": {"base", "tree"},
    "ops": {"base", "kernels"},
    "engine": {"base", "bundle", "kernels", "ops", "tree"},
    "search": {"base", "cache", "tree"},
    "scorer": {"base", "bundle", "cache", "engine", "search", "text", "tree"},
}


def wrong_includes() -> list[str]:
    """`file:line: what is wrong`, one an include."""
    found = []
    for path in sorted(SOURCES.rglob("*")):
        room = path.relative_to(SOURCES).parts[0]
        if path.suffix not in (".h", ".cpp", ".cu") or room not in MAY_INCLUDE:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = re.match(r'#include "(\w+)/', line)
            other = match[1] if match else room
            if other != room and other != "lmfusion" and other not in MAY_INCLUDE[room]:
                found.append(f"src/{path.relative_to(SOURCES)}:{number}: {room}/ may not include "
                             f"{other}/ (src/README.md)")
    rooms = {path.name for path in SOURCES.iterdir() if path.is_dir()}
    found += [f"src/{room}: a room without a line in scripts/include_directions.py"
              for room in sorted(rooms - MAY_INCLUDE.keys())]
    return found


if __name__ == "__main__":
    print("\n".join(wrong := wrong_includes()), end="\n" if wrong else "")
    sys.exit(bool(wrong))
