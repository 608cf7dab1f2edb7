"""The passes over a model's graph: what is packed and fused is counted, and scores stay right."""

from __future__ import annotations

from pathlib import Path

import lmfusion
import pytest
import tiny_models
import torch
from lmfusion.export import export

PATHS = [[1, 5, 9, 200, 31, 7, 7], [1, 5, 9, 17], [1, 8], [1, *range(20, 60)]]
TOLERANCE = 1e-4  # nats per token

# name -> linear layers packed; fused norms, their weights, rotations, gates, residuals, attentions
COUNTS = {
    "llama": (3 * 7, (7, 7, 6, 3, 6, 3)),
    "llama-tied-biases": (3 * 7, (7, 7, 6, 3, 6, 3)),
    "qwen2": (3 * 7, (7, 7, 6, 3, 6, 3)),
    "qwen3": (3 * 7, (7 + 6, 7 + 6, 6, 3, 6, 3)),  # norms of queries and keys too
    "mistral": (3 * 7, (7, 7, 6, 3, 6, 3)),
    # One product for q, k, v and one for gate and up; heads are rotated in part.
    "phi3": (3 * 4, (7, 7, 6, 3, 6, 0)),
    "gemma3": (3 * 7, (13 + 6, 13 + 6, 6, 3, 0, 3)),  # norms before its residuals
    "granite": (3 * 7, (7, 7, 6, 3, 6, 3)),  # residuals are scaled
    "smollm3": (3 * 7, (7, 7, 4, 3, 6, 3)),  # a layer without rotation
    "gpt2": (3 * 4, (0, 0, 0, 0, 0, 0)),
}


def reference(model: torch.nn.Module) -> list[list[float]]:
    with torch.no_grad():
        return [model(input_ids=torch.tensor([path])).logits[0].log_softmax(-1)[:-1]
                .gather(1, torch.tensor(path[1:])[:, None])[:, 0].tolist() for path in PATHS]


def difference(wanted: list[list[float]], got: list[list[float]]) -> float:
    return max(abs(a - b) for row, other in zip(wanted, got, strict=True)
               for a, b in zip(row, other, strict=True))


@pytest.mark.parametrize("name", COUNTS)
def test_layers_are_packed_and_fused(name: str, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS[name]())
    bundle = export(model, None, tmp_path / "model.lmf")
    scorer = lmfusion.LMFusionScorer(bundle)
    got = scorer.score_token_paths(PATHS, [1] * len(PATHS))
    assert difference(reference(model), got) <= TOLERANCE
    stats = scorer.stats()
    assert (stats.packed_linears, stats.plain_linears) == (COUNTS[name][0], 0)
    assert stats.fused_operators == sum(COUNTS[name][1])


@pytest.mark.parametrize(("compute", "bound"), [("bfloat16", 0.15), ("int8", 0.3), ("int4", 3.0)])
def test_narrow_types_are_near_and_differ(compute: str, bound: float, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    bundle = export(model, None, tmp_path / "model.lmf")
    scorer = lmfusion.LMFusionScorer(bundle, compute=compute)
    got = scorer.score_token_paths(PATHS, [1] * len(PATHS))
    assert 0 < difference(reference(model), got) <= bound  # random weights: worse than trained ones


def test_compute_of_a_plain_model_is_float32(tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    bundle = export(model, None, tmp_path / "model.lmf", uncached=True)
    with pytest.raises(ValueError, match="compute"):
        lmfusion.LMFusionScorer(bundle, compute="int8")


@pytest.mark.parametrize("device", ["cpu", "emulated"])
def test_one_graph_runs_whatever_the_size_of_a_batch(device: str, tmp_path: Path) -> None:
    """Calls 1 to 20, each of another size: TorchScript made one graph at the first and no more.

    Its profiling executor would run one graph that records shapes, then others for the shapes it
    met, each compiled in the middle of a call.
    """
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    scorer = lmfusion.LMFusionScorer(export(model, None, tmp_path / "model.lmf"), device=device)
    graphs = []  # held, so that none can take another's place in memory
    for call in range(1, 21):
        scorer.clear_cache()
        size = call * 7 % 23 + 2
        scorer.score_token_paths([[1, *range(3, 3 + size)]], [1])
        graphs.append(torch.jit.last_executed_optimized_graph())  # of this thread
    assert scorer.stats().forwards == 20
    assert "%tokens" in str(graphs[0])  # the forward pass of the model
    assert all(graph is graphs[0] for graph in graphs)
