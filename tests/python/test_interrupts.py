"""SIGINT at any time of any call: the next call is right, no slot is lost, no file is half-written.

    LMFUSION_TEST_SECONDS  how long to go on, beyond the first signals (default: not)
    LMFUSION_TEST_SEED     of the times at which signals come (default 1)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from oracle import Oracle

SIGNALS = 120  # of the short run
TOKENS = 60  # that the cache holds
CONTEXTS = ["", "the cat", "i'm on the", "the cat sat"]
WORDS = ["the", "sat", "naïve", "on a mat", "x"]
LONGEST = " ".join(["x y"] * 13)
QUIET = {"TRANSFORMERS_VERBOSITY": "error"}

PROGRAM = r'''
import json, os, random, signal, struct, sys, time

RIGHT = json.loads(sys.argv[2])
wakes, pipe = os.pipe()
scoring = os.getpid()
if os.fork() == 0:  # sends a signal so many seconds after it is told to
    os.close(pipe)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while seconds := os.read(wakes, 8):
        time.sleep(struct.unpack("d", seconds)[0])
        os.kill(scoring, signal.SIGINT)
    os._exit(0)

import lmfusion
import torch
from lmfusion.lattice import Arc, Lattice
from pathlib import Path

torch.set_num_threads(1)
folder = Path(sys.argv[3])
whole = lmfusion.LMFusionScorer(sys.argv[1])
whole.score_texts(["the cat"])
token_bytes = whole.stats().cache_bytes // whole.stats().cached_tokens
scorer = lmfusion.LMFusionScorer(sys.argv[1], weight=1.0, max_batch_tokens=7,
                                 kv_cache_bytes=RIGHT["tokens"] * token_bytes)
contexts, words, snapshot = RIGHT["contexts"], RIGHT["words"], folder / "some.cache"
rows = [words] * len(contexts)
graph = Lattice([Arc(i, i + 1, word, -1.0) for i in range(3) for word in words[:3]],
                {3: (0.0, 0.0)})

def exported():
    import tiny_models
    from lmfusion.exporter import export
    export(tiny_models.build(tiny_models.TREE_CONFIGS["llama"]()), tiny_models.tiny_tokenizer(),
           folder / "again.lmf")

def rescored():
    from lmfusion import nbest
    source = folder / "lists.jsonl"
    if not source.exists():
        source.write_text(json.dumps({"utt": "u", "hyps": [
            {"text": text, "score": -1.0} for text in contexts]}) + "\n")
    nbest.rescore(source, scorer, output=folder / "ranked.jsonl", weight=1.0)

calls = [lambda: scorer.score_continuations(contexts, rows),
         lambda: scorer.log_probs(contexts, rows, floor=-20.0, progress=lambda done, total: None),
         lambda: scorer.score_texts(contexts, eos=True, context=["the mat"]),
         lambda: scorer.best([contexts] * 3, n=2),
         lambda: scorer.best_path(graph, n=3),
         lambda: [scorer.explain(context, "sat") for context in contexts],
         lambda: scorer.prime(contexts[:2], vocabulary=words[:2]),
         lambda: scorer.save_cache(snapshot),
         lambda: scorer.load_cache(snapshot),
         lambda: scorer.clear_cache(),
         lambda: scorer.selfcheck(contexts, rows),
         rescored, exported]

def check():
    got = scorer.log_probs(contexts, rows)
    for row, right in zip(got, RIGHT["log_probs"]):
        assert all(abs(a - b) < 2e-3 for a, b in zip(row, right)), (row, right)
    # Every slot can be had, so none is pinned or lost.
    assert abs(scorer.score_texts([RIGHT["longest"]])[0] - RIGHT["longest_log_prob"]) < 5e-3
    stats = scorer.stats()
    assert stats.cache_bytes <= stats.cache_bytes_limit
    if snapshot.exists():
        lmfusion.LMFusionScorer(sys.argv[1]).load_cache(snapshot)
    again = folder / "again.lmf"
    if again.exists():
        assert lmfusion.LMFusionScorer(again).score_texts(["the"])
        again.unlink()
    if (folder / "ranked.jsonl").exists():
        assert len((folder / "ranked.jsonl").read_text().splitlines()) == 1
        (folder / "ranked.jsonl").unlink()

took = []
scorer.save_cache(snapshot)
for call in calls:
    begin = time.monotonic()
    call()
    took.append(time.monotonic() - begin)
check()
draw, counts = random.Random(int(os.environ.get("LMFUSION_TEST_SEED", "1"))), [0, 0]
end = time.monotonic() + float(os.environ.get("LMFUSION_TEST_SECONDS", "0"))
while sum(counts) < RIGHT["signals"] or time.monotonic() < end:
    which = draw.randrange(len(calls) - (draw.random() < 0.8))  # an export takes a second
    ended = False
    try:
        os.write(pipe, struct.pack("d", draw.random() * took[which]))
        calls[which]()
        ended = True
        time.sleep(60)
        sys.exit("no signal came")
    except KeyboardInterrupt:
        counts[ended] += 1
    try:
        check()
    except BaseException:
        print(f"after a signal in call {which}", file=sys.stderr)
        raise
os.close(pipe)
print(json.dumps({"interrupted": counts[0], "later": counts[1]}))
'''


def test_interrupts_at_any_time(oracle: Oracle, bundle: Path, tmp_path: Path,
                                record_property: pytest.RecordProperty) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    right = {"contexts": CONTEXTS, "words": WORDS, "tokens": TOKENS, "longest": LONGEST,
             "signals": SIGNALS, "longest_log_prob": oracle.text(LONGEST),
             "log_probs": [[oracle.word(context, word) for word in WORDS] for context in CONTEXTS]}
    seconds = float(os.environ.get("LMFUSION_TEST_SECONDS", "0"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(bundle), json.dumps(right), str(folder)], text=True,
        capture_output=True, timeout=600 + 2 * seconds, check=False,
        env={**os.environ, **QUIET, "PYTHONPATH": str(Path(__file__).parent)})
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    record_property("faults", counts["interrupted"] + counts["later"])
    assert counts["interrupted"] > SIGNALS / 4
