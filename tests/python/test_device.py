"""A scorer on a device against plain Hugging Face."""

from __future__ import annotations

import copy
import random

import pytest
import tiny_models
import torch
from devices import DEVICES, HAS_GPU
from lmfusion import LMFusionScorer

EXACT = 1e-4  # nats per token, float32
COMPUTE = ["bfloat16", "float16", "int8", "int4"]
ARCHITECTURES = ["llama", "llama-tied-biases", "mistral", "gemma2", "gemma3", "gpt2", "opt",
                 "qwen3", "gpt-oss", "cohere", "mixtral"]


def random_paths(count: int, seed: int) -> list[list[int]]:
    """Token paths that branch off each other; the longest go beyond every sliding window."""
    generator = random.Random(seed)
    paths: list[list[int]] = []
    for _ in range(count):
        start = generator.choice(paths)[:generator.randrange(1, 30)] if paths else [1]
        length = len(start) + generator.randrange(1, 12)
        while len(start) < length:
            start = [*start, generator.randrange(3, tiny_models.VOCABULARY)]
        paths.append(start)
    return paths


def reference(model: torch.nn.Module, paths: list[list[int]]) -> list[list[float]]:
    """log p of every token after the first, each path in a forward pass of its own."""
    result = []
    with torch.no_grad():
        for path in paths:
            ids = torch.tensor([path])
            log_p = model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
            result.append(log_p[:-1].gather(1, ids[0, 1:, None])[:, 0].tolist())
    return result


def differences(got: list[list[float]], wanted: list[list[float]]) -> torch.Tensor:
    return torch.tensor([g - w for gs, ws in zip(got, wanted, strict=True)
                         for g, w in zip(gs, ws, strict=True)]).abs()


def rounded_to_8_bits(rows: torch.Tensor) -> torch.Tensor:
    """Rows: 127 steps from zero to the largest weight."""
    scale = rows.abs().amax(-1, keepdim=True) / 127
    return (rows / scale).round().clamp(-127, 127) * scale


def rounded_to_4_bits(blocks: torch.Tensor) -> torch.Tensor:
    """Blocks [.., 32]: 16 steps of a float16 scale above a float16 minimum, over the range of the
    weights or 3, 6, ... 21 % less of it, whichever has the least squared error."""
    least, most = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True)
    best, best_error = blocks, torch.full_like(least, torch.inf)
    for shrink in range(8):
        half_range = (most - least) / 2 * (1 - 0.03 * shrink)
        scale = (2 * half_range / 15).half().float()
        minimum = ((least + most) / 2 - half_range).half().float()
        tried = ((blocks - minimum) / scale).round().clamp(0, 15) * scale + minimum
        error = (tried - blocks).square().sum(-1, keepdim=True)
        best = torch.where(error < best_error, tried, best)
        best_error = torch.minimum(error, best_error)
    return best


def rounded_model(model: torch.nn.Module, compute: str) -> torch.nn.Module:
    """The same model with the weights that a narrow type leaves, still in float32."""
    dtype = torch.float16 if compute == "float16" else torch.bfloat16
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for name, module in rounded.named_modules():
            weight = getattr(module, "weight", None)
            if weight is None or weight.dim() != 2:
                continue
            is_table = isinstance(module, torch.nn.Embedding) or name == "lm_head"
            rows = weight.T if type(module).__name__ == "Conv1D" else weight
            if compute == "int8" and not is_table:
                rows = rounded_to_8_bits(rows)  # whose scales multiply sums, in float32
            elif compute == "int4" and not is_table and rows.shape[1] % 32 == 0:
                blocks = rows.reshape(rows.shape[0], -1, 32)
                rows = rounded_to_4_bits(blocks).reshape(rows.shape).to(dtype).float()
            else:
                rows = rows.to(dtype).float()
            weight.copy_(rows.T if type(module).__name__ == "Conv1D" else rows)
    return rounded


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory):
    """name -> (Hugging Face model, exported file), made once a module."""
    from lmfusion.exporter import export

    made: dict[str, tuple[torch.nn.Module, str]] = {}

    def get(name: str) -> tuple[torch.nn.Module, str]:
        if name not in made:
            model = tiny_models.build(tiny_models.TREE_CONFIGS[name]())
            path = str(tmp_path_factory.mktemp("models") / f"{name}.lmf")
            export(model, None, path)
            made[name] = model, path
        return made[name]

    return get


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_float32_is_exact(models, name: str, device: str) -> None:
    model, path = models(name)
    paths = random_paths(12, seed=1)
    wanted = reference(model, paths)
    scorer = LMFusionScorer(path, device=device, max_batch_tokens=24)
    for _ in range(2):  # computed, and from the cache
        got = scorer.score_token_paths(paths, [1] * len(paths))
        assert differences(got, wanted).max() < EXACT


# Operators that read numbers on the host, which a device would have to be waited for.
WAITS = {"aten::_grouped_mm",  # of float32 weights
         "aten::is_nonzero", "aten::nonzero", "aten::masked_select", "aten::equal",
         "aten::_unique2", "aten::bincount", "aten::repeat_interleave.Tensor"}
# Nodes of a graph that read a tensor's number on the host.
READS = {"aten::Int", "aten::Float", "aten::Bool", "aten::ScalarImplicit", "aten::FloatImplicit",
         "aten::IntImplicit", "aten::item"}


def is_known_on_the_host(value: torch._C.Value) -> bool:
    """Computed of sizes and constants alone, whatever the tokens are."""
    node = value.node()
    if node.kind() in ("prim::Constant", "aten::size", "prim::NumToTensor"):
        return True
    return node.kind() in ("aten::floor_divide", "aten::mul", "aten::add", "aten::sub") and all(
        is_known_on_the_host(each) for each in node.inputs())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_operator_waits_for_the_device(models, name: str) -> None:
    _, path = models(name)
    reads = [node for node in torch.jit.load(path).inlined_graph.nodes() if node.kind() in READS]
    assert all(is_known_on_the_host(node.inputsAt(0)) for node in reads)
    paths = random_paths(12, seed=6)
    scorer = LMFusionScorer(path, device="emulated", compute="bfloat16")
    # The engine puts its thread's own callbacks aside, a profiler's too, but not those of all.
    everywhere = torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU],
                                experimental_config=everywhere) as profile:
        scorer.score_token_paths(paths, [1] * len(paths))
    called = {event.name for event in profile.events()}
    assert {"lmfusion::tree_attention", "lmfusion::narrow_linear"} <= called
    assert not called & WAITS


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("compute", COMPUTE)
@pytest.mark.parametrize("name", ["llama", "llama-tied-biases", "gpt2", "gemma3"])
def test_narrow_types(models, name: str, compute: str, device: str) -> None:
    """On average as near to the model with the same rounded weights as Hugging Face's own 16 bit
    arithmetic is to float32; activations are rounded before every product, nothing else is."""
    model, path = models(name)
    paths = random_paths(12, seed=2)
    scorer = LMFusionScorer(path, device=device, compute=compute)
    got = scorer.score_token_paths(paths, [1] * len(paths))
    dtype = torch.float16 if compute == "float16" else torch.bfloat16
    wanted = reference(rounded_model(model, compute), paths)
    usual = differences(reference(copy.deepcopy(model).to(dtype), paths), reference(model, paths))
    assert differences(got, wanted).mean() < usual.mean()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kv_dtype", ["float16", "bfloat16", "float8"])
def test_narrow_keys_and_values(models, kv_dtype: str, device: str) -> None:
    model, path = models("llama")
    paths = random_paths(12, seed=3)
    scorer = LMFusionScorer(path, device=device, kv_dtype=kv_dtype)
    got = scorer.score_token_paths(paths, [1] * len(paths))
    error = differences(got, reference(model, paths)).mean()
    assert error < {"float16": 0.005, "bfloat16": 0.02, "float8": 0.2}[kv_dtype]
    assert error > 1e-5  # the option does something


@pytest.mark.parametrize("device", DEVICES)
def test_passes_are_recorded_and_padding_is_counted(models, device: str) -> None:
    model, path = models("llama")
    scorer = LMFusionScorer(path, device=device)
    for seed in range(4):
        paths = [[1, *random.Random(seed).sample(range(3, 200), 20)]]
        got = scorer.score_token_paths(paths, [1])
        assert differences(got, reference(model, paths)).max() < EXACT
    stats = scorer.stats()
    assert stats.forwards == 4
    assert stats.forwards_replayed == 3  # the first of a size runs as it is
    assert stats.tokens_padded == (24 - 20) + 3 * (24 - 19)  # the start token is shared


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", ["tree", "grouped", "uncached"])
def test_modes_and_small_batches_agree(models, mode: str, device: str) -> None:
    model, path = models("gemma2")
    paths = random_paths(8, seed=4)
    scorer = LMFusionScorer(path, device=device, mode=mode, max_batch_tokens=5)
    got = scorer.score_token_paths(paths, [1] * len(paths))
    assert differences(got, reference(model, paths)).max() < EXACT


@pytest.mark.parametrize("device", DEVICES)
def test_eviction_changes_nothing(models, device: str) -> None:
    model, path = models("llama")
    paths = random_paths(30, seed=5)
    scorer = LMFusionScorer(path, device=device, kv_cache_bytes=60_000)
    wanted = reference(model, paths)
    for i in [*range(30), *range(30)]:
        got = scorer.score_token_paths([paths[i]], [1])
        assert differences(got, wanted[i:i + 1]).max() < EXACT
    assert scorer.stats().evictions > 0


@pytest.mark.skipif(HAS_GPU, reason="a CUDA device is present; its absence cannot be tested")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3"])
def test_no_gpu_is_one_clear_error(models, device: str) -> None:
    _, path = models("llama")
    with pytest.raises(ValueError, match=f'device = "{device}" is not available: ') as error:
        LMFusionScorer(path, device=device)
    assert "\n" not in str(error.value)
    # And the machine's CPU works on.
    assert LMFusionScorer(path).score_token_paths([[1, 5]], [1])


@pytest.mark.parametrize(("options", "message"), [
    ({"device": "tpu"}, '"cpu", "cuda" or "cuda:N" expected'),
    ({"device": "cuda:x"}, '"cpu", "cuda" or "cuda:N" expected'),
    ({"device": "emulated", "compute": "float64"}, 'compute = "float64"'),
    ({"device": "emulated", "kv_dtype": "int2"}, 'kv_dtype = "int2"'),
    ({"kv_dtype": "float8"}, 'on the CPU keys and values are kept in "float32"')])
def test_wrong_options(models, options: dict[str, str], message: str) -> None:
    _, path = models("llama")
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        LMFusionScorer(path, **options)
