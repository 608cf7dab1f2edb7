"""Files of reasons: why a line has no test, why a wrong edit changes nothing.

A line `# REASON` stands before the lines that it explains, each `PATH | CODE`.
"""

from __future__ import annotations

from pathlib import Path


def read_reasons(file: Path) -> dict[tuple[str, str], str]:
    """(path, code) -> reason. A comment is a reason where what it explains follows it directly."""
    reasons: dict[tuple[str, str], str] = {}
    comment: list[str] = []
    explains = False  # whether the comment has been used: the next one is another
    for line in file.read_text().splitlines():
        if line.startswith("#"):
            comment = [] if explains else comment
            comment.append(line.lstrip("# "))
            explains = False
        elif line.strip():
            path, separator, code = line.partition(" | ")
            if not (comment and separator):
                raise ValueError(f"{file.name}: no PATH | CODE under a reason: {line}")
            reasons[path.strip(), code.strip()] = " ".join(comment)
            explains = True
        else:
            comment = []
    return reasons
