"""Models as people have them: exported to equal the original, or refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import safetensors.torch
import tiny_models
import torch
import transformers
from lmfusion.errors import ExportError
from lmfusion.exporter import export, export_folder
from lmfusion.exporter.probes import refuse_models_that_look_ahead
from test_export import TOLERANCE, difference, engine, hugging_face, random_paths

SMALL = {"vocab_size": tiny_models.VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2,
         "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64,
         "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
ENCODERS = {
    "bert": (transformers.BertConfig, {}),
    "roformer": (transformers.RoFormerConfig, {"embedding_size": 32}),
    "big-bird": (transformers.BigBirdConfig, {"attention_type": "original_full"}),
    "rembert": (transformers.RemBertConfig, {"input_embedding_size": 32,
                                             "output_embedding_size": 32}),
    "megatron-bert": (transformers.MegatronBertConfig, {}),
    "electra": (transformers.ElectraConfig, {"embedding_size": 32}),
}


def encoder(name: str, is_decoder: bool) -> transformers.PreTrainedModel:
    config, settings = ENCODERS[name]
    return tiny_models.build(config(**SMALL, **settings, is_decoder=is_decoder))


@pytest.mark.parametrize("uncached", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_models_that_look_at_later_tokens_are_refused(name: str, uncached: bool,
                                                      tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="looks at later tokens"):
        export(encoder(name, False), None, tmp_path / "model.lmf", uncached=uncached)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["bert", "electra"])
def test_encoders_that_can_be_decoders_are_exported_as_such(name: str, tmp_path: Path) -> None:
    model = encoder(name, True)
    path = export(model, None, tmp_path / "model.lmf", uncached=True)
    paths = random_paths(20, seed=3)
    assert difference(hugging_face(model, paths), engine(path, paths, 16)) <= TOLERANCE


@pytest.mark.parametrize("name", ["roformer", "big-bird", "rembert", "megatron-bert"])
def test_classes_that_look_ahead_whatever_their_configuration_says(name: str,
                                                                   tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="looks at later tokens"):
        export(encoder(name, True), None, tmp_path / "model.lmf", uncached=True)


def test_masked_language_models_are_refused(tmp_path: Path) -> None:
    model = transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)).eval()
    tiny_models.randomize(model, 0)
    with pytest.raises(ExportError, match="masked language model"):
        export(model, None, tmp_path / "model.lmf", uncached=True)


@pytest.mark.parametrize("name", [*tiny_models.TREE_CONFIGS, *tiny_models.PLAIN_CONFIGS])
def test_causal_models_are_not_refused(name: str) -> None:
    config = (tiny_models.TREE_CONFIGS | tiny_models.PLAIN_CONFIGS)[name]()
    refuse_models_that_look_ahead(tiny_models.build(config))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(value: float, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    with torch.no_grad():
        model.get_input_embeddings().weight[5, 3] = value
    with pytest.raises(ExportError, match=r"model\.embed_tokens\.weight .* 1 of its 280 rows, the "
                                          "first at 5"):
        export(model, None, tmp_path / "model.lmf")


def test_a_name_of_a_hub_is_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"openai/gpt2.*a model hub.*download"):
        export_folder("openai/gpt2", tmp_path / "model.lmf")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"has no config\.json; a folder of Hugging Face"):
        export_folder(tmp_path, tmp_path / "model.lmf")


def test_sharded_weights_are_read_whole(tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama-tied-biases"]())
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    paths = random_paths(20, seed=2)
    export_folder(tmp_path / "sharded", tmp_path / "model.lmf", tokenizer=False)
    assert difference(hugging_face(model, paths),
                      engine(tmp_path / "model.lmf", paths, 16)) <= TOLERANCE


# --- damaged and foreign folders ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    tiny_models.build(tiny_models.TREE_CONFIGS["llama"]()).save_pretrained(folder)
    tiny_models.tiny_tokenizer().save_pretrained(folder)
    return folder


def without_a_weight(folder: Path) -> None:
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    del weights["model.layers.1.self_attn.q_proj.weight"]
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without_two(folder: Path) -> None:
    without_a_weight(folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def of_other_sizes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 12}))


def with_code_of_its_own(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(
        {"model_type": "other", "auto_map": {"AutoConfig": "code.Config"}}))
    (folder / "code.py").write_text("raise SystemExit")


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:200]) and None


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a weight missing": (without_a_weight, r"has no model\.layers\.1\.self_attn\.q_proj\.weight of "
                                           "LlamaForCausalLM, which would be random"),
    "two weights missing": (without_two, r"has no lm_head\.weight, nor 1 other weights"),
    "weights of other sizes": (of_other_sizes, "transformers can read: RuntimeError"),
    "weights cut off": (cut("model.safetensors"), "transformers can read: SafetensorError"),
    "a pointer for weights": (lambda folder: (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\n") and None, "SafetensorError"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "OSError"),
    "a configuration cut off": (cut("config.json"), "config.json' is not a valid JSON"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "code of its own": (with_code_of_its_own, "code of its own folder, which is never run here"),
    "a tokenizer cut off": (cut("tokenizer.json"), "No tokenizer could be read from"),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_folders_that_are_not_whole_are_refused(whole: Path, what: str, tmp_path: Path) -> None:
    damage, message = FOLDERS[what]
    shutil.copytree(whole, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ExportError, match=message):
        export_folder(tmp_path / "model", tmp_path / "model.lmf")
    assert not (tmp_path / "model.lmf").exists()


def test_a_file_of_a_folder_is_not_the_folder(whole: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        with pytest.raises(ExportError, match="is a file; the folder around it"):
            export_folder(whole / name, tmp_path / "model.lmf")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\3\0\0\0" + bytes(40),
                                     b"GGUF\3\0\0\0" + b"\xff" * 40, b"other" * 9])
def test_what_is_no_gguf_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    with pytest.raises(ExportError, match=r"transformers cannot read model\.gguf"):
        export_folder(tmp_path / "model.gguf", tmp_path / "model.lmf")


# --- LoRA ---


def trained(adapted: peft.PeftModel, seed: int = 4) -> peft.PeftModel:
    """With weights that change what the model says."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return adapted.eval()


def lora(**settings: object) -> peft.LoraConfig:
    return peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **settings})


ADAPTERS = {
    "output of tied": lora(target_modules=["q_proj", "lm_head"]),
    "embeddings of tied": lora(target_modules=["q_proj", "embed_tokens"]),
    "both of tied": lora(target_modules=["lm_head", "embed_tokens"]),
    "output saved whole": lora(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    "embeddings saved whole": lora(target_modules=["q_proj"], modules_to_save=["embed_tokens"]),
    "both saved whole": lora(target_modules=["q_proj"],
                             modules_to_save=["lm_head", "embed_tokens"]),
    "some rows of the embeddings": lora(target_modules=["q_proj"], trainable_token_indices=[3, 9]),
    "weight-decomposed": lora(target_modules=["q_proj", "down_proj"], use_dora=True),
    "biases": lora(target_modules=["q_proj"], bias="lora_only"),
    "rank-stabilised": lora(target_modules=["q_proj"], use_rslora=True),
    "every linear layer": lora(target_modules="all-linear"),
    "ranks of their own": lora(target_modules=["q_proj", "v_proj"], rank_pattern={"q_proj": 2},
                               alpha_pattern={"v_proj": 3}),
    "IA3": peft.IA3Config(target_modules=["k_proj", "down_proj"],
                          feedforward_modules=["down_proj"]),
    "LoHa": peft.LoHaConfig(target_modules=["q_proj"]),
    "OFT": peft.OFTConfig(target_modules=["q_proj"], oft_block_size=4, r=0),
}
UNMERGED = {
    "vectors before every text": peft.PromptTuningConfig(num_virtual_tokens=3,
                                                         task_type="CAUSAL_LM"),
    "PREFIX_TUNING is no change of weights": peft.PrefixTuningConfig(num_virtual_tokens=3,
                                                                     task_type="CAUSAL_LM"),
    "cannot be merged: .*lora_bias": lora(target_modules=["q_proj"], lora_bias=True),
}


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("reason", UNMERGED)
def test_adapters_that_cannot_be_merged_are_refused(reason: str, folder: bool,
                                                    tmp_path: Path) -> None:
    config = tiny_models.TREE_CONFIGS["llama"]
    adapted = peft.get_peft_model(tiny_models.build(config()), UNMERGED[reason])
    adapted.save_pretrained(tmp_path / "adapter")
    given = {"lora": tmp_path / "adapter"} if folder else {}
    with pytest.raises(ExportError, match=reason):
        export(tiny_models.build(config()) if folder else adapted, None, tmp_path / "model.lmf",
               **given)


def test_adapters_inside_a_transformers_model_are_refused(tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    model.add_adapter(lora(target_modules=["q_proj"]))
    with pytest.raises(ExportError, match="put in by transformers"):
        export(model, None, tmp_path / "model.lmf")


def test_an_adapter_with_added_tokens_says_what_it_takes(tmp_path: Path) -> None:
    def base() -> transformers.PreTrainedModel:
        return tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())

    grown = base()
    grown.resize_token_embeddings(tiny_models.VOCABULARY + 3)
    adapted = trained(peft.get_peft_model(grown, lora(
        target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])))
    adapted.save_pretrained(tmp_path / "adapter")
    paths = [[1, 281, 5, 282, 7], [3, 280]]
    wanted = hugging_face(adapted, paths)
    with pytest.raises(ExportError, match="resize_token_embeddings"):
        export(base(), None, tmp_path / "model.lmf", lora=tmp_path / "adapter")
    resized = base()
    resized.resize_token_embeddings(tiny_models.VOCABULARY + 3)
    export(resized, None, tmp_path / "model.lmf", lora=tmp_path / "adapter")
    assert difference(wanted, engine(tmp_path / "model.lmf", paths, 16)) <= TOLERANCE


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("what", ADAPTERS)
def test_adapters_are_merged_exactly(what: str, folder: bool, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama-tied-biases"]())
    adapted = trained(peft.get_peft_model(model, ADAPTERS[what]))
    paths = random_paths(20, seed=2)
    wanted = hugging_face(adapted, paths)
    target = tmp_path / "model.lmf"
    if folder:
        adapted.save_pretrained(tmp_path / "adapter")
        base = tiny_models.build(tiny_models.TREE_CONFIGS["llama-tied-biases"]())
        export(base, None, target, lora=tmp_path / "adapter")
    else:
        export(adapted, None, target)
    assert difference(wanted, engine(target, paths, 16)) <= TOLERANCE


def test_a_merged_model_that_says_something_else_is_refused(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmfusion.exporter.lora._untie", lambda model: None)  # as peft alone does
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama-tied-biases"]())
    adapted = trained(peft.get_peft_model(model, ADAPTERS["embeddings of tied"]))
    with pytest.raises(ExportError, match="adapters default.*cannot be merged exactly"):
        export(adapted, None, tmp_path / "model.lmf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("active", ["first", "second"])
def test_of_two_adapters_the_active_one_counts(active: str, tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    adapted = peft.get_peft_model(model, lora(target_modules=["q_proj"]), adapter_name="first")
    adapted.add_adapter("second", lora(target_modules=["down_proj"]))
    adapted.set_adapter(active)
    trained(adapted)
    paths = random_paths(20, seed=2)
    wanted = hugging_face(adapted, paths)
    export(adapted, None, tmp_path / "model.lmf")
    assert difference(wanted, engine(tmp_path / "model.lmf", paths, 16)) <= TOLERANCE


def test_added_tokens_are_exported(tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama-tied-biases"]())
    model.resize_token_embeddings(tiny_models.VOCABULARY + 5)
    adapted = trained(peft.get_peft_model(model, lora(target_modules=["q_proj"])))
    paths = [[1, 281, 5, 284, 7], [3, 283]]
    wanted = hugging_face(adapted, paths)
    export(adapted, None, tmp_path / "model.lmf")
    assert difference(wanted, engine(tmp_path / "model.lmf", paths, 16)) <= TOLERANCE
