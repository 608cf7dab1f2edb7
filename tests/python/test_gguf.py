"""GGUF files as people have them: every type of block, and vocabularies of every kind.

Oracles: the package gguf's own reading of the blocks put into plain transformers, and the package
sentencepiece or tokenizers for ids. Files are written here with gguf's writer.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import gguf
import numpy
import pytest
import sentencepiece
import tiny_models
import torch
import transformers
from gguf.quants import _type_traits
from lmfusion import ExportError, LMFusionScorer
from lmfusion.exporter import export_folder
from lmfusion.exporter.gguf_tokenizer import gguf_tokenizer
from oracle import Oracle
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

WIDTH = 256  # a block of the K types
Type = gguf.GGMLQuantizationType


def model_of(arch: str, vocabulary: int, width: int = 64) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": vocabulary, "hidden_size": width, "intermediate_size": width,
             "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 4,
             "head_dim": width // 4, "max_position_embeddings": 256, "bos_token_id": 1,
             "eos_token_id": 2}
    kinds = {"llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig),
             "gemma2": (transformers.Gemma2ForCausalLM, transformers.Gemma2Config),
             "gemma3": (transformers.Gemma3ForCausalLM, transformers.Gemma3TextConfig)}
    made, config = kinds[arch]
    model = made(config(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def log_probs(model: transformers.PreTrainedModel, path: list[int]) -> list[float]:
    return Oracle(model, None, -1).tokens_log_prob(path)


def log_prob(model: transformers.PreTrainedModel, path: list[int]) -> float:
    return sum(log_probs(model, path))


class Written:
    """A model with one layer as a .gguf file; the tokenizer's fields are for the caller."""

    def __init__(self, path: Path, arch: str, model: transformers.PreTrainedModel) -> None:
        config = model.config
        self.arch, self.model, self.path = arch, model, path
        out = self.out = gguf.GGUFWriter(path, arch)
        out.add_context_length(256)
        out.add_embedding_length(config.hidden_size)
        out.add_block_count(1)
        out.add_feed_forward_length(config.intermediate_size)
        out.add_head_count(4)
        out.add_head_count_kv(4)
        out.add_key_length(config.head_dim)
        out.add_value_length(config.head_dim)
        out.add_layer_norm_rms_eps(config.rms_norm_eps)
        out.add_rope_freq_base(10000.0)
        out.add_vocab_size(config.vocab_size)
        if arch == "llama":
            out.add_rope_dimension_count(config.head_dim)
        else:
            out.add_sliding_window(4096)
        if arch == "gemma2":
            out.add_attn_logit_softcapping(50.0)
            out.add_final_logit_softcapping(30.0)

    def close(self, kind: Type = Type.F32, *, without: str = "") -> Path:
        """Writes the weights, matrices as blocks of `kind`, which the model then has, too."""
        names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm",
                 "lm_head": "output", **{f"model.layers.0.{hf}": f"blk.0.{name}" for hf, name in {
                     "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
                     "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
                     "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
                     "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
                     "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
                     "post_attention_layernorm":
                         "ffn_norm" if self.arch == "llama" else "post_attention_norm",
                     "pre_feedforward_layernorm": "ffn_norm",
                     "post_feedforward_layernorm": "post_ffw_norm"}.items()}}
        for hf, name in names.items():
            tensor = self.model.state_dict().get(f"{hf}.weight")
            if tensor is None or name == without or (hf == "lm_head" and self.arch != "llama"):
                continue
            if tensor.dim() == 2 and kind != Type.F32:
                self._add_blocks(f"{name}.weight", tensor, kind, hf)
                continue
            values = permuted(tensor, hf, self.arch).numpy().astype(numpy.float32)
            self.out.add_tensor(f"{name}.weight",
                                values + (self.arch != "llama" and "norm" in name))
        self.out.write_header_to_file()
        self.out.write_kv_data_to_file()
        self.out.write_tensors_to_file()
        self.out.close()
        return self.path

    def _add_blocks(self, name: str, tensor: torch.Tensor, kind: Type, hf: str) -> None:
        blocks = random_blocks(kind, tuple(tensor.shape))
        self.out.add_tensor(name, blocks, raw_dtype=kind)
        values = torch.from_numpy(gguf.dequantize(blocks, kind).reshape(tensor.shape).copy())
        with torch.no_grad():
            tensor.copy_(permuted(values, hf, self.arch, back=True))


def permuted(tensor: torch.Tensor, hf: str, arch: str, *, back: bool = False) -> torch.Tensor:
    """llama.cpp's order of rotary pairs, which converters give Llama's queries and keys."""
    if arch != "llama" or not ("q_proj" in hf or "k_proj" in hf):
        return tensor
    half = tensor.shape[0] // 8
    pairs = (half, 2) if back else (2, half)
    return tensor.reshape(4, *pairs, -1).swapaxes(1, 2).reshape(tensor.shape)


def random_blocks(kind: Type, shape: tuple[int, ...]) -> numpy.ndarray:
    """Bytes of blocks whose numbers are like those of weights, found among random bytes."""
    chance = numpy.random.default_rng(int(kind))
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    wanted = int(numpy.prod(shape)) // elements
    found: list[numpy.ndarray] = []
    while sum(map(len, found)) < wanted:
        blocks = chance.integers(0, 256, (40000, size), numpy.uint8)
        with numpy.errstate(all="ignore"):
            largest = numpy.abs(gguf.dequantize(blocks, kind)).max(axis=1)
        found.append(blocks[(largest > 0.02) & (largest < 0.3)])
    return numpy.concatenate(found)[:wanted].reshape(*shape[:-1], -1)


@pytest.mark.parametrize("kind", _type_traits, ids=lambda kind: kind.name)
def test_blocks_of_every_type_score_as_gguf_reads_them(kind: Type, tmp_path: Path) -> None:
    written = Written(tmp_path / "model.gguf", "llama", model_of("llama", 96, WIDTH))
    source = written.close(kind)
    scorer = LMFusionScorer(export_folder(source, tmp_path / "model.lmf", tokenizer=False))
    path = [1, 5, 9, 2, 60, 95, 7]
    assert scorer.score_token_paths([path], [1])[0] == pytest.approx(
        log_probs(written.model, path), abs=2e-4)


@pytest.mark.parametrize(("name", "weight"), [("attn_q", "self_attn.q_proj"),
                                              ("ffn_norm", "post_attention_layernorm")])
def test_a_weight_that_is_missing_is_named(name: str, weight: str, tmp_path: Path) -> None:
    """transformers would make it up."""
    written = Written(tmp_path / "model.gguf", "llama", model_of("llama", 96))
    source = written.close(without=f"blk.0.{name}")
    with pytest.raises(ExportError, match=rf"gguf has no model\.layers\.0\.{weight}\.weight"):
        export_folder(source, tmp_path / "model.lmf", tokenizer=False)


def test_float16(tmp_path: Path) -> None:
    """Which is no block type in gguf's table."""
    written = Written(tmp_path / "model.gguf", "llama", model_of("llama", 96, WIDTH))
    original = written.model.state_dict()
    for tensor in original.values():
        if tensor.dim() == 2:
            tensor.copy_(tensor.half().float())
    add = written.out.add_tensor

    def add_half(name: str, values: numpy.ndarray) -> None:
        add(name, values.astype(numpy.float16) if values.ndim == 2 else values)

    written.out.add_tensor = add_half  # type: ignore[method-assign,assignment]
    scorer = LMFusionScorer(export_folder(written.close(), tmp_path / "model.lmf", tokenizer=False))
    path = [1, 5, 9, 2, 60, 95, 7]
    assert scorer.score_token_paths([path], [1])[0] == pytest.approx(
        log_probs(written.model, path), abs=2e-4)


# --- SentencePiece vocabularies ---

USER_DEFINED = ["<start_of_turn>", "▁▁▁"]
TEXTS = ["they are with you", "the   of", "<start_of_turn>you", " of  and", "to be", "Ünï 🙂 5"]


@pytest.fixture(scope="module")
def pieces() -> sentencepiece.SentencePieceProcessor:
    written = io.BytesIO()
    words = ("the of and a to in is you that it he was for on are with as his they at be this from "
             "have or").split()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(words[i:] + words[:i]) for i in range(len(words))] * 20),
        model_writer=written, model_type="bpe", vocab_size=400, byte_fallback=True,
        hard_vocab_limit=False, minloglevel=2, normalization_rule_name="identity",
        remove_extra_whitespaces=False, user_defined_symbols=USER_DEFINED)
    return sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


def add_pieces(out: gguf.GGUFWriter, pieces: sentencepiece.SentencePieceProcessor) -> None:
    def kind(i: int) -> int:
        if pieces.IsUnknown(i):
            return 2
        if pieces.IsControl(i):
            return 3
        return 6 if pieces.IsByte(i) else 4 if pieces.IdToPiece(i) in USER_DEFINED else 1

    ids = range(pieces.GetPieceSize())
    out.add_tokenizer_model("llama")
    out.add_tokenizer_pre("default")
    out.add_token_list([pieces.IdToPiece(i).encode() for i in ids])
    out.add_token_scores([pieces.GetScore(i) for i in ids])
    out.add_token_types([kind(i) for i in ids])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_unk_token_id(0)
    out.add_add_bos_token(True)


@pytest.mark.parametrize("arch", ["llama", "gemma2", "gemma3"])
def test_a_sentencepiece_vocabulary_has_the_ids_of_sentencepiece(
        arch: str, pieces: sentencepiece.SentencePieceProcessor, tmp_path: Path) -> None:
    written = Written(tmp_path / "model.gguf", arch, model_of(arch, pieces.GetPieceSize()))
    add_pieces(written.out, pieces)
    scorer = LMFusionScorer(export_folder(written.close(), tmp_path / "model.lmf"))
    assert scorer.description["bos_token_id"] == 1
    for text in TEXTS:
        ids = pieces.encode(text)
        assert list(scorer.tokenizer.encode(text)) == ids
        assert scorer.score_texts([text])[0] == pytest.approx(
            log_prob(written.model, [1, *ids]), abs=1e-4 * len(ids))
    assert any(set(pieces.encode(text)) & {pieces.PieceToId(piece) for piece in USER_DEFINED}
               for text in TEXTS)


def test_without_a_space_in_front(pieces: sentencepiece.SentencePieceProcessor,
                                  tmp_path: Path) -> None:
    """As converters write Gemma's."""
    written = Written(tmp_path / "model.gguf", "gemma3", model_of("gemma3", pieces.GetPieceSize()))
    add_pieces(written.out, pieces)
    written.out.add_add_space_prefix(False)
    tokenizer = gguf_tokenizer(written.close())
    ids = tokenizer("the of", add_special_tokens=False)["input_ids"]
    # The same as after a token that ends before the space which is put in front.
    assert "".join(pieces.IdToPiece(i) for i in ids) == "the▁of"
    assert "".join(pieces.IdToPiece(i) for i in pieces.encode("the of")) == "▁the▁of"


def test_vocabularies_that_are_not_known(pieces: sentencepiece.SentencePieceProcessor,
                                         tmp_path: Path) -> None:
    model = model_of("llama", pieces.GetPieceSize())
    other = Written(tmp_path / "other.gguf", "llama", model)
    other.out.add_tokenizer_model("rwkv")
    with pytest.raises(ExportError, match="'rwkv'.*tokenizer=False"):
        gguf_tokenizer(other.close())
    bare = Written(tmp_path / "bare.gguf", "llama", model)
    bare.out.add_tokenizer_model("llama")
    bare.out.add_token_list([b"a", b"b"])
    with pytest.raises(ExportError, match="no scores"):
        gguf_tokenizer(bare.close())
    twice = Written(tmp_path / "twice.gguf", "llama", model)
    twice.out.add_tokenizer_model("llama")
    twice.out.add_token_list([b"<unk>", b"b", b"b"])
    twice.out.add_token_scores([0.0, -1.0, -2.0])
    twice.out.add_token_types([2, 1, 1])
    with pytest.raises(ExportError, match="no SentencePiece model"):
        gguf_tokenizer(twice.close())


def test_an_architecture_that_transformers_does_not_read(tmp_path: Path) -> None:
    path = Written(tmp_path / "model.gguf", "llama", model_of("llama", 96)).close()
    path.write_bytes(path.read_bytes().replace(b"llama", b"gemma"))
    with pytest.raises(ExportError, match="transformers cannot read model.gguf.*gemma"):
        export_folder(path, tmp_path / "model.lmf", tokenizer=False)


# --- byte-level BPE ---

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.train_from_iterator(
        [f"the {a} and {b}{c} (so) YOU'RE here" for a in range(100, 1000, 7)
         for b in range(10, 99, 9) for c in range(0, 9, 4)],
        trainers.BpeTrainer(vocab_size=900, special_tokens=["<|begin|>", "<|end|>"],
                            show_progress=False,
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def bpe_file(path: Path, bpe: Tokenizer, pre: str | None) -> Path:
    written = Written(path, "llama", model_of("llama", bpe.get_vocab_size()))
    out, names = written.out, {i: piece for piece, i in bpe.get_vocab().items()}
    out.add_tokenizer_model("gpt2")
    if pre is not None:
        out.add_tokenizer_pre(pre)
    out.add_token_list([names[i].encode() for i in range(len(names))])
    out.add_token_types([3 if i < 2 else 1 for i in range(len(names))])
    out.add_token_merges([merge if isinstance(merge, str) else " ".join(merge)
                          for merge in json.loads(bpe.to_str())["model"]["merges"]])
    out.add_bos_token_id(0)
    out.add_eos_token_id(1)
    return written.close()


@pytest.mark.parametrize("pre", [None, "default"])
def test_a_splitting_that_the_file_does_not_name_is_refused_or_given(
        pre: str | None, bpe: Tokenizer, tmp_path: Path) -> None:
    source = bpe_file(tmp_path / "model.gguf", bpe, pre)
    with pytest.raises(ExportError, match="does not say how it splits text.*gguf_pre=.*llama-bpe"):
        export_folder(source, tmp_path / "model.lmf")
    text = "in 2024 it was 1234567 YOU'RE   here"
    wanted = bpe.encode(text, add_special_tokens=False).ids
    named = export_folder(source, tmp_path / "named.lmf", gguf_pre="llama-bpe")
    assert list(LMFusionScorer(named).tokenizer.encode(text)) == wanted
    guessed = export_folder(source, tmp_path / "guessed.lmf", gguf_pre="gpt-2")
    assert list(LMFusionScorer(guessed).tokenizer.encode(text)) != wanted
    with pytest.raises(ExportError, match="'mine'"):
        export_folder(source, tmp_path / "model.lmf", gguf_pre="mine")


# --- folders ---

def test_sharded_safetensors(tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    model.save_pretrained(tmp_path / "folder", max_shard_size="20KB")
    assert len(list((tmp_path / "folder").glob("*.safetensors"))) > 2
    scorer = LMFusionScorer(export_folder(tmp_path / "folder", tmp_path / "model.lmf",
                                          tokenizer=False))
    path = [1, 5, 9, 2, 7]
    assert sum(scorer.score_token_paths([path], [1])[0]) == pytest.approx(
        log_prob(model, path), abs=5e-4)
