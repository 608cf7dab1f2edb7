"""What the main job prints."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from lmfusion.demo.comparison import BEST_ONLY, LATTICE, REPETITIONS, YARDSTICK, Measurement
from lmfusion.demo.lattices import TOKENS_A_LATTICE, BestPaths
from lmfusion.demo.rescoring import Weights, oracle, word_error_rate, word_errors
from lmfusion.demo.utterances import SNR_DB, VOICE, Utterance
from lmfusion.demo.yardstick import BATCH

SHOWN_SENTENCES = 6


@dataclass(frozen=True)
class Rescored:
    """The reported sentences, before and after."""

    utterances: Sequence[Utterance]
    texts: Sequence[str]  # after rescoring
    weights: Weights
    tuning_sentences: int
    lattices: BestPaths

    def error_rates(self) -> dict[str, float]:
        """Word error rates by name."""
        references = [utterance.reference for utterance in self.utterances]
        before = [utterance.recognition.best for utterance in self.utterances]
        return {"before": word_error_rate(references, before),
                "after": word_error_rate(references, self.texts),
                "lattice": word_error_rate(references, self.lattices.texts),
                "oracle": word_error_rate(references, [oracle(each) for each in self.utterances])}


def print_error_rates(console: Console, rescored: Rescored) -> None:
    """Word error rates and how they came about."""
    utterances, weights = rescored.utterances, rescored.weights
    words = sum(len(utterance.reference.split()) for utterance in utterances)
    console.print(f"\n{len(utterances)} sentences, {words} words, spoken by flite ({VOICE}) with "
                  f"pink noise at {SNR_DB:g} dB,\nrecognised by PocketSphinx. "
                  f"total = recogniser + {weights.weight:g} * log p + "
                  f"{weights.word_insertion_bonus:g} * words;\nboth numbers tuned on "
                  f"{rescored.tuning_sentences} other sentences.\n")
    notes = {"before": "PocketSphinx's own answer", "after": "its list, rescored",
             "lattice": f"the best path of its lattice, proven for {rescored.lattices.proven} of "
                        f"{len(utterances)}",
             "oracle": "the best text of each list: what no rescoring can beat"}
    for name, rate in rescored.error_rates().items():
        console.print(f"  word error rate {name:<7} {rate:6.1%}   {notes[name]}")


def print_corrections(console: Console, rescored: Rescored) -> None:
    """A few sentences that got better, and how many got worse."""
    gains = [word_errors(utterance.reference, utterance.recognition.best)
             - word_errors(utterance.reference, text)
             for utterance, text in zip(rescored.utterances, rescored.texts)]
    better = [i for i, gain in enumerate(gains) if gain > 0]
    worse = sum(gain < 0 for gain in gains)
    console.print(f"\n{len(better)} sentences have fewer errors than before, {worse} more. "
                  "Some of the better ones:")
    for i in better[:SHOWN_SENTENCES]:
        console.print(f"  before: {rescored.utterances[i].recognition.best}\n"
                      f"  after:  {rescored.texts[i]}\n"
                      f"  said:   {rescored.utterances[i].reference}\n")


def print_comparison(console: Console, rows: Sequence[Measurement]) -> None:
    """The table of cached against uncached scoring."""
    console.print(f"Every workload starts with an empty cache; median of {REPETITIONS}, the lists "
                  f"once. {YARDSTICK}: the same weights,\nwhole texts in padded batches of {BATCH} "
                  "ordered by length, logits only where a token is scored.\n"
                  f"{machine()}")
    table = Table()
    for column in ("contexts x words", "engine"):
        table.add_column(column)
    for column in ("seconds", "tokens", "speed-up", "difference"):
        table.add_column(column, justify="right")
    for workload in dict.fromkeys(row.workload for row in rows):
        for row in (row for row in rows if row.workload == workload):
            same = row.engine == YARDSTICK
            table.add_row(workload, row.engine, f"{row.seconds:.3f}", f"{row.tokens:,}",
                          f"{row.speed_up:.1f} x", "" if same else f"{row.difference:.1e}",
                          end_section=same)
    console.print(table)
    console.print("tokens: computed by the model, padding counted. speed-up: over "
                  f"{YARDSTICK}.\ndifference: the largest of any score from {YARDSTICK}'s, nats.\n"
                  f"{BEST_ONLY}: which text of each list is best, the same as all scores say, and "
                  "no other score;\nall lists in one call, median. "
                  f"{LATTICE}: of all paths of the recogniser's own lattices, at\nmost "
                  f"{TOKENS_A_LATTICE:,} tokens each on average; speed-up over the lists.")


def facts(rescored: Rescored, rows: Sequence[Measurement], picture: Path) -> dict[str, Any]:
    """All of it for programs."""
    return {"word_error_rates": rescored.error_rates(), "weights": asdict(rescored.weights),
            "sentences": [{"said": utterance.reference, "before": utterance.recognition.best,
                           "after": text, "lattice": path} for utterance, text, path in
                          zip(rescored.utterances, rescored.texts, rescored.lattices.texts)],
            "lattices_proven": rescored.lattices.proven,
            "comparison": [asdict(row) for row in rows], "machine": machine(),
            "picture": str(picture)}


def machine() -> str:
    """Processor, threads and versions: what a time means nothing without."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return (f"{processor}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads, float32, "
            f"torch {torch.__version__}")
