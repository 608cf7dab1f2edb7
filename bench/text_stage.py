"""Casing and tokenizing alone: lmfusion against the package truecase and Hugging Face's tokenizers.

    python bench/text_stage.py english.truecaser [requests.jsonl] -o out/text_stage.json

Both read the same requests in the same order, in one process and one run, round by round.
lmfusion's time is `stats().text_seconds` of a scorer around a tiny random model with the default
model's tokenizer; it starts every round with nothing remembered. bench/README.md has the method.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import lmfusion
import tokenizers
import torch
import transformers
import truecase
from lmfusion._core import Truecaser
from make_requests import Shape, make_requests
from nltk.tokenize import word_tokenize
from nltk.tokenize.treebank import TreebankWordDetokenizer
from sentences import SENTENCES

CASING = "truecase-compat"
LENGTHS = (10, 100, 400)  # words of a context
WORDS = ["the", "cat", "i", "london", "don't", "may", "street", "and", "'am", "new"]

Request = tuple[list[str], list[list[str]]]


def tokenizer_json() -> str:
    """That of the default model."""
    files = {"tokenizer.json": b""}
    torch.jit.load(str(lmfusion.default_model()), _extra_files=files)
    return files["tokenizer.json"].decode()


def tiny_model(tokenizer: str, folder: Path) -> Path:
    """One layer of width 8: what follows the text stage costs as little as it can."""
    backend = tokenizers.Tokenizer.from_str(tokenizer)
    config = transformers.LlamaConfig(
        vocab_size=backend.get_vocab_size(), hidden_size=8, intermediate_size=8,
        num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, bos_token_id=0,
        eos_token_id=0, max_position_embeddings=4096)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend)
    return lmfusion.export(transformers.LlamaForCausalLM(config), fast, folder / "tiny.lmf")


class Peers:
    """Every candidate text through the package, as one sentence, and every call through encode."""

    def __init__(self, tokenizer: str) -> None:
        self._caser = truecase.get_truecaser()
        self._join = TreebankWordDetokenizer()
        self._tokenizer = tokenizers.Tokenizer.from_str(tokenizer)

    def cased(self, text: str) -> str:
        words = word_tokenize(text, preserve_line=True)
        return self._join.detokenize(self._caser.get_true_case_from_tokens(words))

    def run(self, requests: Sequence[Request]) -> float:
        """Seconds."""
        begin = time.perf_counter()
        for contexts, words in requests:
            texts = [self.cased(f"{context} {word}".lstrip())
                     for context, row in zip(contexts, words) for word in row]
            self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return time.perf_counter() - begin


def ours(model: Path, truecaser: Path, requests: Sequence[Request],
         before: Sequence[Request] = ()) -> lmfusion.LMFusionScorer:
    """A new scorer, its counters those of `requests` after it has seen `before`."""
    scorer = lmfusion.LMFusionScorer(model, casing=CASING, truecaser=truecaser,
                                     max_context_length=2048)
    for contexts, words in before:
        scorer.log_probs(contexts, words)
    scorer.reset_stats()
    for contexts, words in requests:
        scorer.log_probs(contexts, words)
    return scorer


def candidates_of(requests: Sequence[Request]) -> int:
    return sum(len(row) for _, words in requests for row in words)


def read_requests(path: Path | None, calls: int) -> list[Request]:
    rows = (make_requests(Shape(beams=30)) if path is None else
            (json.loads(line) for line in path.read_text().splitlines()))
    found = [(row["contexts"], row["candidate_words"]) for row in rows if "contexts" in row]
    return found[:calls]


def compare(peers: Peers, model: Path, truecaser: Path, requests: Sequence[Request],
            rounds: int) -> dict[str, object]:
    """Milliseconds per 1,000 candidates, and how many texts are equal."""
    theirs, own = [], []
    for _ in range(rounds):
        theirs.append(peers.run(requests))
        own.append(ours(model, truecaser, requests).stats())
    count = candidates_of(requests)
    caser = Truecaser(truecaser, compat=True)
    equal = sum(caser.apply(context, word)[0] == peers.cased(f"{context} {word}".lstrip())
                for contexts, words in requests
                for context, row in zip(contexts, words) for word in row)
    ms = 1e6 / count
    return {"candidates": count, "equal_texts": equal,
            "peers_ms": statistics.median(theirs) * ms,
            "lmfusion_ms": statistics.median(stats.text_seconds for stats in own) * ms,
            "bytes_tokenized_per_candidate": own[0].text_bytes_tokenized / count}


def by_length(peers: Peers, model: Path, truecaser: Path, length: int,
              calls: int = 40) -> dict[str, object]:
    """A hypothesis of `length` words that grows by a word a call."""
    words = (" ".join(SENTENCES).split() * 10)[:length + calls]
    grown = [([" ".join(words[:n])], [WORDS]) for n in range(length, length + calls)]
    stats = ours(model, truecaser, grown[1:], before=grown[:1]).stats()
    ms = 1e6 / candidates_of(grown[1:])
    return {"words": length, "peers_ms": peers.run(grown[1:]) * ms,
            "lmfusion_ms": stats.text_seconds * ms,
            "bytes_tokenized_per_call": stats.text_bytes_tokenized / (calls - 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Times casing and tokenizing alone.")
    parser.add_argument("truecaser", type=Path, help="made by `lmfusion export-truecaser`")
    parser.add_argument("requests", type=Path, nargs="?",
                        help="default: those of make_requests.py with 30 beams")
    parser.add_argument("--calls", type=int, default=1000, help="the first of the requests only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    tokenizer = tokenizer_json()
    peers = Peers(tokenizer)
    requests = read_requests(arguments.requests, arguments.calls)
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(tokenizer, Path(folder))
        total = compare(peers, model, arguments.truecaser, requests, arguments.rounds)
        lengths = [by_length(peers, model, arguments.truecaser, n) for n in LENGTHS]
    print(f"load {os.getloadavg()[0]:.1f}; {total['candidates']} candidates, "
          f"{total['equal_texts']} texts equal (ties between casings may differ)")
    print(f"{'':24}{'truecase + tokenizers':>24}{'lmfusion':>12}   ms per 1,000 candidates")
    for name, row in [("requests", total), *((f"{r['words']} words", r) for r in lengths)]:
        ratio = row["peers_ms"] / row["lmfusion_ms"]
        print(f"{name:24}{row['peers_ms']:24.2f}{row['lmfusion_ms']:12.2f}{ratio:8.0f}x")
    for row in lengths:
        print(f"{row['words']} words: {row['bytes_tokenized_per_call']:.0f} bytes tokenized a call")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps({"requests": total, "lengths": lengths}, indent=1))


if __name__ == "__main__":
    main()
