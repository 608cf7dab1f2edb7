"""Chooses the weights of the decoder examples, on sentences that no test and no report uses.

    python bench/choose_weights.py [--sentences 12] [--only EXAMPLE] [--cpp-decoder PROGRAM]

Every example decodes the tuning sentences with every pair of a grid (and, without the language
model, every bonus). A Markdown table each; the pair to write into the example has the lowest word
error rate, and of equals the lowest mean of it and its neighbours.
"""

from __future__ import annotations

import argparse
import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmfusion

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from comparison import Weights
from emissions import DATA, tuning, word_error_rate

EXAMPLES = Path(__file__).parents[1] / "examples"

WEIGHTS = [0.4, 0.7, 1.0]
BONUSES = [0.0, 1.5, 3.0, 4.5, 6.0]
# espnet_fusion stands for icefall_fusion and nemo_fusion too: their search is the same.
DECODERS = ["pyctcdecode_decoder", "torchaudio_decoder", "nbest_rescoring", "espnet_fusion"]

Errors = dict[Weights, float]  # word error rates


def chosen(errors: Errors) -> Weights:
    """The pair with the lowest word error rate."""
    weights = sorted({pair.language_model for pair in errors})
    bonuses = sorted({pair.word_bonus for pair in errors})

    def around(pair: Weights) -> float:
        i, j = weights.index(pair.language_model), bonuses.index(pair.word_bonus)
        near = [errors[Weights(a, b)] for a in weights[max(0, i - 1):i + 2]
                for b in bonuses[max(0, j - 1):j + 2]]
        return sum(near) / len(near)

    return min(errors, key=lambda pair: (round(errors[pair], 6), around(pair)))


def table(name: str, alone: Errors, with_lm: Errors) -> str:
    """The word error rates in percent, a row a weight."""
    lines = [f"| {name} | " + " | ".join(f"bonus {bonus:g}" for bonus in BONUSES) + " |",
             "|---" * (len(BONUSES) + 1) + "|"]
    for label, errors, weight in [("without", alone, 0.0),
                                  *((f"weight {weight:g}", with_lm, weight) for weight in WEIGHTS)]:
        cells = [f"{100 * errors[Weights(weight, bonus)]:.1f}" for bonus in BONUSES]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", f"chosen: {chosen(alone)} without, {chosen(with_lm)} with", ""])


def sweep(error: Callable[[bool, Weights], float]) -> tuple[Errors, Errors]:
    """error(with the language model?, weights) over the grid."""
    alone = {Weights(0.0, bonus): error(False, Weights(0.0, bonus)) for bonus in BONUSES}
    return alone, {Weights(weight, bonus): error(True, Weights(weight, bonus))
                   for weight in WEIGHTS for bonus in BONUSES}


def python_example(name: str, scorer: lmfusion.LMFusionScorer, count: int) -> tuple[Errors, Errors]:
    decode, said = importlib.import_module(name).decode, tuning(count)
    return sweep(lambda with_lm, weights: word_error_rate(
        said, decode(scorer if with_lm else None, said, weights)))


def cpp_example(program: Path, count: int) -> tuple[Errors, Errors]:
    def error(with_lm: bool, weights: Weights) -> float:
        output = subprocess.run(
            [program, lmfusion.default_model(), DATA / "lexicon.txt", DATA / "tuning.txt",
             str(count), str(weights.word_bonus), *map(str, weights)],
            check=True, capture_output=True, text=True).stdout
        return float(re.findall(r"language model: ([\d.]+)", output)[with_lm])

    return sweep(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=12)
    parser.add_argument("--only", choices=[*DECODERS, "cpp_decoder"])
    parser.add_argument("--cpp-decoder", type=Path, help="the built examples/cpp_decoder")
    arguments = parser.parse_args()
    scorer = lmfusion.LMFusionScorer(lmfusion.default_model(), casing="sentence")
    for name in DECODERS:
        if arguments.only in (None, name):
            print(table(name, *python_example(name, scorer, arguments.sentences)), flush=True)
    if arguments.cpp_decoder and arguments.only in (None, "cpp_decoder"):
        print(table("cpp_decoder", *cpp_example(arguments.cpp_decoder, arguments.sentences)))


if __name__ == "__main__":
    main()
