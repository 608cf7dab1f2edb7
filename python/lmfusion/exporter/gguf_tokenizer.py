"""Tokenizers of GGUF files, rebuilt as they were before the conversion.

transformers (5.17) builds every byte-level BPE of a GGUF file with GPT-2's way of splitting text,
whatever `tokenizer.ggml.pre` says; SmolLM2's digits and Llama 3's splits are then lost ("  5" has
other ids). So the table here is llama.cpp's, for the ways of splitting that the core implements.

A SentencePiece vocabulary becomes a SentencePiece model again: transformers leaves out its
user-defined tokens and takes Gemma's for a unigram model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lmfusion.errors import ExportError

CONTROL, USER_DEFINED = 3, 4  # token types of a GGUF file

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# What llama.cpp calls the ways of splitting.
_NAMES = {"gpt2": ("gpt-2",), "smollm": ("smollm",), "qwen2": ("qwen2",),
          "llama3": ("llama-bpe", "llama3", "llama-v3")}

_WAYS_OUT = ("Or export the model's Hugging Face folder, or without a tokenizer: tokenizer=False, "
             "or --no-tokenizer on the command line.")


def gguf_tokenizer(path: Path, pre: str | None = None) -> PreTrainedTokenizerBase:
    """Builds the tokenizer of a .gguf file.

    Args:
        path: the file.
        pre: how a byte-level BPE splits text ("llama-bpe", "qwen2", "smollm", "gpt-2", ...), in
            place of what the file says in tokenizer.ggml.pre.

    Raises:
        ExportError: the package gguf is missing, or the file does not say how it splits text, or
            splits it in an unknown way.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ExportError("GGUF files need the package gguf: pip install gguf") from error
    fields = GGUFReader(path).fields

    def value(name: str, default: object = None) -> Any:
        entry = fields.get(f"tokenizer.ggml.{name}")
        return default if entry is None else entry.contents()

    if value("model") == "llama":
        return cast(PreTrainedTokenizerBase, SentencePieceTokenizer(path.name, value))
    if value("model") != "gpt2":
        raise ExportError(f"{path.name} has a vocabulary of the kind {value('model')!r} "
                          f"(tokenizer.ggml.model); 'gpt2' and 'llama' are known here. {_WAYS_OUT}")
    normalizer, splits, ignores_merges = _splitting(path, pre or value("pre"))
    pieces = value("tokens")
    backend = tokenizers.Tokenizer(models.BPE(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[tuple(merge.split(" ", 1)) for merge in value("merges")],
        ignore_merges=ignores_merges))
    backend.normalizer, backend.pre_tokenizer = normalizer, splits
    backend.decoder = decoders.ByteLevel()
    types = value("token_type", [1] * len(pieces))
    backend.add_special_tokens([piece for piece, kind in zip(pieces, types) if kind == CONTROL])
    backend.add_tokens([piece for piece, kind in zip(pieces, types) if kind == USER_DEFINED])
    bos, eos = value("bos_token_id"), value("eos_token_id")
    if value("add_bos_token", False) and bos is not None:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{pieces[bos]} $A", special_tokens=[(pieces[bos], bos)])
    return PreTrainedTokenizerFast(tokenizer_object=backend,
                                   bos_token=None if bos is None else pieces[bos],
                                   eos_token=None if eos is None else pieces[eos])


def _splitting(path: Path, kind: object) -> tuple[normalizers.Normalizer | None,
                                                  pre_tokenizers.PreTokenizer, bool]:
    """Normalizer, pre-tokenizer and `ignore_merges` of a `tokenizer.ggml.pre`."""
    if kind in (None, "default"):
        raise ExportError(
            f"{path.name} does not say how it splits text (tokenizer.ggml.pre is "
            f"{'missing' if kind is None else repr(kind)}), and a wrong guess would change scores "
            "without a word. Name the splitting of the model that it was made of: gguf_pre=, or "
            "--gguf-pre on the command line, with one of "
            f"{', '.join(name for names in _NAMES.values() for name in names)}. {_WAYS_OUT}")
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if kind in _NAMES["gpt2"]:
        return None, gpt2, False
    if kind in _NAMES["smollm"]:
        digits = pre_tokenizers.Digits(individual_digits=True)
        return None, pre_tokenizers.Sequence([digits, gpt2]), False
    if kind in _NAMES["llama3"]:
        return None, _split_by(_WORDS + r"\p{N}{1,3}" + _REST), True
    if kind in _NAMES["qwen2"]:
        return normalizers.NFC(), _split_by(_WORDS + r"\p{N}" + _REST), False
    raise ExportError(f"{path.name} splits text in a way not known here (tokenizer.ggml.pre = "
                      f"{kind!r}). {_WAYS_OUT}")


def _split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


class SentencePieceTokenizer:
    """The SentencePiece model that the vocabulary of a GGUF file was, with what the exporter asks
    of a tokenizer of transformers. Ids are those of the package sentencepiece.

    Args:
        name: of the file, for errors.
        value: value(field, default) of tokenizer.ggml.FIELD.
    """

    def __init__(self, name: str, value: Any) -> None:
        try:
            from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
        except ImportError as error:
            raise ExportError(f"the tokenizer of {name} needs the packages sentencepiece and "
                              "protobuf: pip install 'lmfusion[export]'") from error
        pieces, scores = value("tokens"), value("scores")
        if scores is None:
            raise ExportError(f"{name} has no scores of its tokens (tokenizer.ggml.scores), which "
                              f"say what its vocabulary merges first. {_WAYS_OUT}")
        types = value("token_type", [1] * len(pieces))
        messages: Any = sentencepiece_model_pb2  # whose classes are made when it is imported
        model = messages.ModelProto()
        for piece, score, kind in zip(pieces, scores, types, strict=True):
            model.pieces.add(piece=piece, score=score, type=kind)  # GGUF has SentencePiece's types
        model.trainer_spec.model_type = model.trainer_spec.BPE
        model.trainer_spec.byte_fallback = model.SentencePiece.BYTE in types
        normalizer = model.normalizer_spec
        normalizer.name = "identity"
        normalizer.add_dummy_prefix = bool(value("add_space_prefix", True))
        normalizer.remove_extra_whitespaces = bool(value("remove_extra_whitespaces", False))
        self.sentencepiece_model = model.SerializeToString()
        try:
            self._processor = SentencePieceProcessor(model_proto=self.sentencepiece_model)
        except RuntimeError as error:
            raise ExportError(f"the vocabulary of {name} is no SentencePiece model: {error}. "
                              f"{_WAYS_OUT}") from error
        self.bos_token_id, self.eos_token_id = value("bos_token_id"), value("eos_token_id")
        self._puts_bos = bool(value("add_bos_token", True)) and self.bos_token_id is not None

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = self._processor.encode(text)
        return {"input_ids": [self.bos_token_id, *ids] if add_special_tokens and self._puts_bos
                else ids}

    def decode(self, ids: list[int]) -> str:
        """The text of ids."""
        return self._processor.decode(ids)

    def __len__(self) -> int:
        return self._processor.get_piece_size()
