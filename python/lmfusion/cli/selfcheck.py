"""`lmfusion selfcheck`: whether cached scores are those of full passes, on this machine."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from lmfusion.cli.output import AsJson, print_json
from lmfusion.cli.scorer_options import ChosenScorer, scores

TOLERANCE = 1e-4  # nats a token, of float32
TEXTS = ("the cat sat on the mat", "the cat sat on the map", "the cat sits on the mat",
         "i would like a cup of tea", "i would like a cup of coffee and a piece of cake",
         "she parked the car", "The answer is 42, isn't it?", "")


@scores()
def selfcheck(scorer: ChosenScorer,
              texts: Annotated[list[str] | None, typer.Argument(
                  metavar="[TEXT]...", show_default="some of its own",
                  help="texts that share beginnings")] = None,
              tolerance: Annotated[float, typer.Option(help="nats a token")] = TOLERANCE,
              json_: AsJson = False) -> int:
    """Compare log p of every token, cached and uncached; exit with 1 where they differ.

    The texts are scored twice with the cache, cold and warm, then each in a full pass of its own
    (`mode="uncached"`).
    """
    asked = list(texts or TEXTS)
    cached = scorer.open()
    rows = [cached.token_log_probs(asked) for _ in ("cold", "warm")]
    plain = scorer.open(mode="uncached").token_log_probs(asked)
    differences = [abs(one[1] - other[1]) for row in rows for text, full in zip(row, plain)
                   for one, other in zip(text, full)]
    same_tokens = all([piece for piece, _ in text] == [piece for piece, _ in full]
                      for row in rows for text, full in zip(row, plain))
    largest = max(differences, default=0.0)
    right = same_tokens and not math.isnan(largest) and largest <= tolerance
    if json_:
        print_json({"right": right, "largest_difference": largest, "tolerance": tolerance,
                    "tokens": len(differences) // 2})
    else:
        print(f"{len(differences) // 2} tokens, cached cold and warm against full passes: largest "
              f"difference {largest:.2e} nats a token, {tolerance:g} allowed: "
              f"{'right' if right else 'WRONG'}")
    return 0 if right else 1
