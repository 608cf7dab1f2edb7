"""Every adapter on the same simulated emissions, without and with the language model.

    python bench/adapters.py [--sentences 12]

A line an adapter, JSON: version of its package, word error rate without and with the language
model, calls, tokens computed, tokens that one forward pass per request would compute, seconds of
decoding with it.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path

import lmfusion

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from emissions import sentences, word_error_rate

# example -> packages that it runs; without one the search is the example's own.
EXAMPLES = {
    "pyctcdecode_decoder": ["pyctcdecode"],
    "torchaudio_decoder": ["torchaudio", "flashlight-text"],
    "nbest_rescoring": ["torchaudio", "flashlight-text"],
    "espnet_fusion": [],
    "icefall_fusion": [],
    "nemo_fusion": [],
}


def measure(example: str, packages: list[str], model: Path, said: list[str]) -> dict[str, object]:
    """One adapter with a scorer of its own, its cache empty."""
    try:
        versions = {package: importlib.metadata.version(package) for package in packages}
    except importlib.metadata.PackageNotFoundError as error:
        return {"adapter": example, "not_run": f"{error.name} is not installed"}
    decode = importlib.import_module(example).decode
    without = word_error_rate(said, decode(None, said))
    scorer = lmfusion.LMFusionScorer(model, casing="sentence")
    begin = time.perf_counter()
    heard = decode(scorer, said)
    seconds = time.perf_counter() - begin
    stats = scorer.stats()
    return {"adapter": example, "versions": versions, "wer_without": round(without, 4),
            "wer_with": round(word_error_rate(said, heard), 4), "calls": stats.calls,
            "tokens_computed": stats.tokens_computed, "tokens_uncached": stats.tokens_requested,
            "seconds": round(seconds, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=12)
    parser.add_argument("--only", choices=sorted(EXAMPLES), help="one adapter")
    arguments = parser.parse_args()
    said, model = sentences(arguments.sentences), lmfusion.default_model()
    for example, packages in EXAMPLES.items():
        if arguments.only in (None, example):
            print(json.dumps(measure(example, packages, model, said)), flush=True)


if __name__ == "__main__":
    main()
