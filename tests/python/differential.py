"""Random calls of a scorer, and what plain Hugging Face says of the same texts.

A `World` is a tiny model of some architecture with some tokenizer, all by its seed. A `Case` is
plain data: a scorer's settings, texts, and the calls to make, one after another. Hypothesis draws
cases, and makes those that fail smaller. The oracle is the original model, run once on every text
that no other text begins with, and the original tokenizer; the rules of joining, casing and cutting
are written down once more here, from docs/boundaries.md and docs/casing.md.
"""

from __future__ import annotations

import math
import random
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import lmfusion
import numpy as np
import tiny_models
import tokenizers
import torch
from hypothesis import strategies as st
from lmfusion.export import export
from transformers import PreTrainedTokenizerFast

TOLERANCE = 1e-4  # nats per scored token
ROWS_KEPT = 60_000  # log-probabilities of all tokens after a text, 1 kB each
BATCH = 64
STEMS = ["ca", "th", "i", "s", "an", "don't ", "n", "o", "yo"]
LETTERS = "tabcdefghijklmnopqrsuvwxyz"
WORDS = ["the", "cat", "i", "you", "and", "on", "i'm", "x", "naïve", "3", "1,234", "well-known",
         "a", "in", "the cat", "sat."]
BLANKS = ("Ġ", "Ċ", "ĉ", "č", "ċ", "Č", "▁")


def metaspace_tokenizer() -> PreTrainedTokenizerFast:
    """Of VOCABULARY ids at most, with "▁" for spaces and bytes for what it does not know."""
    pieces = ["<pad>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "t", "h",
              "e", "c", "a", "n", "i", "th", "the", "▁the", "an", "▁a", "▁c", "in"]
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("a", "n"), ("▁", "a"), ("▁", "c"),
              ("i", "n")]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(
        vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges, unk_token="<pad>",
        fuse_unk=True, byte_fallback=True))
    backend.normalizer = tokenizers.normalizers.Sequence([
        tokenizers.normalizers.Prepend("▁"), tokenizers.normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>",
                                   pad_token="<pad>")


TOKENIZERS: list[Callable[[], PreTrainedTokenizerFast]] = [
    tiny_models.tiny_tokenizer, metaspace_tokenizer, lambda: tiny_models.tiny_tokenizer(True)]


class Rows:
    """log p of every token after a text of tokens, by the original model: a tree of texts."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.forget()

    def forget(self) -> None:
        self.child: dict[tuple[int, int], int] = {}
        self.path: list[tuple[int, ...]] = [()]
        self.row: dict[int, np.ndarray] = {}
        self.needed: set[int] = set()

    def node(self, tokens: Iterable[int]) -> int:
        at = 0
        for token in tokens:
            below = self.child.get((at, token))
            if below is None:
                below = self.child[at, token] = len(self.path)
                self.path.append((*self.path[at], token))
            at = below
        return at

    def after(self, tokens: Iterable[int]) -> np.ndarray | None:
        """[vocabulary], nats; None, and a note, where the model has not been asked yet."""
        node = self.node(tokens)
        if node not in self.row:
            self.needed.add(node)
        return self.row.get(node)

    def ask(self) -> None:
        """One forward pass a text that was needed, of those of one length together."""
        paths = sorted(self.path[node] for node in self.needed)
        longest = [path for path, following in zip(paths, [*paths[1:], ()])
                   if following[:len(path)] != path]
        longest.sort(key=len)
        while longest:
            batch = [path for path in longest[:BATCH] if len(path) == len(longest[0])]
            longest = longest[len(batch):]
            with torch.no_grad():
                log_p = self.model(input_ids=torch.tensor(batch)).logits.log_softmax(-1).numpy()
            for path, rows in zip(batch, log_p):
                for size in range(1, len(path) + 1):
                    self.row.setdefault(self.node(path[:size]), rows[size - 1])
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
    scores: int = 0
    largest: float = 0.0  # difference, nats a scored token
    evictions: int = 0

    @classmethod
    def of(cls, seed: int, folder: Path) -> World:
        generator = random.Random(seed)
        configs = {**tiny_models.TREE_CONFIGS, **tiny_models.PLAIN_CONFIGS}
        name = sorted(configs)[seed % len(configs)]
        kept = name in tiny_models.TREE_CONFIGS
        model = tiny_models.build(configs[name](), generator.randrange(1000))
        tokenizer = generator.choice(TOKENIZERS)()
        bundle = export(model, tokenizer, folder / f"{seed}.lmf", uncached=not kept)
        return cls(seed, name, kept, bundle, tokenizer, Rows(model),
                   lmfusion.LMFusionScorer(bundle).description["max_positions"])


@dataclass(frozen=True)
class Settings:
    mode: str
    device: str
    casing: str
    boundary: str
    bos: str
    weight: float
    bonus: float
    max_batch_tokens: int
    max_context_length: int
    spare_tokens: int | None  # of the cache, beside the longest text; None: 1 GiB


@dataclass(frozen=True)
class Step:
    """A call. Of `texts` and `words`, what each kind of call needs."""

    kind: str
    texts: tuple[int, ...]
    words: tuple[str, ...]
    name: str = ""  # of the namespace
    file: int = 0
    more: tuple[Step, ...] = ()  # beside it, in threads of their own


@dataclass(frozen=True)
class Case:
    settings: Settings
    texts: tuple[str, ...]
    steps: tuple[Step, ...]


KINDS = ["score", "score", "score", "floor", "late", "texts", "eos", "endings", "tokens", "explain",
         "prime", "save", "load", "clear", "reopen", "threads"]


@st.composite
def cases(draw: st.DrawFn, world: World) -> Case:
    devices = ["cpu", "cpu", "cpu", "emulated"] if world.kept else ["cpu"]
    has_word = world.tokenizer.backend_tokenizer.normalizer is None
    settings = Settings(
        draw(st.sampled_from(["tree", "tree", "tree", "grouped", "uncached"])),
        draw(st.sampled_from(devices)),
        draw(st.sampled_from(["none", "none", "sentence", "variants", "upper"])),
        draw(st.sampled_from(["plain", "word"] if has_word else ["plain"])),
        draw(st.sampled_from(["<s>", "none", "</s>"])), draw(st.sampled_from([1.0, 0.3, 2.5])),
        draw(st.sampled_from([0.0, -1.5])), draw(st.sampled_from([512, 16, 7, 3, 1])),
        draw(st.sampled_from([512, 512, 11, 6])), draw(st.sampled_from([None, 0, 3, 20, 200])))
    texts = [""]
    for _ in range(draw(st.integers(1, 9))):
        begun = draw(st.sampled_from(texts))
        more = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=2))
        if len(begun) < 14:
            texts.append(" ".join([*([begun.rstrip()] if begun else []), *more]))
    if draw(st.booleans()):
        texts.append(texts[-1] + " ")
    steps = tuple(draw(step(len(texts), KINDS)) for _ in range(draw(st.integers(1, 6))))
    return Case(settings, tuple(texts), steps)


@st.composite
def step(draw: st.DrawFn, texts: int, kinds: list[str]) -> Step:
    kind = draw(st.sampled_from(kinds))
    chosen = tuple(draw(st.lists(st.integers(0, texts - 1), min_size=1, max_size=12)))
    words = draw(st.lists(st.sampled_from(["", *WORDS]), max_size=4))
    for stem in draw(st.lists(st.sampled_from(STEMS), max_size=6, unique=True)):
        words += [stem + letter for letter in LETTERS[:draw(st.sampled_from([26, 1, 7]))]]
    more = tuple(draw(step(texts, ["score", "texts"])) for _ in range(
        draw(st.integers(1, 3)))) if kind == "threads" else ()
    return Step(kind, chosen, tuple(words), draw(st.sampled_from(["", "other"])),
                draw(st.integers(0, 1)), more)


SHORT = re.compile(r"(?<!\S)i(?=(?:'m|'ll|'d|'ve)?[.,?!;:]*(?!\S))")


def sentence(text: str) -> str:
    first = next((i for i, letter in enumerate(text) if letter.isalnum()), None)
    if first is not None and not text[first].isdigit():
        text = text[:first] + text[first].upper() + text[first + 1:]
    return SHORT.sub("I", text)


def capitalised(word: str) -> str:
    first = next((i for i, letter in enumerate(word) if letter.isalpha()), None)
    return word if first is None else word[:first] + word[first].upper() + word[first + 1:]


@dataclass
class Machine:
    """Does a case. Every expected score is asked twice: first to note which texts Hugging Face must
    see, then, after all of them went through it, to have the number."""

    world: World
    case: Case
    folder: Path
    capacity: int | None = None
    ids_of: dict[str, list[int]] = field(default_factory=dict)
    totals: dict[tuple[str, bool], float] = field(default_factory=dict)  # where they are known
    asked_all: bool = False  # all that the numbers asked for need was given by Hugging Face

    def run(self) -> None:
        if len(self.world.rows.row) > ROWS_KEPT:
            self.world.rows.forget()
        for path in self.folder.glob("*.cache"):
            path.unlink()
        self.scorer = self.open()
        for step in self.case.steps:
            self.do(step)
        stats = self.scorer.stats()
        if self.world.kept:
            assert stats.cache_bytes <= stats.cache_bytes_limit
        self.world.evictions += stats.evictions

    def open(self) -> lmfusion.LMFusionScorer:
        settings = self.case.settings
        options = {"mode": settings.mode, "device": settings.device, "boundary": settings.boundary,
                   "bos": settings.bos, "weight": settings.weight,
                   "word_insertion_bonus": settings.bonus,
                   "casing": str.upper if settings.casing == "upper" else settings.casing,
                   "max_batch_tokens": settings.max_batch_tokens,
                   "max_context_length": settings.max_context_length}
        if settings.spare_tokens is not None and self.world.kept:
            try:
                lmfusion.LMFusionScorer(self.world.bundle, kv_cache_bytes=1, device=settings.device)
            except lmfusion.CacheBudgetError as error:
                token_bytes = int(re.findall(r"a token takes (\d+) bytes", str(error))[0])
            # No text of these cases has more tokens.
            options["kv_cache_bytes"] = (self.longest() + settings.spare_tokens) * token_bytes
        return lmfusion.LMFusionScorer(self.world.bundle, **options)

    def longest(self) -> int:
        texts = [text for step in self.case.steps for each in (step, *step.more)
                 for i in each.texts for word in (*each.words, ".", "?")
                 for form in self.forms(self.case.texts[i], word)
                 for text in (form[0], form[0] + ".")]
        return 4 + max([len(self.ids(text)) for text in [*texts, *self.case.texts]])

    # What is right.

    def ids(self, text: str) -> list[int]:
        if text not in self.ids_of:
            self.ids_of[text] = self.world.tokenizer(
                text, add_special_tokens=False)["input_ids"] if text else []
        return self.ids_of[text]

    def token(self, ids: list[int], i: int) -> float:
        """log p of a text's token number i after what is kept of the text before it."""
        before = self.read(ids[:i])
        if not before:
            return 0.0
        row = self.world.rows.after(before)
        return 0.0 if row is None else float(row[ids[i]])

    def read(self, before: list[int]) -> list[int]:
        """What is read before a token: the start token, for which there is always room, and what
        is kept of the text."""
        most = self.case.settings.max_context_length
        if self.world.positions:
            most = min(most, self.world.positions - 1 - 16)
        block = max(1, most // 4)
        dropped = 0 if len(before) <= most else math.ceil((len(before) - most) / block) * block
        return [*self.start(), *before[dropped:]]

    def start(self) -> list[int]:
        return {"none": [], "<s>": [1], "</s>": [2]}[self.case.settings.bos]

    def total(self, text: str, *, eos: bool = False) -> float:
        """L(text), or the tokens and the end of the text."""
        known = self.totals.get((text, eos))
        if known is not None:
            return known
        ids = [*self.ids(text), *([2] if eos else [])]
        sum_ = math.fsum(self.token(ids, i) for i in range(len(ids)))
        if self.case.settings.boundary == "word" and text and not text[-1].isspace() and not eos:
            sum_ += self.word_end(ids)
        if self.asked_all:
            self.totals[text, eos] = sum_
        return sum_

    def word_end(self, ids: list[int]) -> float:
        row = self.world.rows.after(self.read(ids))
        if row is None:
            return 0.0
        pieces = self.world.tokenizer.convert_ids_to_tokens(range(len(self.world.tokenizer)))
        begins = [i for i, piece in enumerate(pieces) if i == 2 or piece.startswith(BLANKS)]
        return float(np.logaddexp.reduce(row[begins].astype(np.float64)))

    def forms(self, context: str, word: str) -> list[tuple[str, str]]:
        """(text, its part that is the context) of every casing of a candidate."""
        space = " " if context and not context.endswith(" ") and word and word[0] != " " else ""
        if self.case.settings.casing == "variants":
            forms = dict.fromkeys([word, capitalised(word), word.upper()])
            return [(context + space + form, context) for form in forms]
        case = {"none": str, "sentence": sentence, "upper": str.upper}[self.case.settings.casing]
        text = case(context + space + word)
        return [(text, text[:len(context)])]

    def word(self, context: str, word: str) -> float:
        return float(np.logaddexp.reduce([
            self.total(text) - self.total(before) for text, before in self.forms(context, word)]))

    def cased(self, text: str) -> str:
        return text if self.case.settings.casing == "variants" else self.forms("", text)[0][0]

    def expect(self, wanted: Callable[[], list[float]], got: list[float | None],
               sizes: list[int]) -> list[float]:
        """Compares; sizes: tokens that each number is a sum over, at most."""
        wanted()
        self.world.rows.ask()
        self.asked_all = True
        numbers = wanted()
        self.asked_all = False
        assert len(numbers) == len(got) == len(sizes)
        for number, mine, size in zip(numbers, got, sizes):
            assert mine is not None
            difference = abs(number - mine) / max(1, size)
            assert difference <= TOLERANCE, (
                f"{number} by Hugging Face, {mine} here, over {size} tokens; {self.where()}")
            self.world.largest = max(self.world.largest, difference)
        self.world.scores += len(numbers)
        return numbers

    def where(self) -> str:
        return f"LMFUSION_TEST_SEED={self.world.seed} ({self.world.architecture})"

    # The calls.

    def do(self, step: Step) -> None:
        getattr(self, f"do_{step.kind}")(step)

    def asked(self, step: Step) -> tuple[list[str], list[list[str]]]:
        contexts = [self.case.texts[i] for i in step.texts]
        return contexts, [list(step.words[n % 2:]) for n in range(len(contexts))]

    def sizes(self, contexts: list[str], words: list[list[str]]) -> list[int]:
        return [2 + len(self.ids(text)) + len(self.ids(before)) - 2 * common(
                    self.ids(text), self.ids(before))
                for context, row in zip(contexts, words) for word in row
                for text, before in [max(self.forms(context, word), key=lambda f: len(f[0]))]]

    def wanted(self, contexts: list[str], words: list[list[str]]) -> list[float]:
        weight, bonus = self.case.settings.weight, self.case.settings.bonus
        return [weight * self.word(context, word) + bonus
                for context, row in zip(contexts, words) for word in row]

    def do_score(self, step: Step) -> None:
        contexts, words = self.asked(step)
        rows = self.scorer.score_continuations(contexts, words, cache_namespace=step.name)
        self.check(contexts, words, rows)

    def check(self, contexts: list[str], words: list[list[str]],
              rows: list[list[float | None]]) -> list[float]:
        assert [len(row) for row in rows] == [len(row) for row in words]
        sizes = [math.ceil(size * max(1, self.case.settings.weight))
                 for size in self.sizes(contexts, words)]
        return self.expect(lambda: self.wanted(contexts, words),
                           [score for row in rows for score in row], sizes)

    def do_floor(self, step: Step) -> None:
        contexts, words = self.asked(step)
        self.do_score(step)
        wanted = sorted(self.wanted(contexts, words))
        floor = wanted[len(wanted) // 2] if wanted else 0.0
        rows = self.scorer.score_continuations(contexts, words, floor=floor,
                                               cache_namespace=step.name)
        self.world.scores += len(wanted)
        numbers = iter(self.wanted(contexts, words))
        for row in rows:
            for score in row:
                number = next(numbers)
                if abs(number - floor) < 0.01:
                    continue
                assert (score == -math.inf) == (number < floor), self.where()
                assert score == -math.inf or abs(score - number) < 0.01, self.where()

    def do_late(self, step: Step) -> None:
        contexts, words = self.asked(step)
        rows = self.scorer.score_continuations(contexts, words, deadline=0)
        assert all(score is None for row in rows for score in row)
        rows = self.scorer.score_continuations(contexts, words, deadline=1e6)
        self.check(contexts, words, rows)

    def do_texts(self, step: Step) -> None:
        texts = [self.case.texts[i] for i in step.texts]
        got = self.scorer.score_texts(texts, cache_namespace=step.name)
        self.expect(lambda: [self.total(self.cased(text)) for text in texts], got,
                    [len(self.ids(self.cased(text))) + 1 for text in texts])

    def do_eos(self, step: Step) -> None:
        texts = [self.case.texts[i] for i in step.texts]
        got = self.scorer.score_texts(texts, eos=True, cache_namespace=step.name)
        self.expect(lambda: [self.total(self.cased(text), eos=True) for text in texts], got,
                    [len(self.ids(self.cased(text))) + 1 for text in texts])

    def do_endings(self, step: Step) -> None:
        texts = [self.cased(self.case.texts[i]) for i in step.texts]
        rows = self.scorer.score_endings([self.case.texts[i] for i in step.texts], [".", "?"])
        self.expect(lambda: [self.total(text + ending) - self.total(text)
                             for text in texts for ending in (".", "?")],
                    [score for row in rows for score in row],
                    [2 * len(self.ids(text)) + 3 for text in texts for _ in range(2)])

    def do_tokens(self, step: Step) -> None:
        """The layer below texts, with nothing before the ids."""
        paths = [[1, *self.ids(self.case.texts[i])] for i in step.texts]
        got = self.scorer.score_token_paths(paths, [1] * len(paths))
        rows = self.world.rows

        def wanted() -> list[float]:
            all_rows = [(rows.after(path[:i]), path[i]) for path in paths
                        for i in range(1, len(path))]
            return [0.0 if row is None else float(row[token]) for row, token in all_rows]

        numbers = [score for row in got for score in row]
        self.expect(wanted, numbers, [1] * len(numbers))

    def do_explain(self, step: Step) -> None:
        context, word = self.case.texts[step.texts[0]], (*step.words, "cat")[0]
        found = self.scorer.explain(context, word, cache_namespace=step.name)
        self.expect(lambda: [self.word(context, word)], [found.candidate_log_prob],
                    self.sizes([context], [[word]]))
        texts = [text for text, _ in self.forms(context, word)]
        assert found.text in texts and [form.text for form in found.forms] == texts

    def keeps(self) -> bool:
        return self.world.kept and self.case.settings.mode == "tree"

    def do_prime(self, step: Step) -> None:
        if not self.keeps():
            return
        contexts, words = self.asked(step)
        try:
            self.scorer.prime(contexts, vocabulary=words[0], cache_namespace=step.name)
        except lmfusion.CacheBudgetError:
            return
        self.do_score(step)

    def file(self, step: Step) -> Path:
        return self.folder / f"{step.file}.cache"

    def do_save(self, step: Step) -> None:
        if self.keeps():
            self.do_score(step)
            self.scorer.save_cache(self.file(step), cache_namespace=step.name)

    def do_load(self, step: Step) -> None:
        if self.keeps() and self.file(step).exists():
            try:
                self.scorer.load_cache(self.file(step), cache_namespace=step.name)
            except lmfusion.CacheBudgetError:
                pass
        self.do_score(step)

    def do_clear(self, step: Step) -> None:
        self.scorer.clear_cache()
        assert self.scorer.stats().cached_tokens == 0
        self.do_score(step)

    def do_reopen(self, step: Step) -> None:
        self.scorer = self.open()
        self.do_load(step)

    def do_threads(self, step: Step) -> None:
        asked = [self.asked(each) for each in (step, *step.more)]
        got: list[list[list[float | None]] | None] = [None] * len(asked)

        def call(i: int) -> None:
            got[i] = self.scorer.score_continuations(*asked[i], cache_namespace=step.name)

        threads = [threading.Thread(target=call, args=(i,)) for i in range(len(asked))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for (contexts, words), rows in zip(asked, got):
            assert rows is not None
            self.check(contexts, words, rows)


def common(one: list[int], other: list[int]) -> int:
    """Tokens that both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b),
                min(len(one), len(other)))
