"""What the decoder examples have in common: their weights, and what they print."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import lmfusion
from emissions import held_out, word_error_rate


class Weights(NamedTuple):
    """Of a decoder's score."""

    language_model: float  # of log p
    word_bonus: float  # added for every word


Decode = Callable[[lmfusion.LMFusionScorer | None, list[str]], list[str]]


def compare(decode: Decode, arguments: list[str] | None = None) -> tuple[float, float]:
    """Prints, and returns, the word error rates without and with the language model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sentences", type=int, default=6)
    said = held_out(parser.parse_args(arguments).sentences)
    without = word_error_rate(said, decode(None, said))
    print(f"word error rate without lmfusion: {without:.3f}")
    scorer = lmfusion.LMFusionScorer(lmfusion.default_model(), casing="sentence")
    with_lm = word_error_rate(said, decode(scorer, said))
    print(f"word error rate with lmfusion: {with_lm:.3f}")
    print(scorer.stats())
    return without, with_lm
