"""`lmfusion explain`: one candidate word, token by token."""

from __future__ import annotations

import argparse

from lmfusion.cli.scorer_arguments import add_scorer_arguments, make_scorer


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser("explain", help="show how a word is scored after a context")
    parser.add_argument("context", metavar="CONTEXT", help='may be ""')
    parser.add_argument("word", metavar="WORD")
    parser.add_argument("--weight", type=float, default=0.3, help="default: %(default)s")
    parser.add_argument("--word-insertion-bonus", type=float, default=0.0,
                        help="default: %(default)s")
    add_scorer_arguments(parser)
    parser.set_defaults(run=run, extra="export")


def run(arguments: argparse.Namespace) -> None:
    """Prints one line a token, then the sums."""
    scorer = make_scorer(arguments, weight=arguments.weight,
                         word_insertion_bonus=arguments.word_insertion_bonus)
    found = scorer.explain(arguments.context, arguments.word)
    print(f"text: {found.text!r}")
    print(f"{'id':>8}  {'piece':<20}{'log p, nats':>12}  state")
    for token in found.tokens:
        log_prob = f"{token.log_prob:.4f}" if token.scored else "context"
        state = "from the cache" if token.reused else ""
        print(f"{token.id:>8}  {token.piece!r:<20}{log_prob:>12}  {state}".rstrip())
    for token in found.subtracted:
        print(f"{token.id:>8}  {token.piece!r:<20}{-token.log_prob:>12.4f}  subtracted")
    if len(found.forms) > 1:
        print(f"log p(this form) = {found.log_prob:.4f} nats; the word may be any of")
        for form in found.forms:
            print(f"{form.log_prob:>42.4f}  {form.text!r}")
    print(f"log p(word | context) = {found.candidate_log_prob:.4f} nats")
    print(f"score = {arguments.weight:g} * log p + {arguments.word_insertion_bonus:g} = "
          f"{found.score:.4f}; {found.tokens_computed} tokens computed")
