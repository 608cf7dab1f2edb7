"""`lmfusion export-truecaser`: the counts of the package truecase become one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmfusion.cli.output import AsJson, print_json


def export_truecaser(
        output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE")],
        distributions: Annotated[Path | None, typer.Option(
            "--distributions", metavar="FILE", show_default="the package's English ones",
            help="trained with truecase.Trainer")] = None,
        json_: AsJson = False) -> None:
    """Write the statistics of the package truecase as one file; print the path."""
    from lmfusion.exporter.truecaser import export_truecaser as export
    path = export(output, distributions)
    print_json({"path": str(path)}) if json_ else print(path)
