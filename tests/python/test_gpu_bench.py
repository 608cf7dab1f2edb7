"""The benchmark for GPUs, bench/gpu.py: its models, its calls and its report, on the host."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import gpu
import pytest
import torch
import transformers
from lmfusion import LMFusionScorer
from lmfusion.memory import memory_plan, read_model

ROOT = Path(__file__).parents[2]



@pytest.mark.parametrize(("name", "parameters"), [
    ("llama-1b", 1_235_814_400), ("llama-3b", 3_212_749_824), ("gemma-4b", 3_880_263_168)])
def test_shapes_have_the_published_sizes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(gpu.CONFIGS[name]())
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("name", ["tiny", "tiny-gemma"])
def test_random_models_are_exported_right(name: str, tmp_path: Path) -> None:
    """No check against eager attention is made when the benchmark exports; here it is."""
    model = gpu.random_model(gpu.CONFIGS[name]())
    path = tmp_path / "model.lmf"
    gpu.export_unchecked(model, path)
    description, _ = read_model(path)
    assert description["weight_counts"]["bfloat16"] > 600_000  # the file is half the size
    assert "float32" not in description["weight_counts"]
    ids = torch.tensor([[gpu.BOS, *range(3, 30)]])
    with torch.no_grad():
        log_p = model(input_ids=ids).logits[0].double().log_softmax(-1)
    wanted = log_p[:-1].gather(1, ids[0, 1:, None])[:, 0].tolist()
    for device in ("cpu", "emulated"):
        got = LMFusionScorer(path, device=device).score_token_paths(ids.tolist(), [1])
        assert got[0] == pytest.approx(wanted, abs=1e-4)


def test_a_decoder_asks_for_every_beam_and_candidate() -> None:
    calls = list(itertools.islice(gpu.decoder_requests(1000, 3, 30, 5, 128256), 35))
    assert [len(call.paths) for call in calls[:6]] == [12, 144, 1728, 3000, 3000, 3000]
    words = []
    for before, call in itertools.pairwise(calls):
        assert all(0 < begin < len(path) <= begin + 3
                   for path, begin in zip(call.paths, call.scored_begin, strict=True))
        assert all(0 <= token < 128256 for path in call.paths for token in path)
        contexts = {path[:begin] for path, begin in zip(call.paths, call.scored_begin, strict=True)}
        assert len(contexts) <= 1000
        if len(call.paths) > 12:  # a step further in the same sentence
            assert contexts <= set(before.paths)
        words.append(len(call.paths) == 12)
    assert words.index(True) == 30 - 5 - 1  # then the next sentence begins, with the same text


def test_calls_are_those_of_a_full_beam() -> None:
    options = gpu.arguments(["--beams", "7", "--steps", "9"])
    calls = gpu.requests_for(gpu.CONFIGS["tiny"](), options)
    assert len(calls) == 9 and len(calls[0].paths) == 21


def test_recorded_calls(tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    call = {"contexts": ["the cat", ""], "candidate_words": [["sat down", "the", "x", "y"], ["a"]]}
    file.write_text("".join(json.dumps(call) + "\n" for _ in range(3)), encoding="utf-8")
    options = gpu.arguments(["--requests", str(file), "--steps", "2"])
    first, second = gpu.requests_for(gpu.CONFIGS["tiny"](), options)
    assert first == second
    assert [len(path) for path in first.paths] == [5, 4, 4, 2]
    assert first.scored_begin == [3, 3, 3, 1]
    assert first.paths[1] == (gpu.BOS, 3, 4, 3)  # the cat the
    assert first.tokens == 15


def test_a_row_by_hand() -> None:
    row = gpu.Row("tree", [0.2, 0.1, 0.4, 0.3], requested=5000, computed=1000, scale=1.0,
                  flops_per_token=2e9, memory=123_456_789)
    # 1000 tokens x 2 GFLOP in a second are a quarter of 8 TFLOP/s.
    assert row.line(8e12) == "| tree | 4 | 300.0 | 400.0 | 5,000 | 1,000 | 25.0% | 123 |"
    row.scale, row.memory = 10.0, None
    assert row.line(8e12) == "| tree | 4 | 3,000.0 | 4,000.0 | 5,000 | 1,000 | 25.0% | - |"
    row.seconds = []
    assert row.line(8e12) == "| tree | 0 | - | - | - | - | - | - |"
    columns = row.line(8e12).count("|")
    assert {line.count("|") for line in gpu.TABLE_HEAD.splitlines()} == {columns}


def test_time_stops_a_mode_and_the_first_call_is_not_timed(tmp_path: Path) -> None:
    options = gpu.arguments(["--beams", "4", "--steps", "5"])
    model = gpu.random_model(gpu.CONFIGS["tiny"]())
    path = tmp_path / "model.lmf"
    gpu.export_unchecked(model, path)
    calls = gpu.requests_for(gpu.CONFIGS["tiny"](), options)
    everything = gpu.time_scorer(LMFusionScorer(path, mode="uncached"), "uncached", calls, 1e9,
                                 None, 1.0)
    assert len(everything.seconds) == 4
    assert everything.requested == sum(call.tokens for call in calls[1:])
    # Last tokens need no forward pass.
    assert everything.computed == everything.requested - sum(len(c.paths) for c in calls[1:])
    short = gpu.time_scorer(LMFusionScorer(path, mode="grouped"), "grouped", calls, 0.0, 6, 1.0)
    assert len(short.seconds) == 1
    assert short.scale == 2 and short.mode == "grouped (first 6 texts, scaled)"


@pytest.mark.parametrize("compute", ["bfloat16", "int4"])
def test_the_report_has_a_row_a_mode(compute: str, capsys: pytest.CaptureFixture[str],
                                     tmp_path: Path) -> None:
    options = gpu.arguments(["--device", "emulated", "--beams", "3", "--steps", "2", "--words",
                             "2", "4", "--seconds", "1", "--compute", compute,
                             "--kv-cache-bytes", "1000000", "--folder", str(tmp_path)])
    gpu.benchmark("tiny-gemma", options, peak=1e12)
    printed = capsys.readouterr().out
    description = gpu.description(gpu.CONFIGS["tiny-gemma"]())
    planned = memory_plan(description, contexts=1000, tokens=30, compute=compute).cache_bytes
    assert f"unshared: {planned / 1e6:,.0f} MB" in printed
    assert f", {compute}, made in" in printed and "cache limit 1 MB" in printed
    rows = printed.split(gpu.TABLE_HEAD)[1].strip().splitlines()
    assert [row.split("|")[1].strip() for row in rows] == [
        "tree", "grouped", "uncached", "Hugging Face, padded batches"]
    assert all(int(row.split("|")[2]) >= 1 for row in rows)
    assert not list(tmp_path.iterdir())  # model files are gone
