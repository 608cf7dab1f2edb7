"""What the programs of this folder have in common: sentences, model, checks, and the table.

The toolkits decode emissions that examples/emissions.py makes of sentences: 2 frames a letter in
which the letter is heard among noise, the same noise in both, so that other letters may be likelier
(NOISE is less than in the examples, whose searches know the words there are), and a blank frame.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jiwer
import lmfusion
import torch
from emissions import emissions, held_out, tuning
from lmfusion import _core
from lmfusion.default_model import source_gguf
from lmfusion.demo.yardstick import HuggingFaceScorer

NOISE = 1.5
TOLERANCE = 1e-4  # nats a scored token
ENDINGS = [".", "?", "!"]
LISTED = 5  # hypotheses of a sentence whose scores are compared

Decode = Callable[[lmfusion.LMFusionScorer | None], list[str]]
HEADER = ("| toolkit | search | WER without | WER with | calls | tokens computed "
          "| largest difference from Hugging Face |\n|---|---|---|---|---|---|---|")


class Trial:
    """One toolkit: the sentences to decode, what is expected of it, and its rows of the table.

    Attributes:
        said: the sentences.
        spoken: [frames, units] of log p, one a sentence.
        weight, bonus: in place of a program's own, for choosing them on `--set tuning`.
    """

    def __init__(self, package: str, what: str, *, beside: str = "",
                 noise: float = NOISE) -> None:
        parser = argparse.ArgumentParser(description=what.splitlines()[0])
        parser.add_argument("--set", choices=["held_out", "tuning"], default="held_out",
                            help="of the sentences in examples/data")
        parser.add_argument("--sentences", type=int, default=24)
        parser.add_argument("--weight", type=float, help="of log p, to choose it")
        parser.add_argument("--bonus", type=float, help="a word, likewise")
        parser.add_argument("--json", type=Path, help="where the rows go too")
        given = parser.parse_args()
        self.said = (held_out if given.set == "held_out" else tuning)(given.sentences)
        self.spoken = [torch.from_numpy(emissions(text, noise=noise)) for text in self.said]
        self.weight: float | None = given.weight
        self.bonus: float | None = given.bonus
        self._json: Path | None = given.json
        self._toolkit = ", ".join(f"{name} {importlib.metadata.version(name)}"
                                  for name in (package, beside) if name)
        self._oracle: HuggingFaceScorer | None = None
        self._rows: list[dict[str, object]] = []
        self._wrong: list[str] = []

    def measure(self, search: str, decode: Decode,
                handed: Callable[[], Sequence[tuple[str, float]]], *, ends: bool = True) -> None:
        """A row: `decode` without a scorer, then with one whose cache is empty.

        Args:
            handed: after that, (text, log p that the search was given for it) of everything that
                can be compared.
            ends: whether that log p includes the end of the text.
        """
        without = self._error_rate(decode(None))
        scorer = lmfusion.LMFusionScorer(lmfusion.default_model(), casing="sentence", join="space")
        with_lm = self._error_rate(decode(scorer))
        stats = scorer.stats()
        compared = list(dict(handed()).items())
        largest = self._largest_difference(scorer, compared, ends)
        self._rows.append({
            "toolkit": self._toolkit, "search": search, "wer_without": without,
            "wer_with": with_lm, "calls": stats.calls, "tokens_computed": stats.tokens_computed,
            "compared": len(compared), "largest_difference": largest})
        self.expect(f"{search}: log p as of plain Hugging Face", largest <= TOLERANCE)
        self.expect(f"{search}: something to compare", bool(compared))
        self.expect(f"{search}: word error rate {without:.3f}, with the language model "
                    f"{with_lm:.3f}", with_lm < without)

    def expect(self, what: str, true: bool) -> None:
        """Notes what is wrong; the program ends with 1 then."""
        if not true:
            self._wrong.append(what)

    def end(self) -> None:
        """Prints the table, and ends the program."""
        words = sum(len(text.split()) for text in self.said)
        print(f"\n{len(self.said)} sentences, {words} words\n\n{HEADER}")
        for row in self._rows:
            print(line(row))
        if self._json is not None:
            self._json.write_text(json.dumps(self._rows, indent=1) + "\n")
        for what in self._wrong:
            print(f"wrong: {what}", file=sys.stderr)
        sys.exit(1 if self._wrong else 0)

    def _error_rate(self, heard: list[str]) -> float:
        assert len(heard) == len(self.said), "a text for each sentence"
        return jiwer.wer(self.said, heard)

    def _largest_difference(self, scorer: lmfusion.LMFusionScorer,
                            compared: Sequence[tuple[str, float]], ends: bool) -> float:
        """Nats a token, from whole texts by plain Hugging Face."""
        if self._oracle is None:
            description = json.loads(_core.read_description(str(lmfusion.default_model())))
            self._oracle = HuggingFaceScorer(source_gguf(), description["bos_token_id"])
        texts = [text for text, _ in compared]
        wanted = self._oracle.score_texts(texts)
        if ends:
            marked = self._oracle.score_texts([text + mark for text in texts for mark in ENDINGS])
            wanted = [math.log(sum(math.exp(log_prob) for log_prob in marked[i:i + len(ENDINGS)]))
                      for i in range(0, len(marked), len(ENDINGS))]
        tokens = [len(scorer.tokenizer.encode(text)) + ends for text in texts]
        return max((abs(log_prob - right) / max(1, count)
                    for (_, log_prob), right, count in zip(compared, wanted, tokens)), default=0.0)


def line(row: Mapping[str, object]) -> str:
    """The row in Markdown."""
    return (f"| {row['toolkit']} | {row['search']} | {100 * row['wer_without']:.1f} % "
            f"| {100 * row['wer_with']:.1f} % | {row['calls']:,} | {row['tokens_computed']:,} "
            f"| {row['largest_difference']:.0e} nats a token, {row['compared']} texts |")
