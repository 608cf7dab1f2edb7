"""The arguments of commands that score."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmfusion import LMFusionScorer


def add_scorer_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --model, --casing, --bos, --mode and --device."""
    parser.add_argument("--model", type=Path, metavar="FILE",
                        help="model file (default: the default model)")
    parser.add_argument("--casing", default="none",
                        help='"none" or "sentence" (default: %(default)s)')
    parser.add_argument("--bos", default="auto", metavar="TOKEN",
                        help='"auto", "tokenizer", "none" or a token (default: %(default)s)')
    parser.add_argument("--mode", default="tree", choices=("tree", "grouped", "uncached"),
                        help="the scores are the same (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")


def make_scorer(arguments: argparse.Namespace, *, weight: float = 1.0,
                word_insertion_bonus: float = 0.0) -> LMFusionScorer:
    """The scorer that the arguments ask for."""
    from lmfusion import LMFusionScorer, default_model
    model = arguments.model or default_model()
    if not model.is_file():
        raise FileNotFoundError(f"no such model file: {model}")
    return LMFusionScorer(str(model), weight=weight, word_insertion_bonus=word_insertion_bonus,
                          casing=arguments.casing, bos=arguments.bos, mode=arguments.mode,
                          device=arguments.device)
