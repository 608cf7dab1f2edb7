"""`lmfusion demo`: the n-best lists of a real recogniser, rescored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(out: Annotated[Path, typer.Option("--out", metavar="FOLDER",
                                           help="for the picture")] = Path("out"),
         quick: Annotated[bool, typer.Option(
             "--quick", help="one sentence and why it changed, within a minute")] = False) -> None:
    """Rescore a recogniser's n-best lists, and compare cached with uncached.

    Speaks 30 sentences with flite, recognises them with PocketSphinx, rescores the n-best lists
    with the default model, and compares the modes.
    """
    if quick:
        from lmfusion.demo.quick import run_quick_demo
        run_quick_demo()
        return
    from lmfusion.demo.main_job import run_main_job
    run_main_job(out)
