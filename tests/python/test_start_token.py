"""The start token is what ordinary sentences say is best, and stays where it should."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import lmfusion
import pytest
import tiny_models
import torch
import transformers
from lmfusion import _core
from lmfusion.default_model import source_gguf
from lmfusion.exporter.sources import load_model, load_tokenizer
from lmfusion.exporter.start_token import SENTENCES, chosen_start_token

VOCABULARY = tiny_models.VOCABULARY


class Foretold:
    """A model that gives the next token a probability which its first token alone decides."""

    def __init__(self, probabilities: dict[int, float], otherwise: float) -> None:
        self.probabilities, self.otherwise = probabilities, otherwise
        self.config = transformers.LlamaConfig(vocab_size=VOCABULARY, bos_token_id=1,
                                               eos_token_id=2)
        self.generation_config = None

    def __call__(self, input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
        logits = torch.zeros(*input_ids.shape, VOCABULARY)
        for row, ids in enumerate(input_ids):
            p = self.probabilities.get(int(ids[0]), self.otherwise)
            rest = (1 - p) / (VOCABULARY - 1)
            logits[row, :-1, :] = math.log(rest)
            logits[row, torch.arange(len(ids) - 1), ids[1:]] = math.log(p)
        return SimpleNamespace(logits=logits)


def choice(model: Foretold, adds_bos: bool = False) -> tuple[int, str]:
    start, table = chosen_start_token(model, tiny_models.tiny_tokenizer(adds_bos), VOCABULARY, 64)
    costs = [row.nats_per_token for row in table]
    assert costs == sorted(costs) and {row.id for row in table} >= {-1, 0, 1, 2}
    return start.token_id, start.source


def test_a_better_control_token_is_taken() -> None:
    model = Foretold({0: 0.5, 1: 0.2, 2: 0.3}, otherwise=0.1)
    assert choice(model) == (0, "measured")
    table = chosen_start_token(model, tiny_models.tiny_tokenizer(), VOCABULARY, 64)[1]
    assert [(row.token, row.id) for row in table[:3]] == [("<pad>", 0), ("</s>", 2), ("<s>", 1)]
    for row, p in zip(table, (0.5, 0.3, 0.2)):
        assert row.nats_per_token == pytest.approx(-math.log(p), abs=1e-3)


def test_the_declared_token_stays() -> None:
    assert choice(Foretold({0: 0.5, 1: 0.48, 2: 0.3}, 0.1)) == (1, "config")  # not worth a change
    assert choice(Foretold({0: 0.5, 1: 0.2, 2: 0.3}, 0.1), adds_bos=True) == (1, "tokenizer")
    assert choice(Foretold({0: 0.03, 1: 0.01, 2: 0.02}, 0.01)) == (1, "config")  # knows no English


def test_none_is_taken_where_it_is_better() -> None:
    assert choice(Foretold({0: 0.2, 1: 0.2, 2: 0.2}, otherwise=0.5)) == (-1, "measured")


def test_the_default_model_begins_texts_as_its_pre_training_did(default_model: Path) -> None:
    description = json.loads(_core.read_description(str(default_model)))
    best, *others = description["start_tokens"]
    assert (best["token"], description["bos_source"]) == ("<|endoftext|>", "measured")
    assert description["bos_token_id"] == best["id"] == 0
    declared = next(row for row in others if row["token"] == "<|im_start|>")
    assert best["nats_per_token"] < declared["nats_per_token"] - 0.5
    model, tokenizer = load_model(source_gguf()), load_tokenizer(source_gguf())
    for row, bos in ((best, "auto"), (declared, "<|im_start|>")):
        costs = []
        for sentence in SENTENCES[:4]:
            ids = [row["id"], *tokenizer(sentence, add_special_tokens=False)["input_ids"]]
            with torch.no_grad():
                log_p = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            costs.append(log_p[:-1].gather(1, torch.tensor(ids[1:])[:, None]).sum().item())
        scorer = lmfusion.LMFusionScorer(default_model, weight=1.0, bos=bos)
        assert scorer.score_texts(SENTENCES[:4]) == pytest.approx(costs, abs=2e-3)
