"""Tokenizers of GGUF files, rebuilt as they were before the conversion.

transformers (5.17) builds every byte-level BPE of a GGUF file with GPT-2's way of splitting text,
whatever `tokenizer.ggml.pre` says; SmolLM2's digits and Llama 3's splits are then lost ("  5" has
other ids). So the table here is llama.cpp's, for the ways of splitting that the core implements.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lmfusion.errors import ExportError

CONTROL, USER_DEFINED = 3, 4  # token types of a GGUF file

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def gguf_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Builds the tokenizer of a .gguf file.

    Raises:
        ExportError: the package gguf is missing, or the file splits text in an unknown way.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise ExportError("GGUF files need the package gguf: pip install gguf") from error
    fields = GGUFReader(path).fields

    def value(name: str, default: object = None) -> Any:
        entry = fields.get(f"tokenizer.ggml.{name}")
        return default if entry is None else entry.contents()

    if value("model") != "gpt2":  # a SentencePiece vocabulary
        return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    pieces = value("tokens")
    backend = tokenizers.Tokenizer(models.BPE(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[tuple(merge.split(" ", 1)) for merge in value("merges")],
        ignore_merges=_splitting(path, value("pre", "default"))[2]))
    backend.normalizer, backend.pre_tokenizer, _ = _splitting(path, value("pre", "default"))
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
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if kind in ("default", "gpt-2"):
        return None, gpt2, False
    if kind == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return None, pre_tokenizers.Sequence([digits, gpt2]), False
    if kind in ("llama3", "llama-v3", "llama-bpe"):
        return None, _split_by(_WORDS + r"\p{N}{1,3}" + _REST), True
    if kind == "qwen2":
        return normalizers.NFC(), _split_by(_WORDS + r"\p{N}" + _REST), False
    raise ExportError(f"{path.name} splits text in a way not known here (tokenizer.ggml.pre = "
                      f"{kind!r}). Export the model's Hugging Face folder, or export without a "
                      "tokenizer: tokenizer=False, or --no-tokenizer on the command line.")


def _split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
