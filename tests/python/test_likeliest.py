"""The likeliest next tokens, and greedy continuations: against logits of plain Hugging Face."""

from __future__ import annotations

from pathlib import Path

import lmfusion
import pytest
import torch
from lmfusion.likeliest import likeliest_tokens
from lmfusion.lm_eval.greedy import Greedy

TEXTS = ["Once upon a time, there was a", "The capital of France is", "I am sorry to hear that",
         "Zxqv", "She parked the", "2 + 2 =", "Dear Sir or"]


Cases = tuple[lmfusion.LMFusionScorer, list[tuple[list[int], torch.Tensor]]]


@pytest.fixture(scope="module")
def cases(default_model: Path) -> Cases:
    """The scorer, and of each text its ids and log p of all next tokens by transformers."""
    pytest.importorskip("transformers")
    from lmfusion.default_model import source_gguf
    from lmfusion.exporter.sources import load_model
    scorer = lmfusion.LMFusionScorer(default_model)
    model = load_model(source_gguf())
    ids = [[scorer.description["bos_token_id"], *scorer.tokenizer.encode(text)] for text in TEXTS]
    with torch.no_grad():
        return scorer, [(each, model(input_ids=torch.tensor([each])).logits[0, -1].log_softmax(-1))
                        for each in ids]


def test_the_likeliest_are_those_of_all_logits(cases: Cases) -> None:
    scorer, expected = cases
    before = scorer.stats().candidates
    for path, log_p in expected:
        for count in (1, 5):
            wanted = log_p.topk(count)
            found = likeliest_tokens(scorer, path, count)
            assert [token for token, _ in found] == wanted.indices.tolist()
            assert [value for _, value in found] == pytest.approx(wanted.values.tolist(), abs=1e-4)
    asked = scorer.stats().candidates - before
    assert 4 * asked < 3 * 2 * len(expected) * scorer.tokenizer.vocabulary_size  # not all of them


def test_greedy_continuations_are_those_of_all_logits(cases: Cases) -> None:
    scorer, expected = cases
    for path, log_p in expected:
        for rank, token in enumerate(log_p.topk(4).indices.tolist()):
            for paths in ([], [[*path, token]]):
                greedy = Greedy(scorer, paths)  # which has heard of no sibling
                assert greedy.holds([*path, token], [log_p[token].item()]) == (rank == 0)
