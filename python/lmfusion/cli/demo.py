"""`lmfusion demo`: the n-best lists of a real recogniser, rescored."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "demo", help="rescore a recogniser's n-best lists, and compare cached with uncached",
        description="Speaks 30 sentences with flite, recognises them with PocketSphinx, rescores "
                    "the n-best lists with the default model, and compares the modes.")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="FOLDER",
                        help="for the picture (default: %(default)s)")
    parser.set_defaults(run=run, extra="demo")


def run(arguments: argparse.Namespace) -> None:
    """Runs it."""
    from lmfusion.demo.main_job import run_main_job
    run_main_job(arguments.out)
