"""What a benchmark found, as a file."""

from __future__ import annotations

import json
from pathlib import Path


def write_json(report: object, output: Path) -> None:
    """`output`.json; makes its folder."""
    output.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{output}.json").write_text(json.dumps(report, indent=1) + "\n")
