"""The indented Python snippets of the documents: run with stand-ins for what a reader has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import lmfusion
import pytest
from test_docs import PAGES, name

# What is not run: a word of the snippet, and why.
NOT_RUN = {
    "calibrate": "thousands of lists; tests/python/test_verified.py",
    "from_hf": "a live model; tests/python/test_drop_in.py",
    "PyctcdecodeLM": "a decoder and its logits; tests/python/test_pyctcdecode.py",
    "FloorDecoder": "the same",
    "ctc_decoder": "torchaudio's; tests/python/test_adapters.py",
    "ESPnetScorer": "toolkits' token lists; tests/python/test_adapters.py",
    "4gram.binary": "kenlm; tests/python/test_combined.py",
    "decode_beams": "a decoder and its logits; tests/python/test_nbest_toolkits.py",
}
SLF = """VERSION=1.0
N=3 L=2
I=0 W=!NULL
I=1 W=the
I=2 W=cat
J=0 S=0 E=1 a=-1
J=1 S=1 E=2 a=-2
"""


def python_blocks(text: str) -> Iterator[str]:
    """Indented blocks that are Python, and more than a formula or a line of a shell."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    for block in re.findall(r"(?<=\n\n)(?:    \S.*\n(?:    .*\n|\n(?=    ))*)", outside):
        code = re.sub("^    ", "", block, flags=re.MULTILINE)
        try:
            compile(code, "snippet", "exec")
        except SyntaxError:
            continue
        if "(" in code:
            yield code


BLOCKS = [(page, code) for page in PAGES for code in python_blocks(
    page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "code"), BLOCKS, ids=[name(page) for page, _ in BLOCKS])
def test_indented_snippets_run(page: Path, code: str, default_model: Path, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    if any(word in code for word in NOT_RUN):
        compile(code, str(page), "exec")
        return
    monkeypatch.chdir(tmp_path)
    (tmp_path / "utterance.slf").write_text(SLF)
    texts = ["the cat sat", "the cats at"]
    exec(compile(code, str(page), "exec"), {
        "lmfusion": lmfusion, "json": json, "nbest": lmfusion.nbest, "texts": texts,
        "scorer": lmfusion.LMFusionScorer(default_model), "contexts": ["the", "a"], "best": 0.0,
        "words": [["cat", "mat"], ["dog"]], "earlier": ["hello there"], "prompt": "A talk.\n",
        "lists": [texts], "base_scores": [[-1.0, -2.0]],
        "lists_of_hypotheses": [list(zip(texts, (-1.0, -2.0)))],
        "ngram": SimpleNamespace(log_prob=lambda context, word: -1.0)})


def test_the_pattern_finds_what_it_should() -> None:
    assert list(python_blocks("a\n\n    f(x)\n    y = 2\n\nb\n\n    pip install x\n")) == [
        "f(x)\ny = 2\n"]
    run = [code for _, code in BLOCKS if not any(word in code for word in NOT_RUN)]
    assert len(run) >= 7
