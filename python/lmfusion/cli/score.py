"""`lmfusion score`: log-probabilities of whole texts."""

from __future__ import annotations

import argparse
import itertools
import sys

from lmfusion.cli.scorer_arguments import add_scorer_arguments, make_scorer

TEXTS_A_CALL = 64


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "score", help="print the log-probability of texts",
        description="Prints one line a text: its log-probability in nats, a tab, the text.")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="default: the lines of stdin")
    parser.add_argument("--eos", action="store_true", help="count the end-of-text token too")
    add_scorer_arguments(parser)
    parser.set_defaults(run=run, extra="export")


def run(arguments: argparse.Namespace) -> None:
    """Scores and prints, some texts at a time."""
    scorer = make_scorer(arguments)
    texts = iter(arguments.texts or (line.rstrip("\r\n") for line in sys.stdin))
    while batch := list(itertools.islice(texts, TEXTS_A_CALL)):
        for text, log_prob in zip(batch, scorer.score_texts(batch, eos=arguments.eos)):
            print(f"{log_prob:.4f}\t{text}", flush=True)
