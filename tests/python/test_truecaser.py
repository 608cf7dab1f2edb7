"""The truecaser against the package `truecase` itself (pinned: truecase 0.0.14, nltk 3.10.4)."""

from __future__ import annotations

import json
import random
import string
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

truecase = pytest.importorskip("truecase", reason="pip install truecase==0.0.14 nltk==3.10.4")
from lmfusion._core import ModelFileError, Truecaser  # noqa: E402
from lmfusion.errors import ExportError  # noqa: E402
from lmfusion.exporter.truecaser import export_truecaser  # noqa: E402
from nltk.tokenize import word_tokenize  # noqa: E402
from nltk.tokenize.treebank import TreebankWordDetokenizer  # noqa: E402

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
TEXTS = 50_000
MAX_TIED_TEXTS = 4096

MARKS = ["'", '"', "''", "``", "`", "...", "..", ".", ",", ":", ";", "?", "!", "(", ")", "[", "]",
         "{", "}", "<", ">", "-", "--", "$", "%", "&", "@", "#", "*", "_", "/", "“", "”", "‘", "’",
         "«", "»", "–", "—"]
CLITICS = ["'s", "'m", "'d", "'ll", "'re", "'ve", "n't", "'am", "'tis", "'twas", "'n", "'ye"]
CONTRACTIONS = ["cannot", "gonna", "gotta", "gimme", "lemme", "wanna", "d'ye", "more'n", "can not",
                "gon na", "i'm", "don't", "it's", "we'll", "they're", "o'neil", "u.s.", "mr."]
UNICODE = ["é", "straße", "ſ", "İstanbul", "ı", "ΑΣ", "σοφοσ", "привет", "²", "e\u0301", "ŉ", "ﬁ",
           "naïve", "ǆ", "\u00a0", "\u200d", "日本", "\x1c", "①", "Ⅷ", "'iſ", "\u2028"]


@pytest.fixture(scope="session")
def truecaser_path(tmp_path_factory) -> Path:
    return export_truecaser(tmp_path_factory.mktemp("truecaser") / "english.truecaser")


@pytest.fixture(scope="session")
def package() -> truecase.TrueCaser:
    return truecase.get_truecaser()


@pytest.fixture(scope="session")
def ordered(package) -> truecase.TrueCaser:
    """The package's own code, with sets in the documented order of preference among ties."""
    caser = truecase.TrueCaser.__new__(truecase.TrueCaser)
    caser.__dict__.update(package.__dict__)
    caser.word_casing_lookup = {
        key: sorted(forms, reverse=True, key=lambda form: (package.uni_dist[form], form))
        for key, forms in package.word_casing_lookup.items()}
    return caser


def words_of(text: str) -> list[str]:
    return word_tokenize(text, preserve_line=True)  # no punkt data: a text is one sentence


def reference(caser: truecase.TrueCaser, text: str) -> str:
    words = caser.get_true_case_from_tokens(words_of(text))
    return TreebankWordDetokenizer().detokenize(words)


def tied_texts(caser: truecase.TrueCaser, text: str) -> set[str]:
    """Every text that the package can give, whatever the order of its sets."""
    words = words_of(text)
    paths: list[list[str]] = [[]]
    for i, word in enumerate(words):
        forms = caser.word_casing_lookup.get(word.lower(), ())
        following = words[i + 1] if i + 1 < len(words) else None
        longer = []
        for path in paths:
            if word in string.punctuation or word.isdigit():
                best = [word]
            elif not forms:
                best = [word.lower().title()]
            else:
                best = list(forms)
                if len(forms) > 1:
                    scores = {form: caser.get_score(path[-1] if path else None, form, following)
                              for form in forms}
                    best = [form for form in forms if scores[form] == max(scores.values())]
                best = [form.capitalize() for form in best] if i == 0 else best
            longer += [[*path, form] for form in best]
        paths = longer
        assert len(paths) <= MAX_TIED_TEXTS
    return {TreebankWordDetokenizer().detokenize(path) for path in paths}


def from_shared_data() -> Iterator[str]:
    if not SHARED_DATA.is_dir():
        return
    for line in (SHARED_DATA / "nbest_brain_to_text.jsonl").open():
        row = json.loads(line)
        yield row["ref"]
        yield from row["nbest"]
    for line in (SHARED_DATA / "requests_fusion.jsonl").open():
        row = json.loads(line)
        for context, words in zip(row["contexts"], row["candidate_words"]):
            yield from (f"{context} {word}" for word in words)


def generated(caser: truecase.TrueCaser) -> Iterator[str]:
    rng = random.Random(4)
    keys = list(caser.word_casing_lookup)
    common = [form for form, _ in caser.uni_dist.most_common(3000)]
    trigrams = rng.sample(list(caser.trigram_dist), 60_000)

    def mixed() -> str:
        kind = rng.random()
        if kind < 0.35:
            return rng.choice(keys)
        if kind < 0.6:
            return rng.choice(common).lower()
        if kind < 0.7:
            return rng.choice(common) + rng.choice(CLITICS)
        if kind < 0.8:
            return rng.choice(CONTRACTIONS + CLITICS)
        if kind < 0.9:
            return rng.choice(MARKS) + rng.choice(keys) + rng.choice(MARKS)
        return rng.choice([str(rng.randrange(3000)), f"{rng.randrange(99)}.5", "1,000", "3rd"])

    while True:
        for _ in range(4):  # sentences of the corpus, nearly
            yield " ".join(rng.choice(trigrams).lower().replace("_", " ")
                           for _ in range(rng.randrange(1, 5)))
        for _ in range(3):
            yield " ".join(mixed() for _ in range(rng.randrange(1, 12)))
        yield "".join(rng.choice([*MARKS, *CLITICS, *CONTRACTIONS, " ", " ", " ", "a", "7"])
                      for _ in range(rng.randrange(12)))
        yield rng.choice(["", " ", "  "]).join(
            rng.choice([rng.choice(UNICODE), mixed(), " "]) for _ in range(rng.randrange(8)))


@pytest.fixture(scope="session")
def texts(package) -> list[str]:
    unique = dict.fromkeys(["", " ", "   ", "i 'am", " x", "x ", *from_shared_data()])
    for text in generated(package):
        if len(unique) >= TEXTS:
            break
        unique[text] = None
    return list(unique)


def test_compat_is_the_string_of_the_package(truecaser_path, package, ordered, texts):
    ours = Truecaser(truecaser_path, compat=True)
    tied = 0
    for text in texts:
        result = ours.text(text)
        assert result == reference(ordered, text), repr(text)
        if result != reference(package, text):
            tied += 1
            assert result in tied_texts(package, text), repr(text)
    print(f"{len(texts)} texts equal, {tied} of them by a tie of the package")
    assert len(texts) == TEXTS and tied < 0.02 * len(texts)


def simple_lower(letter: str) -> str:
    return letter.replace("İ", "i").lower().replace("ς", "σ")


def in_place(text: str, words: list[str], cased: list[str]) -> str:
    """`text` with the letters of `words` in the case of `cased`."""
    out, at = list(text), 0
    for word, wanted in zip(words, cased):
        keep = len(word) != len(wanted) or any(
            simple_lower(a) != simple_lower(b) for a, b in zip(word, wanted))
        letters = iter(zip(word, wanted))
        for _, letter in letters:
            while out[at].isspace():
                at += 1
            if out[at] == '"':
                next(letters)  # `` or '' stands for it
            elif not keep:
                out[at] = letter
            at += 1
    return "".join(out)


def test_in_place_takes_the_same_decisions(truecaser_path, ordered, texts):
    ours = Truecaser(truecaser_path, compat=False)
    for text in texts[::3]:
        words = words_of(text)
        expected = in_place(text, words, ordered.get_true_case_from_tokens(words))
        assert ours.text(text) == expected, repr(text)


@pytest.mark.parametrize("compat", [False, True])
def test_a_split_text_is_the_whole_text(truecaser_path, texts, compat):
    ours = Truecaser(truecaser_path, compat=compat)
    whole = Truecaser(truecaser_path, compat=compat)
    rng = random.Random(5)
    for text in texts[::5]:
        cuts = [i for i, c in enumerate(text) if c == " "]
        for cut in rng.sample(cuts, min(3, len(cuts))):
            context, word = text[:cut], text[cut + 1:]
            if context and context[-1] != " " and word[:1] not in ("", " "):
                word = " " + word  # what joins a word is at its beginning
            joined = context + word
            cased, context_bytes = ours.apply(context, word)
            assert cased == whole.text(joined), repr(joined)
            if not context:
                assert context_bytes == 0, repr(joined)
            elif compat:
                count = len(word.split())
                assert len(cased.encode()[context_bytes:].decode().split()) == min(
                    count, len(cased.split())), repr(joined)
            else:
                assert len(cased.encode()[:context_bytes].decode()) == len(context), repr(joined)


@pytest.mark.parametrize("words", [10, 100, 400])
def test_a_candidate_costs_its_own_words(truecaser_path, package, words):
    rng = random.Random(words)
    common = [form.lower() for form, _ in package.uni_dist.most_common(2000) if form.isalpha()]
    ours = Truecaser(truecaser_path, compat=True)
    context = " ".join(rng.choice(common) for _ in range(words))
    ours.apply(context, " the")
    before = ours.words_decided
    for word in common[:100]:
        ours.apply(context, " " + word)
    # The context's last word and the candidate; one more where the two belong together.
    assert ours.words_decided - before <= 100 * 3
    before = ours.words_decided
    for word in common[:100]:  # a hypothesis that grows
        context += " " + word
        ours.apply(context, " the")
    assert ours.words_decided - before <= 100 * 4


def test_threads_agree(truecaser_path, texts):
    shared = Truecaser(truecaser_path, compat=True)
    alone = Truecaser(truecaser_path, compat=True)
    sample = [text for text in texts if " " in text][:2000]
    pairs = [(text[:at], text[at:]) for text in sample for at in [text.rindex(" ")]]
    expected = [alone.apply(*pair) for pair in pairs]
    results: list[list] = [[], [], []]

    def work(mine: list) -> None:
        mine += [shared.apply(*pair) for pair in pairs]

    threads = [threading.Thread(target=work, args=(mine,)) for mine in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == expected for mine in results)


def test_untrusted_text(truecaser_path):
    for compat in (False, True):
        ours = Truecaser(truecaser_path, compat=compat)
        assert ours.text("a\0b c") == "A\0B C"
        assert len(ours.text("x" * 1_000_000)) == 1_000_000
        assert len(ours.text("'," * 100_000)) > 100_000
        with pytest.raises(ValueError, match="surrogate"):
            ours.text("\ud800")


def test_damaged_files(truecaser_path, tmp_path):
    content = truecaser_path.read_bytes()
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 1
    for wrong in (b"", b"LMFTRUEC", content[:100], content[:-8], bytes(flipped),
                  content + b"\0" * 8, b"PK\3\4" + content[4:]):
        with pytest.raises(ModelFileError):
            Truecaser(wrong, compat=True)
        path = tmp_path / "wrong"
        path.write_bytes(wrong)
        with pytest.raises(ModelFileError):
            Truecaser(path, compat=True)
    with pytest.raises(ModelFileError):
        Truecaser(tmp_path / "missing", compat=True)
    assert Truecaser(content, compat=True).text("new york") == "New York"


def test_foreign_distributions_are_refused(tmp_path):
    evil = tmp_path / "evil.dist"
    # {"uni_dist": print}, written by hand: Ray puts another `print` in its place (test_scaling.py).
    evil.write_bytes(b"}S'uni_dist'\ncbuiltins\nprint\ns.")
    with pytest.raises(ExportError, match="builtins.print"):
        export_truecaser(tmp_path / "out", evil)
    with pytest.raises(ExportError, match="lack"):
        export_truecaser(tmp_path / "out", {})
    assert not (tmp_path / "out").exists()
