"""Bundles hold weights in as few bytes as lose nothing; scores are those of plain Hugging Face."""

from __future__ import annotations

import json
import math
from pathlib import Path

import gguf
import numpy
import peft
import pytest
import tiny_models
import torch
import transformers
from lmfusion import LMFusionScorer, ModelFileError
from lmfusion.exporter import export, export_folder
from lmfusion.exporter.metadata import weights_sha256
from model_files import with_description

EXACT = 1e-4  # nats per token
PATHS = [[1, 5, 9, 200, 31, 7, 7], [1, 5, 9, 17], [1, 8], [1, *range(20, 60)]]
LAYERS, WIDTH, INNER = 2, 64, 128
Q4_0, Q4_1, Q8_0, F32 = (gguf.GGMLQuantizationType[name]
                         for name in ("Q4_0", "Q4_1", "Q8_0", "F32"))
# Of every layer; query, key and value, one product elsewhere, are of two types here.
LAYER_TYPES = {"attn_q": Q4_1, "attn_k": Q4_1, "attn_v": Q8_0, "attn_output": Q4_0,
               "ffn_gate": Q4_1, "ffn_up": Q4_1, "ffn_down": F32}
SHAPES = {"attn_q": (WIDTH, WIDTH), "attn_k": (32, WIDTH), "attn_v": (32, WIDTH),
          "attn_output": (WIDTH, WIDTH), "ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH),
          "ffn_down": (WIDTH, INNER)}
NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}

# What is stored, and multiplied, as one matrix: of one input and one type.
STACKS = (("attn_q", "attn_k"), ("attn_v",), ("attn_output",), ("ffn_gate", "ffn_up"),
          ("ffn_down",))


def stored_name(layer: int, name: str) -> str:
    """The attribute that holds a matrix, or the stack that it is the first of."""
    return f"layers.{layer}.{NAMES[name]}.weight".replace(".", "__")


def reference(model: torch.nn.Module) -> list[list[float]]:
    with torch.no_grad():
        return [model(input_ids=torch.tensor([path])).logits[0].log_softmax(-1)[:-1]
                .gather(1, torch.tensor(path[1:])[:, None])[:, 0].tolist() for path in PATHS]


def scores(bundle: Path, **options: object) -> tuple[list[list[float]], LMFusionScorer]:
    scorer = LMFusionScorer(bundle, **options)
    return scorer.score_token_paths(PATHS, [1] * len(PATHS)), scorer


def difference(wanted: list[list[float]], got: list[list[float]]) -> float:
    return max(abs(a - b) for row, other in zip(wanted, got, strict=True)
               for a, b in zip(row, other, strict=True))


def read(bundle: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Tensors and description of a model file."""
    files = {"lmfusion.json": ""}
    module = torch.jit.load(str(bundle), _extra_files=files)
    return module.state_dict(), json.loads(files["lmfusion.json"])


def representable(config: transformers.PretrainedConfig) -> transformers.PreTrainedModel:
    """A float32 model all of whose matrices are representable in bfloat16, its vectors not."""
    model = tiny_models.build(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.copy_(parameter.bfloat16())
    return model


def llama(*, tied: bool) -> transformers.PretrainedConfig:
    config = tiny_models.TREE_CONFIGS["llama"]()
    config.tie_word_embeddings, config.vocab_size = tied, 288  # whole panels: bytes are exact
    config.head_dim, config.intermediate_size = 16, 64
    return config


def matrix_bytes(model: torch.nn.Module, size: float = 2) -> float:
    """Bytes of all matrices, tied ones counted once, at `size` a weight."""
    return size * sum(parameter.numel() for parameter in model.parameters()
                      if parameter.dim() == 2)


def outputs(model: torch.nn.Module) -> int:
    """Of all linear layers, the output matrix among them."""
    return sum(layer.out_features for layer in model.modules()
               if isinstance(layer, torch.nn.Linear))


@pytest.mark.parametrize("name", ["llama", "llama-tied-biases", "gpt2", "opt", "gemma2"])
def test_representable_weights_are_stored_as_bfloat16(name: str, tmp_path: Path) -> None:
    model = representable(tiny_models.TREE_CONFIGS[name]())
    bundle = export(model, None, tmp_path / "model.lmf")
    tensors, description = read(bundle)
    types = {tensor.dtype for tensor in tensors.values() if tensor.dim() == 2}
    assert types == {torch.bfloat16} and description["weight_types"] == {}
    counted = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)
    assert description["weight_counts"]["bfloat16"] == counted
    got, scorer = scores(bundle)
    assert difference(reference(model), got) <= EXACT
    assert scorer.stats().plain_linears == 0


def test_other_weights_stay_float32(tmp_path: Path) -> None:
    model = representable(llama(tied=False))
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight[3, 5] += 1e-5  # in a group
    bundle = export(model, None, tmp_path / "model.lmf")
    tensors, _ = read(bundle)
    wide = [name for name, tensor in tensors.items()
            if tensor.dim() == 2 and tensor.dtype == torch.float32]
    assert wide == ["layers__1__self_attn__k_proj__weight"]
    got, scorer = scores(bundle)
    assert difference(reference(model), got) <= EXACT
    assert scorer.stats().packed_linears == 3 * 4 + 1  # not stacked with queries and values


@pytest.mark.parametrize("tied", [True, False])
def test_bytes_held_are_those_of_bfloat16(tied: bool, tmp_path: Path) -> None:
    """Only matrices packed as bfloat16, each once, are as small."""
    model = representable(llama(tied=tied))
    bundle = export(model, None, tmp_path / "model.lmf")
    held = LMFusionScorer(bundle).stats().weight_bytes
    vectors = held - matrix_bytes(model)
    assert 0 < vectors < 4 * 1000  # norms and rotary frequencies


@pytest.mark.parametrize(("compute", "bound"), [("float32", EXACT), ("bfloat16", 0.15),
                                                ("int8", 0.3), ("int4", 3.0)])
def test_tied_embeddings_in_every_type(compute: str, bound: float, tmp_path: Path) -> None:
    """The table is shared with the outputs where packing keeps its bits, else held beside them."""
    model = representable(llama(tied=True))
    bundle = export(model, None, tmp_path / "model.lmf")
    got, scorer = scores(bundle, compute=compute)
    assert difference(reference(model), got) <= bound
    table = model.lm_head.weight.numel()
    size = {"float32": 2, "bfloat16": 2, "int8": 1, "int4": 20 / 32}[compute]
    beside = 2 * table if compute in ("int8", "int4") else 0
    scales = 4 * outputs(model) if compute == "int8" else 0
    vectors = scorer.stats().weight_bytes - matrix_bytes(model, size) - beside - scales
    assert 0 < vectors < 4 * 1000


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_that_are_not_representable(tied: bool, tmp_path: Path) -> None:
    model = tiny_models.build(llama(tied=tied))
    bundle = export(model, None, tmp_path / "model.lmf")
    got, scorer = scores(bundle)
    assert difference(reference(model), got) <= EXACT
    assert 0 < scorer.stats().weight_bytes - matrix_bytes(model, 4) < 4 * 1000
    got, _ = scores(bundle, compute="bfloat16")
    assert 0 < difference(reference(model), got) <= 0.15


def test_lora_keeps_the_other_weights_narrow(tmp_path: Path) -> None:
    model = representable(tiny_models.TREE_CONFIGS["llama"]())
    settings = peft.LoraConfig(r=4, target_modules=["q_proj"], lora_alpha=8)
    adapted = peft.get_peft_model(model, settings)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(4))
    bundle = export(adapted.eval(), None, tmp_path / "model.lmf")
    tensors, _ = read(bundle)
    for name, tensor in tensors.items():
        if name.endswith("proj__weight"):
            wide = name.endswith("q_proj__weight")
            assert tensor.dtype == (torch.float32 if wide else torch.bfloat16), name
    got, _ = scores(bundle)
    assert difference(reference(adapted), got) <= EXACT


def test_the_plain_form_stays_float32(tmp_path: Path) -> None:
    model = representable(tiny_models.TREE_CONFIGS["llama"]())
    bundle = export(model, None, tmp_path / "model.lmf", uncached=True)
    tensors, description = read(bundle)
    assert {tensor.dtype for tensor in tensors.values() if tensor.dim() == 2} == {torch.float32}
    assert description["weight_types"] == {}


class _Unknown(torch.nn.Module):
    """A linear layer with something else in it."""

    def __init__(self, weight: torch.nn.Parameter) -> None:
        super().__init__()
        self.weight = weight
        self.one = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.matmul(x, self.weight.t() * self.one)


def test_what_is_not_packed_is_widened(tmp_path: Path) -> None:
    model = representable(tiny_models.TREE_CONFIGS["llama"]())
    mlp = model.model.layers[1].mlp
    mlp.down_proj = _Unknown(mlp.down_proj.weight)
    bundle = export(model, None, tmp_path / "model.lmf")
    tensors, _ = read(bundle)
    assert tensors["layers__1__mlp__down_proj__weight"].dtype == torch.bfloat16
    got, scorer = scores(bundle)
    assert difference(reference(model), got) <= EXACT
    # The code around it also reads the sum that the product before it is in.
    assert scorer.stats().packed_linears == 3 * 4 - 1 + 1


# --- GGUF ---

def write_gguf(path: Path, *, output: gguf.GGMLQuantizationType | None) -> Path:
    """A tiny random Llama in blocks; without `output` its embeddings are the output matrix."""
    generator = numpy.random.default_rng(3)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(tiny_models.VOCABULARY)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_rope_dimension_count(16)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)

    def add(name: str, shape: tuple[int, ...], type: gguf.GGMLQuantizationType,
            scale: float) -> None:
        weights = (scale * generator.standard_normal(shape)).astype(numpy.float32)
        if len(shape) == 1:
            weights += 1
        if type == F32:
            writer.add_tensor(f"{name}.weight", weights)
        else:
            writer.add_tensor(f"{name}.weight", gguf.quantize(weights, type), raw_dtype=type)

    add("token_embd", (tiny_models.VOCABULARY, WIDTH), Q8_0, 0.3)
    if output is not None:
        add("output", (tiny_models.VOCABULARY, WIDTH), output, 0.15)
    add("output_norm", (WIDTH,), F32, 0.3)
    for layer in range(LAYERS):
        add(f"blk.{layer}.attn_norm", (WIDTH,), F32, 0.3)
        add(f"blk.{layer}.ffn_norm", (WIDTH,), F32, 0.3)
        for name, type in LAYER_TYPES.items():
            add(f"blk.{layer}.{name}", SHAPES[name], type, 1.2 / SHAPES[name][1] ** 0.5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def dequantized(path: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager").eval()


@pytest.mark.parametrize("output", [None, Q4_1])
def test_gguf_blocks_are_stored_as_they_are(output: gguf.GGMLQuantizationType | None,
                                            tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "model.gguf", output=output)
    bundle = export_folder(source, tmp_path / "model.lmf", tokenizer=False)
    tensors, description = read(bundle)
    types = {"output_weight": "q8_0" if output is None else "q4_1",
             **{stored_name(layer, names[0]): LAYER_TYPES[names[0]].name.lower()
                for layer in range(LAYERS) for names in STACKS
                if LAYER_TYPES[names[0]] != F32}}
    if output is not None:  # else it is the output matrix
        types["embed_tokens__weight"] = "q8_0"
    assert description["weight_types"] == types
    stored = {tensor.name: tensor.data for tensor in gguf.GGUFReader(source).tensors}
    for layer in range(LAYERS):
        for names in STACKS:
            tensor = tensors[stored_name(layer, names[0])]
            if LAYER_TYPES[names[0]] == F32:
                assert tensor.dtype == torch.float32
                continue
            wanted = torch.cat([torch.from_numpy(stored[f"blk.{layer}.{name}.weight"].copy())
                                for name in names])
            assert tensor.dtype == torch.uint8 and tensor.shape == wanted.shape
            permuted = "attn_q" in names  # by transformers
            assert torch.equal(tensor, wanted) != permuted
            assert sorted(map(bytes, tensor.numpy())) == sorted(map(bytes, wanted.numpy()))
    assert description["weights_sha256"] == weights_sha256(torch.jit.load(str(bundle)))

    wanted_scores = reference(dequantized(source))
    for compute, bound in (("float32", EXACT), ("bfloat16", 0.15), ("int8", 0.4)):
        got, scorer = scores(bundle, compute=compute)
        assert difference(wanted_scores, got) <= bound
        assert (scorer.stats().packed_linears, scorer.stats().plain_linears) == (
            len(STACKS) * LAYERS, 0)
        if compute == "float32":  # blocks, a tied table among them, are held as they are
            widths = {Q4_0: 20 / 32, Q4_1: 20 / 32, Q8_0: 34 / 32, F32: 4}
            blocks = sum(LAYERS * math.prod(SHAPES[name]) * widths[type]
                         for name, type in LAYER_TYPES.items())
            tables = tiny_models.VOCABULARY * WIDTH * (
                widths[Q8_0] + (0 if output is None else widths[output]))
            vectors = scorer.stats().weight_bytes - blocks - tables
            assert 0 < vectors < 4 * 1000
    got, _ = scores(bundle, device="emulated")
    assert difference(wanted_scores, got) <= EXACT


def test_blocks_that_are_not_packed_are_widened(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "model.gguf", output=None)
    model = dequantized(source)
    attention = model.model.layers[0].self_attn
    attention.q_proj = _Unknown(attention.q_proj.weight)
    bundle = export(model, None, tmp_path / "model.lmf", gguf=source)
    assert read(bundle)[1]["weight_types"][stored_name(0, "attn_q")] == "q4_1"
    got, scorer = scores(bundle)
    assert difference(reference(model), got) <= EXACT
    assert scorer.stats().packed_linears == len(STACKS) * LAYERS


def test_weights_of_another_file_are_not_given_its_blocks(tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "model.gguf", output=None)
    model = dequantized(source)
    with torch.no_grad():
        weight = model.model.layers[0].self_attn.v_proj.weight
        weight[3, 4] = torch.nextafter(weight[3, 4], torch.tensor(9.0))
        model.model.layers[1].self_attn.v_proj.weight[2] = 0.125  # a row the file does not have
    bundle = export(model, None, tmp_path / "model.lmf", gguf=source)
    types = read(bundle)[1]["weight_types"]
    assert not [name for name in types if "v_proj" in name]
    assert stored_name(0, "attn_q") in types
    got, _ = scores(bundle)
    assert difference(reference(model), got) <= EXACT


# --- files that are not right ---

@pytest.mark.parametrize(("name", "type", "message"), [
    ("layers__0__self_attn__v_proj__weight", "q5_1", "q5_1"),
    ("layers__0__self_attn__v_proj__weight", "float", "float"),
    ("layers__0__self_attn__v_proj__weight", "q4_1", "v_proj.*blocks of \"q4_1\""),
    ("layers__0__input_layernorm__weight", "q8_0", "input_layernorm.*blocks"),
    ("layers__9__mlp__up_proj__weight", "q8_0", "layers__9.*no such weight"),
])
def test_types_that_do_not_fit_are_refused(name: str, type: str, message: str,
                                           tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "model.gguf", output=None)
    bundle = export_folder(source, tmp_path / "model.lmf", tokenizer=False)
    changed = with_description(bundle, lambda d: d["weight_types"].update({name: type}),
                               tmp_path / "changed.lmf")
    for device in ("cpu", "emulated"):
        with pytest.raises(ModelFileError, match=message):
            LMFusionScorer(changed, device=device)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    bundle = export(tiny_models.build(llama(tied=True)), None, tmp_path / "model.lmf")
    changed = tmp_path / "changed.lmf"
    for old in (1, 2, 4):
        with_description(bundle, lambda d, old=old: d.update(format=old), changed)
        with pytest.raises(ModelFileError,
                           match=f"format: {old}; .*reads format 3: export the model again"):
            LMFusionScorer(changed)
    for wrong in ({"a": 3}, ["a"], "q4_1"):
        with_description(bundle, lambda d, wrong=wrong: d.update(weight_types=wrong), changed)
        with pytest.raises(ModelFileError, match="lmfusion.json: weight_types"):
            LMFusionScorer(changed)
    with_description(bundle, lambda d: d.pop("weight_types"), changed)
    with pytest.raises(ModelFileError, match="lmfusion.json: weight_types: it is missing"):
        LMFusionScorer(changed)


def test_the_default_model_is_as_small_as_its_source(default_model: Path) -> None:
    assert default_model.stat().st_size < 100e6
    assert LMFusionScorer(default_model).stats().weight_bytes < 98e6
