"""`lmfusion prime`: a cache snapshot of what every utterance asks for."""

from __future__ import annotations

import argparse
from pathlib import Path

from lmfusion.cli.scorer_arguments import add_scorer_arguments, make_scorer


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "prime", help="compute texts and words once and save them as a cache snapshot",
        description="Writes a file for load_cache(): the contexts, and the words as candidates at "
                    "the beginning of a text. The scorer that loads it must have the same casing.")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--contexts", type=Path, metavar="FILE", help="one text a line")
    parser.add_argument("--words", type=Path, metavar="FILE", help="one word a line")
    add_scorer_arguments(parser)
    parser.set_defaults(run=run, extra="export")


def run(arguments: argparse.Namespace) -> None:
    """Computes, saves, and says how much."""
    if arguments.contexts is None and arguments.words is None:
        raise ValueError("give --contexts or --words, else there is nothing to compute")
    scorer = make_scorer(arguments)
    words = [word for word in _lines(arguments.words) if word]
    scorer.prime(_lines(arguments.contexts), vocabulary=words)
    tokens = scorer.save_cache(arguments.output)
    print(f"{arguments.output}: {tokens} tokens, {arguments.output.stat().st_size} bytes")


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    with open(path, encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file]
