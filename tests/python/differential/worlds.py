"""Models, vocabularies, and what the original model says: all of a world follows from its seed."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import lmfusion
import numpy as np
import tiny_models
import tokenizers
import torch
from lmfusion.exporter import export
from tokenizers import normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

ROWS_KEPT = 60_000  # log-probabilities of all tokens after a text, 1 kB each
BATCH = 64
CONTROL = ["<pad>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPLIT_WORDS = tokenizers.Regex(r"'s|'m|'ll| ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+")


def merges(draw: random.Random, letters: list[str], count: int) -> list[tuple[str, str]]:
    """Each of two pieces that are there before it."""
    pieces, made = list(letters), []
    while len(made) < count:
        pair = draw.choice(pieces), draw.choice(pieces)
        if pair[0] + pair[1] not in pieces and not pair[1].startswith(("Ġ", "▁")):
            pieces.append(pair[0] + pair[1])
            made.append(pair)
    return made


def byte_level(draw: random.Random) -> PreTrainedTokenizerFast:
    """Bytes and random merges of the letters of the cases' words."""
    made = merges(draw, list("theacinsotdy") + ["Ġ", "Ġ"],
                  draw.randrange(tiny_models.VOCABULARY - 259 + 1))
    pieces = [*CONTROL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(a + b for a, b in made)]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=made))
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=draw.random() < 0.5)
    first = draw.choice([None, pre_tokenizers.Digits(individual_digits=True),
                         pre_tokenizers.Split(SPLIT_WORDS, "isolated")])
    backend.pre_tokenizer = pre_tokenizers.Sequence([first, last]) if first else last
    if draw.random() < 0.3:
        backend.normalizer = normalizers.NFC()
    if draw.random() < 0.3:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    return wrapped(backend)


def marked(draw: random.Random) -> PreTrainedTokenizerFast:
    """With "▁" for spaces, by a normaliser or a pre-tokenizer, and bytes for what is unknown."""
    letters = list("theacin") + ["▁"]
    made = merges(draw, letters, draw.randrange(tiny_models.VOCABULARY - 259 - len(letters) + 1))
    pieces = [*CONTROL, *BYTES, *letters, *(a + b for a, b in made)]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=made, unk_token="<pad>",
        fuse_unk=True, byte_fallback=True))
    if draw.random() < 0.5:
        backend.normalizer = normalizers.Sequence([
            normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(
            prepend_scheme=draw.choice(["always", "first", "never"]), split=draw.random() < 0.5)
    return wrapped(backend)


def wrapped(backend: tokenizers.Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>",
                                   pad_token="<pad>")


class Rows:
    """log p of every token after a text of tokens, by the original model: a tree of texts."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.forget()

    def forget(self) -> None:
        self.child: dict[tuple[int, int], int] = {}
        self.path: list[tuple[int, ...]] = [()]
        self.row: dict[int, np.ndarray] = {}  # node -> [vocabulary], nats
        self.needed: set[int] = set()

    def below(self, at: int, token: int) -> int:
        node = self.child.get((at, token))
        if node is None:
            node = self.child[at, token] = len(self.path)
            self.path.append((*self.path[at], token))
        return node

    def node(self, tokens: Iterable[int]) -> int:
        at = 0
        for token in tokens:
            at = self.below(at, token)
        return at

    def ask(self) -> None:
        """One forward pass a text that was needed, of those of one length together."""
        paths = sorted(self.path[node] for node in self.needed if node not in self.row)
        longest = [path for path, following in zip(paths, [*paths[1:], ()])
                   if following[:len(path)] != path]
        longest.sort(key=len)
        while longest:
            batch = [path for path in longest[:BATCH] if len(path) == len(longest[0])]
            longest = longest[len(batch):]
            with torch.no_grad():
                log_p = self.model(input_ids=torch.tensor(batch)).logits.log_softmax(-1).numpy()
            for path, rows in zip(batch, log_p):
                at = 0
                for token, row in zip(path, rows):
                    at = self.below(at, token)
                    self.row.setdefault(at, row)
        self.needed.clear()


@dataclass
class World:
    seed: int
    architecture: str
    kept: bool  # whether the model keeps anything between calls
    bundle: Path
    tokenizer: PreTrainedTokenizerFast
    rows: Rows
    positions: int  # of the model; 0: no limit
    token_bytes: dict[str, int] = field(default_factory=dict)  # of the cache, by device
    ids_of: dict[tuple[str, bool], list[int]] = field(default_factory=dict)
    scores: int = 0
    largest: float = 0.0  # difference, nats a scored token
    evictions: int = 0

    @classmethod
    def of(cls, seed: int, folder: Path) -> World:
        draw = random.Random(seed)
        configs = {**tiny_models.TREE_CONFIGS, **tiny_models.PLAIN_CONFIGS}
        name = sorted(configs)[seed % len(configs)]
        kept = name in tiny_models.TREE_CONFIGS
        model = tiny_models.build(configs[name](), draw.randrange(1000))
        tokenizer = draw.choice([byte_level, byte_level, marked])(draw)
        bundle = export(model, tokenizer, folder / f"{seed}.lmf", uncached=not kept)
        return cls(seed, name, kept, bundle, tokenizer, Rows(model),
                   lmfusion.LMFusionScorer(bundle).description["max_positions"])

    @property
    def spaces_begin_words(self) -> bool:
        """Whether its pieces say by "Ġ" and its like which of them begin with white space."""
        return BYTES[0] not in self.tokenizer.get_vocab()

    def begin_case(self) -> None:
        if len(self.rows.row) > ROWS_KEPT or len(self.ids_of) > ROWS_KEPT:
            self.rows.forget()
            self.ids_of.clear()

    def ids(self, text: str, control: bool) -> list[int]:
        """By the original tokenizer; `control`: text may spell control tokens."""
        found = self.ids_of.get((text, control))
        if found is None:
            backend = self.tokenizer.backend_tokenizer
            backend.encode_special_tokens = not control
            found = backend.encode(text, add_special_tokens=False).ids if text else []
            self.ids_of[text, control] = found
        return found

    def bytes_a_token(self, device: str) -> int:
        """As the error says that refuses a cache of one byte."""
        if device not in self.token_bytes:
            try:
                lmfusion.LMFusionScorer(self.bundle, kv_cache_bytes=1, device=device)
            except lmfusion.CacheBudgetError as error:
                self.token_bytes[device] = int(re.findall(r"a token takes (\d+) bytes",
                                                          str(error))[0])
        return self.token_bytes[device]
