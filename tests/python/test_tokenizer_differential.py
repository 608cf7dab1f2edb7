"""Random tokenizers over random texts against the original, the package tokenizers.

    LMFUSION_TEST_SECONDS  how long to go on, beyond the first tokenizers (default: not)
    LMFUSION_TEST_SEED     the first tokenizer's seed (default 1)
"""

from __future__ import annotations

import json
import os
import random
import time

import pytest
from lmfusion import _core, errors
from tokenizer_lines import mixed_lines, odd_lines, ordinary_lines
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

TOKENIZERS, LINES = 12, 300
PATTERNS = [r"\p{N}{1,3}", r" ?\p{L}+", r"\s+(?!\S)|\s+", r"(?i:'s|'t|'re)", r"[^\s\p{L}\p{N}]+",
            r"[一-龥]+", r"\p{Lu}?\p{Ll}+"]


def random_tokenizer(draw: random.Random) -> Tokenizer:
    """Byte-level, or with "▁" and bytes; trained on random lines."""
    is_marked = draw.random() < 0.4
    options = {"ignore_merges": draw.random() < 0.3}
    if is_marked:
        options |= {"unk_token": "<unk>", "fuse_unk": draw.random() < 0.5, "byte_fallback": True}
    original = Tokenizer(models.BPE(**options))
    steps: list[pre_tokenizers.PreTokenizer] = []
    if is_marked and draw.random() < 0.5:
        original.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif is_marked:
        steps = [pre_tokenizers.Metaspace(
            prepend_scheme=draw.choice(["always", "first", "never"]), split=draw.random() < 0.5)]
    else:
        if draw.random() < 0.4:
            original.normalizer = normalizers.NFC()
        steps = draw.sample([
            pre_tokenizers.Digits(individual_digits=draw.random() < 0.5),
            *(pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PATTERNS)],
            draw.randrange(4))
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=draw.random() < 0.3,
                                              use_regex=draw.random() < 0.6))
    if steps:
        original.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    lines = [*odd_lines(150, draw.randrange(10**6)), *ordinary_lines(150, draw.randrange(10**6))]
    special = [f"<0x{byte:02X}>" for byte in range(256)] if is_marked else []
    original.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=draw.randrange(350, 900), show_progress=False, limit_alphabet=80,
        special_tokens=["<unk>", "</s>", *special],
        initial_alphabet=[] if is_marked else pre_tokenizers.ByteLevel.alphabet()))
    definition = json.loads(original.to_str())  # bytes are pieces, not added tokens
    definition["added_tokens"] = definition["added_tokens"][:2]
    original = Tokenizer.from_str(json.dumps(definition))
    original.add_tokens([AddedToken(
        draw.choice(["the", "<x>", "  ", "cat s", "é"]), single_word=draw.random() < 0.3,
        lstrip=draw.random() < 0.3, rstrip=draw.random() < 0.3, normalized=draw.random() < 0.5)
        for _ in range(draw.randrange(3))])
    return original


def check(seed: int) -> tuple[int, int]:
    """Texts compared, and whether ours refuses the tokenizer."""
    draw = random.Random(seed)
    original = random_tokenizer(draw)
    original.encode_special_tokens = True
    try:
        ours = _core.Tokenizer.from_json(original.to_str())
    except errors.TokenizerError:
        return 0, 1
    lines = [*odd_lines(LINES // 2, seed), *mixed_lines(LINES // 2, seed)]
    for line, encoding in zip(lines, original.encode_batch(lines, add_special_tokens=False)):
        assert ours.encode(line) == encoding.ids, (f"LMFUSION_TEST_SEED={seed}", line)
        whole = line.encode()
        cut = ours.last_cut(whole, draw.randrange(len(whole) + 1))
        assert cut == 0 or [*ours.encode(whole[:cut]), *ours.encode_after_cut(whole[cut:])] == (
            encoding.ids), (f"LMFUSION_TEST_SEED={seed}", line, cut)
    return len(lines), 0


def test_random_tokenizers(record_property: pytest.RecordProperty) -> None:
    first = int(os.environ.get("LMFUSION_TEST_SEED", "1"))
    end = time.monotonic() + float(os.environ.get("LMFUSION_TEST_SECONDS", "0"))
    texts = refused = tried = 0
    while tried < TOKENIZERS or time.monotonic() < end:
        compared, no = check(first + tried)
        texts, refused, tried = texts + compared, refused + no, tried + 1
    record_property("tokenizers", tried)
    record_property("tokenizers refused", refused)
    record_property("texts tokenized", texts)
    assert refused < tried / 2
