"""`lmfusion score`: log-probabilities of whole texts."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmfusion.cli.lines import lines_of_stdin
from lmfusion.cli.output import AsJson, print_table
from lmfusion.cli.scorer_options import ChosenScorer, scores

if TYPE_CHECKING:
    from lmfusion import LMFusionScorer

TEXTS_A_CALL = 64


@scores()
def score(scorer: ChosenScorer,
          texts: Annotated[list[str] | None, typer.Argument(
              metavar="[TEXT]...", help="default: the lines of stdin")] = None,
          eos: Annotated[bool, typer.Option("--eos", help="count the end-of-text token too")]
          = False,
          per_token: Annotated[bool, typer.Option("--per-token", help="a line a token")] = False,
          per_word: Annotated[bool, typer.Option("--per-word", help="a line a word")] = False,
          perplexity: Annotated[bool, typer.Option(
              "--perplexity", help="exp(-mean log p of a token) too")] = False,
          base: Annotated[float, typer.Option(
              "--base", help="of the logarithms", show_default="e")] = math.e,
          json_: AsJson = False) -> None:
    """Print log p of texts: a line a text, its log-probability in nats, a tab, the text.

    --per-token and --per-word print the number of the text, log p, and the token or word. --json
    prints a JSON object a line.
    """
    if eos and (per_token or per_word or perplexity):
        raise ValueError("--eos counts for whole texts; leave out --per-token, --per-word and "
                         "--perplexity, or --eos")
    if per_token and per_word:
        raise ValueError("give --per-token or --per-word, one of them")
    opened = scorer.open()
    given = iter(texts or lines_of_stdin())
    number = 0
    while batch := list(itertools.islice(given, TEXTS_A_CALL)):
        for found in _scored(opened, batch, eos, per_token, per_word, perplexity, base):
            if json_:
                print(json.dumps(found, ensure_ascii=False), flush=True)
            elif per_token or per_word:
                parts = found["tokens"] if per_token else found["words"]
                print_table(["text", "log_prob", "token" if per_token else "word"],
                            [[number, log_prob, part] for part, log_prob in parts])
            else:
                also = f"{found['perplexity']:.4f}\t" if perplexity else ""
                print(f"{found['log_prob']:.4f}\t{also}{found['text']}", flush=True)
            number += 1


def _scored(scorer: LMFusionScorer, texts: list[str], eos: bool, per_token: bool, per_word: bool,
            perplexity: bool, base: float) -> Iterator[dict[str, Any]]:
    log_probs = scorer.score_texts(texts, eos=eos, base=base)
    columns: dict[str, list[Any]] = {"text": texts, "log_prob": log_probs}
    if perplexity:
        columns["perplexity"] = scorer.perplexity(texts)
    if per_token:
        columns["tokens"] = scorer.token_log_probs(texts, base=base)
    if per_word:
        columns["words"] = scorer.word_log_probs(texts, base=base)
    for row in zip(*columns.values()):
        yield dict(zip(columns, row))
