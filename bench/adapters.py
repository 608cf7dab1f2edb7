"""Every adapter on the same simulated emissions, without and with the language model.

    python bench/adapters.py [-o out/adapters] [--sentences 24] [--cpp-decoder PROGRAM]

A row an adapter: versions of its packages, word error rates without and with the language model,
calls of it, tokens computed, tokens that one forward pass per request would compute, seconds of
decoding. OUTPUT.json and OUTPUT.md are written, and printed as they come.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lmfusion
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
from emissions import DATA, held_out, word_error_rate

# example -> packages that it runs; without one the search is the example's own.
EXAMPLES = {
    "pyctcdecode_decoder": ["pyctcdecode"],
    "torchaudio_decoder": ["torchaudio", "flashlight-text"],
    "nbest_rescoring": ["torchaudio", "flashlight-text"],
    "espnet_fusion": [],
    "icefall_fusion": [],
    "nemo_fusion": [],
}
CPP = "cpp_decoder"

Row = dict[str, Any]


def measure(example: str, model: Path, said: list[str]) -> Row:
    """One adapter with a scorer of its own, its cache empty."""
    try:
        versions = {name: importlib.metadata.version(name) for name in EXAMPLES[example]}
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


def measure_cpp(program: Path | None, model: Path, count: int) -> Row:
    """examples/cpp_decoder: its emissions are of the same texts and noise, but not the same."""
    if program is None:
        return {"adapter": CPP, "not_run": "--cpp-decoder does not name the built example"}
    output = subprocess.run(
        [program, model, DATA / "lexicon.txt", DATA / "held_out.txt", str(count)],
        check=True, capture_output=True, text=True).stdout

    def number(pattern: str) -> float:
        return float(re.search(pattern, output)[1])

    return {"adapter": CPP, "versions": {},
            "wer_without": number(r"without the language model: ([\d.]+)"),
            "wer_with": number(r"with the language model: ([\d.]+)"),
            "calls": int(number(r"(\d+) calls")), "tokens_computed": int(number(r"(\d+) computed")),
            "tokens_uncached": int(number(r"(\d+) tokens requested")),
            "seconds": number(r"in ([\d.]+) s\n")}


def line(row: Row) -> str:
    """The row in Markdown."""
    if "not_run" in row:
        return f"| {row['adapter']} | not run: {row['not_run']} |" + " |" * 7
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    saved = row["tokens_uncached"] / max(1, row["tokens_computed"])
    return (f"| {row['adapter']} | {versions or 'a search of the example'} "
            f"| {100 * row['wer_without']:.1f} % | {100 * row['wer_with']:.1f} % "
            f"| {row['calls']:,} | {row['tokens_computed']:,} | {row['tokens_uncached']:,} "
            f"| {saved:.0f}x | {row['seconds']:.1f} |")


HEADER = ("| adapter | packages | WER without | WER with | calls | tokens computed "
          "| one forward per request | saved | seconds |\n|---|---|---|---|---|---|---|---|---|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("out/adapters"))
    parser.add_argument("--sentences", type=int, default=24, help="of examples/data/held_out.txt")
    parser.add_argument("--only", choices=[*EXAMPLES, CPP], help="one adapter")
    parser.add_argument("--cpp-decoder", type=Path, help="the built examples/cpp_decoder")
    arguments = parser.parse_args()
    said, model = held_out(arguments.sentences), lmfusion.default_model()
    rows: list[Row] = []
    words = sum(len(text.split()) for text in said)
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    about = (f"{len(said)} sentences, {words} words; {model.stem}; {torch.get_num_threads()} "
             f"threads, {platform.machine()}, Python {platform.python_version()}, torch "
             f"{torch.__version__}, lmfusion {lmfusion.__version__}; load average {load}")
    print(f"{about}\n\n{HEADER}", flush=True)
    for example in [*EXAMPLES, CPP]:
        if arguments.only in (None, example):
            rows.append(measure_cpp(arguments.cpp_decoder, model, len(said)) if example == CPP
                        else measure(example, model, said))
            print(line(rows[-1]), flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.with_suffix(".json").write_text(
        json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    arguments.output.with_suffix(".md").write_text(
        "\n".join([about, "", HEADER, *map(line, rows)]) + "\n")


if __name__ == "__main__":
    main()
