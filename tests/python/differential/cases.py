"""What is called, as plain data, and how Hypothesis draws it."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from differential.worlds import World

STEMS = ["ca", "th", "i", "s", "an", "don't ", "n", "o", "yo"]
LETTERS = "tabcdefghijklmnopqrsuvwxyz"
WORDS = ["the", "cat", "i", "you", "and", "on", "i'm", "x", "naïve", "3", "1,234", "well-known",
         "a", "in", "the cat", "sat.", ".", "'s", "日本", "ไทย", "한국", "(so", "well-",
         "cafe\u0301", "\u00a0the", "the\n", "</s>", "🙂", "?!", "n't"]
LABELS = ["the", "cat", "i", "you", "and", "on", "a", "in", "sat", "日本", "'s", ""]  # of lattices
DEADLINES = [0.0, 0.0005, 0.005, 1e6]
QUESTIONS = ["score", "log_probs", "floor", "texts", "eos", "endings", "token_log_probs",
             "word_log_probs", "token_paths", "explain", "states", "best"]
KINDS = ["score", "score", "score", *QUESTIONS, "lattice", "deadline", "selfcheck", "prime", "save",
         "load", "clear", "reopen", "threads"]
BESIDE = [*QUESTIONS, "score", "prime", "save", "load", "clear"]  # in threads, at the same time


@dataclass(frozen=True)
class Settings:
    mode: str
    device: str
    casing: str
    boundary: str
    bos: str
    join: str
    special_tokens: str
    weight: float
    bonus: float
    max_batch_tokens: int
    max_context_length: int
    spare_tokens: int | None  # of the cache, beside the longest text; None: 1 GiB


@dataclass(frozen=True)
class Step:
    """A call. Of its fields, what each kind of call needs."""

    kind: str
    texts: tuple[int, ...]  # contexts, or texts, by their numbers
    words: tuple[str, ...]
    join: str | None = None
    context: tuple[str, ...] = ()  # earlier utterances
    prompt: str = ""
    name: str = ""  # of the namespace
    file: int = 0
    number: int = 0  # what else there is to choose follows from it
    more: tuple[Step, ...] = ()  # beside it, in threads of their own


@dataclass(frozen=True)
class Case:
    settings: Settings
    texts: tuple[str, ...]
    steps: tuple[Step, ...]


@st.composite
def cases(draw: st.DrawFn, world: World) -> Case:
    devices = ["cpu", "cpu", "cpu", "emulated"] if world.kept else ["cpu"]
    settings = Settings(
        draw(st.sampled_from(["tree", "tree", "tree", "grouped", "uncached"])),
        draw(st.sampled_from(devices)),
        draw(st.sampled_from(["none", "none", "sentence", "variants", "upper"])),
        draw(st.sampled_from(["plain", "word"] if world.spaces_begin_words else ["plain"])),
        draw(st.sampled_from(["<s>", "none", "</s>", "tokenizer"])),
        draw(st.sampled_from(["auto", "auto", "space", "none"])),
        draw(st.sampled_from(["text", "text", "allow"])),
        draw(st.sampled_from([1.0, 0.3, 2.5])), draw(st.sampled_from([0.0, -1.5, 0.75])),
        draw(st.sampled_from([512, 16, 7, 3, 1])), draw(st.sampled_from([512, 512, 11, 6])),
        draw(st.sampled_from([None, 0, 3, 20, 200])))
    texts = [""]
    for _ in range(draw(st.integers(1, 9))):
        begun = draw(st.sampled_from(texts))
        more = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=2))
        space = draw(st.sampled_from([" ", " ", " ", ""]))
        if len(begun) < 14:
            texts.append(space.join([*([begun.rstrip()] if begun else []), *more]))
    if draw(st.booleans()):
        texts.append(texts[-1] + " ")
    has_room = settings.max_context_length == 512 and (
        world.positions == 0 or world.positions > 200)
    steps = tuple(draw(step(len(texts), KINDS, has_room)) for _ in range(draw(st.integers(1, 8))))
    return Case(settings, tuple(texts), steps)


@st.composite
def step(draw: st.DrawFn, texts: int, kinds: list[str], has_room: bool) -> Step:
    """has_room: for what stands before a text, of which nothing is dropped then."""
    kind = draw(st.sampled_from(kinds))
    chosen = tuple(draw(st.lists(st.integers(0, texts - 1), min_size=1, max_size=12)))
    words = draw(st.lists(st.sampled_from(["", *WORDS]), max_size=4))
    for stem in draw(st.lists(st.sampled_from(STEMS), max_size=6, unique=True)):
        words += [stem + letter for letter in LETTERS[:draw(st.sampled_from([26, 1, 7]))]]
    context: list[str] = []
    prompt = ""
    if has_room and draw(st.integers(0, 3)) == 0:
        context = draw(st.lists(st.sampled_from(["", *WORDS]), max_size=3))
        prompt = draw(st.sampled_from(["", "the", "you: ", "i"]))
    more = tuple(draw(step(texts, BESIDE, has_room)) for _ in range(
        draw(st.integers(1, 3)))) if kind == "threads" else ()
    return Step(kind, chosen, tuple(words), draw(st.sampled_from([None, None, "space", "none"])),
                tuple(context), prompt, draw(st.sampled_from(["", "other"])),
                draw(st.integers(0, 1)), draw(st.integers(0, 999)), more)
