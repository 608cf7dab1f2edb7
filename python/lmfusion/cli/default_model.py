"""`lmfusion default-model`: where the default model is."""

from __future__ import annotations

import argparse


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "default-model", help="print the path of SmolLM2-135M-Instruct, built at the first call")
    parser.set_defaults(run=run, extra="export")


def run(arguments: argparse.Namespace) -> None:
    """Prints the path."""
    from lmfusion.default_model import default_model
    print(default_model())
