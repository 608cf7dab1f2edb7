"""`lmfusion demo`: the n-best lists of a real recogniser, rescored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(out: Annotated[Path, typer.Option("--out", metavar="FOLDER",
                                           help="for the picture")] = Path("out")) -> None:
    """Rescore a recogniser's n-best lists, and compare cached with uncached.

    Speaks 30 sentences with flite, recognises them with PocketSphinx, rescores the n-best lists
    with the default model, and compares the modes.
    """
    from lmfusion.demo.main_job import run_main_job
    run_main_job(out)
