"""`lmfusion demo`: the n-best lists of a real recogniser, rescored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmfusion.cli.output import AsJson


def demo(out: Annotated[Path, typer.Option("--out", metavar="FOLDER",
                                           help="for the picture")] = Path("out"),
         quick: Annotated[bool, typer.Option(
             "--quick", help="one sentence and why it changed, within a minute")] = False,
         json_: AsJson = False) -> None:
    """Rescore a recogniser's n-best lists, and compare cached with uncached.

    Speaks 30 sentences with flite, recognises them with PocketSphinx, rescores the n-best lists
    and the lattices with the default model, and compares the modes.
    """
    if quick:
        from lmfusion.demo.quick import run_quick_demo
        run_quick_demo(json_=json_)
        return
    from lmfusion.demo.main_job import run_main_job
    run_main_job(out, json_=json_)
