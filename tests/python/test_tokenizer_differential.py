"""Random tokenizers over random texts against the originals, the packages tokenizers and
sentencepiece (also on the models of the wheel mistral_common).

    LMFUSION_TEST_SECONDS  how long to go on, beyond the first tokenizers (default: not)
    LMFUSION_TEST_SEED     the first tokenizer's seed (default 1)
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lmfusion import _core, errors
from older_unigram import OlderUnigram
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
CONTROL = ["<unk>", "</s>"]
SENTENCEPIECE_MODELS = 6
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
        special_tokens=[*CONTROL, *special],
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
    control = {original.token_to_id(name) for name in CONTROL}
    try:
        encodings = original.encode_batch(lines, add_special_tokens=False)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # "AddedVocabulary bad split", seed 790021
            raise
        for line in lines:
            ours.encode(line)
        return 0, 0
    for line, encoding in zip(lines, encodings):
        got = ours.encode(line)
        # Merges or a whole word make the original's control token of its letters, alone or on the
        # way to more, which ours never does (MergesMakeNoControlTokenOfLetters in C++).
        if any(name in token for token in encoding.tokens for name in CONTROL):
            assert not control & {*got}, (f"LMFUSION_TEST_SEED={seed}", line)
        else:
            assert got == encoding.ids, (f"LMFUSION_TEST_SEED={seed}", line)
        whole = line.encode()
        cut = ours.last_cut(whole, draw.randrange(len(whole) + 1))
        assert cut == 0 or [*ours.encode(whole[:cut]), *ours.encode_after_cut(whole[cut:])] == (
            got), (f"LMFUSION_TEST_SEED={seed}", line, cut)
    return len(lines), 0


def check_seeds(check_one: Callable[[int], tuple[int, int]], least: int,
                record_property: pytest.RecordProperty) -> None:
    """At least so many tokenizers, and more for half of the seconds that there are."""
    first = int(os.environ.get("LMFUSION_TEST_SEED", "1"))
    end = time.monotonic() + float(os.environ.get("LMFUSION_TEST_SECONDS", "0")) / 2
    texts = refused = tried = 0
    while tried < least or time.monotonic() < end:
        compared, no = check_one(first + tried)
        texts, refused, tried = texts + compared, refused + no, tried + 1
    record_property("tokenizers", tried)
    record_property("tokenizers refused", refused)
    record_property("texts tokenized", texts)
    assert refused < tried / 2


def test_random_tokenizers(record_property: pytest.RecordProperty) -> None:
    check_seeds(check, TOKENIZERS, record_property)


def random_sentencepiece(draw: random.Random) -> tuple[bytes, list[str] | None]:
    """A model trained on random lines, and of a unigram model its user-defined symbols."""
    spm = pytest.importorskip("sentencepiece", reason="pip install sentencepiece==0.2.3")
    kind = draw.choice(["unigram", "bpe"])
    lines = [*odd_lines(150, draw.randrange(10**6)), *ordinary_lines(150, draw.randrange(10**6))]
    lines = [line.replace("\n", " ").replace("\0", " ") for line in lines]
    symbols = ["<start>", "the", "é", "cat"]
    if kind == "bpe":  # releases differ on user-defined spaces in unigram models
        symbols.append("\u2581\u2581")
    model = io.BytesIO()
    options: dict[str, Any] = {
        "model_type": kind, "vocab_size": draw.randrange(1200, 1800),
        "character_coverage": draw.choice([0.98, 0.995, 1.0]),
        "byte_fallback": draw.random() < 0.6,
        "normalization_rule_name": draw.choice(["identity", "nfkc", "nmt_nfkc", "nmt_nfkc_cf"]),
        "add_dummy_prefix": draw.random() < 0.7, "remove_extra_whitespaces": draw.random() < 0.5,
        "split_digits": draw.random() < 0.5, "split_by_whitespace": draw.random() < 0.8,
        "user_defined_symbols": draw.sample(symbols, draw.randrange(len(symbols)))}
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([line for line in lines if line.strip()]), model_writer=model,
        hard_vocab_limit=False, control_symbols=["<control>"], minloglevel=2, num_threads=1,
        **options)
    return model.getvalue(), options["user_defined_symbols"] if kind == "unigram" else None


def check_sentencepiece(model: bytes, user_defined: list[str] | None,
                        seed: int) -> tuple[int, int]:
    """Texts compared, and whether ours refuses the model. By a unigram model the ids are those of
    the package, or to the last one those of releases before 0.2.2, which may be linked."""
    import sentencepiece as spm
    original = spm.SentencePieceProcessor(model_proto=model)
    older = None if user_defined is None else OlderUnigram(original, user_defined)
    draw = random.Random(seed)
    try:
        ours = _core.Tokenizer.from_sentencepiece(model)
    except errors.TokenizerError:
        return 0, 1
    lines = [*odd_lines(LINES // 2, seed), *mixed_lines(LINES // 2, seed)]
    for line in lines:
        got = ours.encode(line)
        if got != original.encode(line):
            assert older is not None and got == older.encode(line), (
                f"LMFUSION_TEST_SEED={seed}", line)
        whole = line.encode()
        cut = ours.last_cut(whole, draw.randrange(len(whole) + 1))
        assert cut == 0 or [*ours.encode(whole[:cut]), *ours.encode_after_cut(whole[cut:])] == (
            got), (f"LMFUSION_TEST_SEED={seed}", line, cut)
    return len(lines), 0


def test_random_sentencepiece_models(record_property: pytest.RecordProperty) -> None:
    """Unigram and BPE, with and without bytes, symbols of a user's own, and every normaliser."""
    check_seeds(lambda seed: check_sentencepiece(*random_sentencepiece(random.Random(seed)), seed),
                SENTENCEPIECE_MODELS, record_property)


@pytest.mark.parametrize("name", ["tokenizer.model.v1",
                                  "mistral_instruct_tokenizer_240323.model.v3"])
def test_mistrals_models(name: str) -> None:
    package = importlib.util.find_spec("mistral_common")
    if package is None or package.origin is None:
        pytest.skip("pip install mistral_common==1.13.1")
    pytest.importorskip("sentencepiece", reason="pip install sentencepiece==0.2.3")
    model = (Path(package.origin).parent / "data" / name).read_bytes()
    seed = int(os.environ.get("LMFUSION_TEST_SEED", "1"))
    assert check_sentencepiece(model, None, seed) == (LINES // 2 * 2, 0)
