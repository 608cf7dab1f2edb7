"""`lmfusion export-truecaser`: the counts of the package truecase become one file."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "export-truecaser", help="write the statistics of the package truecase as one file")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--distributions", type=Path, metavar="FILE",
                        help="trained with truecase.Trainer (default: the package's English ones)")
    parser.set_defaults(run=run, extra="export")


def run(arguments: argparse.Namespace) -> None:
    """Exports and prints the path."""
    from lmfusion.export.truecaser import export_truecaser
    print(export_truecaser(arguments.output, arguments.distributions))
