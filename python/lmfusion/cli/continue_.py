"""`lmfusion continue`: how likely words are after a context."""

from __future__ import annotations

from typing import Annotated

import typer

from lmfusion.cli.lines import lines_of_stdin
from lmfusion.cli.output import AsJson, print_json, print_table
from lmfusion.cli.scorer_options import ChosenScorer, scores


@scores(without=())
def continue_(scorer: ChosenScorer,
              context: Annotated[str, typer.Argument(metavar="CONTEXT", help='may be ""')],
              words: Annotated[list[str] | None, typer.Argument(
                  metavar="[WORD]...", help="candidates; default: the lines of stdin")] = None,
              json_: AsJson = False) -> None:
    """Print log p(word | context) in nats and the score of every candidate, the likeliest first."""
    candidates = words or [line for line in lines_of_stdin() if line]
    opened = scorer.open()
    [log_probs] = opened.log_probs([context], [candidates])
    [weighed] = opened.score_continuations([context], [candidates])
    rows = sorted(zip(candidates, log_probs, weighed), key=lambda row: -float(row[1] or 0))
    if json_:
        print_json({"context": context, "candidates": [
            {"word": word, "log_prob": log_prob, "score": score}
            for word, log_prob, score in rows]})
    else:
        print_table(["log_prob", "score", "word"], [[log_prob, score, word]
                                                    for word, log_prob, score in rows])
