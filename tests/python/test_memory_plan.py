"""The memory plan against what engines really reserve and hold."""

from __future__ import annotations

import json

import pytest
import tiny_models
import torch
from lmfusion import CacheBudgetError, LMFusionScorer, ModelFileError, memory_plan
from lmfusion.memory import memory_table, read_model


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random Llama with tied embeddings, without a tokenizer."""
    from lmfusion.exporter import export

    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama-tied-biases"]())
    return str(export(model, None, tmp_path_factory.mktemp("plan") / "llama.lmf"))


LLAMA_1B = {"kind": "tree", "layers": 16, "kv_heads": 8, "head_dim": 64, "hidden_size": 2048,
            "vocabulary_size": 128256}


def test_published_shape_of_llama_3_2_1b() -> None:
    plan = memory_plan(LLAMA_1B, contexts=50, tokens=100, compute="bfloat16",
                       parameters=1_235_814_400)
    assert plan.kv_bytes_per_token == 2 * 16 * 8 * 64 * 2
    assert plan.slot_bytes == 32768 + 2048 * 2
    assert plan.cache_bytes == 5000 * plan.slot_bytes
    assert plan.weight_bytes == 2 * 1_235_814_400
    assert plan.total_bytes == plan.weight_bytes + plan.cache_bytes


@pytest.mark.parametrize(("kv_dtype", "size"), [("float32", 4), ("bfloat16", 2), ("float8", 1)])
def test_types_of_keys_and_values(kv_dtype: str, size: int) -> None:
    plan = memory_plan(LLAMA_1B, compute="bfloat16", kv_dtype=kv_dtype)
    assert plan.kv_bytes_per_token == 2 * 16 * 8 * 64 * size
    assert plan.total_bytes is None


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match="contexts = 0"):
        memory_plan(LLAMA_1B, contexts=0)
    with pytest.raises(ValueError, match="compute = 'float8'"):
        memory_plan(LLAMA_1B, compute="float8")
    with pytest.raises(ValueError, match="kv_dtype = 'int8'"):
        memory_plan(LLAMA_1B, kv_dtype="int8")
    with pytest.raises(ValueError, match="the CPU .* float32"):
        memory_plan(LLAMA_1B, device="cpu", kv_dtype="float8")
    with pytest.raises(ValueError, match="device = 'tpu'"):
        memory_plan(LLAMA_1B, device="tpu")
    with pytest.raises(ValueError, match="plain"):
        memory_plan({**LLAMA_1B, "kind": "plain"})


def test_table_has_a_row_a_choice() -> None:
    table = memory_table(LLAMA_1B, parameters=1_235_814_400)
    assert len(table.splitlines()) == 2 + 7
    assert "| cuda | bfloat16 | float8 | 16,384 |" in table


def test_a_file_that_is_no_model(tmp_path) -> None:
    path = tmp_path / "x.lmf"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelFileError, match="x.lmf is not a model file"):
        read_model(path)


@pytest.mark.parametrize(("device", "compute", "kv_dtype"), [
    ("cpu", "float32", "auto"), ("cpu", "bfloat16", "auto"), ("cpu", "int8", "float32"),
    ("emulated", "float32", "auto"),
    ("emulated", "bfloat16", "auto"), ("emulated", "int8", "float8")])
def test_what_is_really_held(tiny_llama: str, device: str, compute: str, kv_dtype: str) -> None:
    """Bytes of N more cached tokens, as the scorer counts them, are N slots and N tree nodes."""
    description, parameters = read_model(tiny_llama)
    assert json.dumps(description)
    plan = memory_plan(description, compute=compute, kv_dtype=kv_dtype, parameters=parameters,
                       device="cpu" if device == "cpu" else "cuda")
    scorer = LMFusionScorer(tiny_llama, device=device, compute=compute, kv_dtype=kv_dtype)
    held = []
    for length in (5, 25):
        scorer.clear_cache()
        scorer.score_token_paths([[1] + list(range(3, 3 + length))], [1])
        held.append((scorer.stats().cached_tokens, scorer.stats().cache_bytes))
    (few, few_bytes), (many, many_bytes) = held
    assert many - few == 20
    per_token = (many_bytes - few_bytes) / 20
    assert plan.slot_bytes <= per_token <= plan.slot_bytes + 200  # 200: a node of the tree
    # The plan counts whole panels and blocks, which this model does not have.
    weights = scorer.stats().weight_bytes
    assert abs(weights - plan.weight_bytes) <= 0.2 * plan.weight_bytes


@pytest.fixture(scope="module")
def even_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tiny Llamas all of whose matrices have whole blocks: tied or not, bfloat16 or float32."""
    from lmfusion.exporter import export

    folder = tmp_path_factory.mktemp("even")
    made = {}
    for tied in (True, False):
        config = tiny_models.TREE_CONFIGS["llama"]()
        config.tie_word_embeddings, config.vocab_size = tied, 320
        config.hidden_size, config.intermediate_size, config.head_dim = 64, 96, 16
        for narrow in (True, False):
            model = tiny_models.build(config)
            if narrow:
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.copy_(parameter.bfloat16())
            name = f"{'tied' if tied else 'untied'} {'bfloat16' if narrow else 'float32'}"
            made[name] = str(export(model, None, folder / f"{name}.lmf"))
    return made


@pytest.mark.parametrize("compute", ["float32", "bfloat16", "float16", "int8", "int4"])
@pytest.mark.parametrize("name", ["tied bfloat16", "tied float32", "untied bfloat16",
                                  "untied float32"])
def test_weights_on_a_device_are_those_of_the_plan(even_models: dict[str, str], name: str,
                                                   compute: str) -> None:
    description, _ = read_model(even_models[name])
    plan = memory_plan(description, compute=compute)
    held = LMFusionScorer(even_models[name], device="emulated", compute=compute).stats()
    unread = 4 * 8  # a copy of the rotary frequencies that no forward pass reads
    if compute == "int8":  # scales of outputs that are not hidden_size wide
        assert held.weight_bytes == pytest.approx(plan.weight_bytes - unread, rel=0.02)
    else:
        assert held.weight_bytes == plan.weight_bytes - unread


def test_a_share_of_the_free_memory_is_the_limit(tiny_llama: str) -> None:
    scorer = LMFusionScorer(tiny_llama, device="emulated")
    assert scorer.stats().cache_bytes_limit == 2**28 / 2  # the emulated device has 2**28 free


def test_blocks_of_the_default_model_count_as_they_are(default_model) -> None:
    description, parameters = read_model(str(default_model))
    assert 134_515_008 <= parameters <= 134_515_008 + 1000  # rotary frequencies
    for device in ("cpu", "cuda"):
        for compute in ("float32", "bfloat16", "int8"):
            plan = memory_plan(description, compute=compute, device=device)
            scorer = LMFusionScorer(default_model, compute=compute,
                                    device="cpu" if device == "cpu" else "emulated")
            held = scorer.stats().weight_bytes
            assert abs(held - plan.weight_bytes) <= 0.001 * held


def test_command_prints_the_table(tiny_llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    from lmfusion.cli import main

    main(["inspect", tiny_llama, "--plan", "contexts=50", "tokens=100"])
    out = capsys.readouterr().out
    description, parameters = read_model(tiny_llama)
    assert memory_table(description, contexts=50, tokens=100, parameters=parameters) in out


def test_command_names_what_is_wrong(tiny_llama: str, capsys: pytest.CaptureFixture[str]) -> None:
    from lmfusion.cli import main

    with pytest.raises(SystemExit):
        main(["inspect", tiny_llama, "--plan", "contexts=many"])
    assert "contexts=many" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cpu", "emulated"])
@pytest.mark.parametrize("size", [2**50, 2**58, 2**62])
def test_a_cache_beyond_the_memory_is_a_budget_error(tiny_llama: str, device: str,
                                                     size: int) -> None:
    with pytest.raises(CacheBudgetError, match="kv_cache_bytes"):
        LMFusionScorer(tiny_llama, device=device, kv_cache_bytes=size)
