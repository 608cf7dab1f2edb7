"""What every number must be: the rules of docs/boundaries.md, docs/casing.md and docs/context.md,
written once more, over the original model's log-probabilities and the original tokenizer's ids."""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Sequence

import numpy as np

from differential.cases import Settings
from differential.worlds import World

BLANKS = ("Ġ", "Ċ", "ĉ", "č", "ċ", "Č")
CLITICS = ("'s", "n't", "'m")
CLOSING = ".?!,;:"
OPENING = "\"'“‘„‚«‹([{¿¡"
ASCII_SPACES = " \t\n\r\v\f"

Number = tuple[float, int]  # and the tokens that it is a sum over, at most


class Expected:
    """Numbers are 0 as long as a text is not known yet: `world.rows.ask()` then asks for all of
    those, so every question is put twice."""

    def __init__(self, world: World, settings: Settings) -> None:
        self.world, self.settings = world, settings
        self.start: list[int] = {"none": [], "<s>": [1], "</s>": [2],
                                 "tokenizer": world.tokenizer("")["input_ids"]}[settings.bos]
        self.most = settings.max_context_length
        if world.positions:
            self.most = min(self.most, world.positions - 1 - 16)
        # Of a text: the node before each token, the tokens, the node where its last word ends.
        self.plans: dict[tuple[str, bool], tuple[list[tuple[int, int]], int | None]] = {}
        self.totals: dict[tuple[str, bool], float] = {}  # where all was known
        self.words: dict[tuple[str, ...], tuple[list[tuple[str, str]], int]] = {}

    # Texts.

    def ids(self, text: str) -> list[int]:
        return self.world.ids(text, self.settings.special_tokens == "allow")

    def nodes(self, ids: Sequence[int]) -> list[int]:
        """What is read before each token of a text, and after all: the start token, for which there
        is always room, and what is kept of the text."""
        rows, block, last = self.world.rows, max(1, self.most // 4), -1
        nodes: list[int] = []
        for n in range(len(ids) + 1):
            dropped = 0 if n <= self.most else math.ceil((n - self.most) / block) * block
            nodes.append(rows.below(nodes[-1], ids[n - 1]) if dropped == last else
                         rows.node([*self.start, *ids[dropped:n]]))
            last = dropped
        return nodes

    def plan(self, text: str, eos: bool) -> tuple[list[tuple[int, int]], int | None]:
        known = self.plans.get((text, eos))
        if known is not None:
            return known
        ids = [*self.ids(text), *([2] if eos else [])]
        nodes = self.nodes(ids)
        scored = [(node, token) for node, token in zip(nodes, ids) if node != 0]
        ends = (self.settings.boundary == "word" and text and not text[-1].isspace() and not eos)
        plan = self.plans[text, eos] = scored, nodes[-1] if ends else None
        return plan

    def total(self, text: str, *, eos: bool = False) -> float:
        """L(text), or the tokens and the end of the text."""
        known = self.totals.get((text, eos))
        if known is not None:
            return known
        scored, end = self.plan(text, eos)
        row = self.world.rows.row
        missing = [node for node, _ in scored if node not in row]
        if end is not None and end not in row:
            missing.append(end)
        if missing:
            self.world.rows.needed.update(missing)
            return 0.0
        total = math.fsum(row[node].item(token) for node, token in scored)
        if end is not None:
            total += float(np.logaddexp.reduce(row[end][self.word_begins].astype(np.float64)))
        self.totals[text, eos] = total
        return total

    @functools.cached_property
    def word_begins(self) -> list[int]:
        """Tokens that begin with white space, and the end of text."""
        tokenizer = self.world.tokenizer
        pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        return [i for i, piece in enumerate(pieces) if i == 2 or piece.startswith(BLANKS)]

    def tokens(self, text: str, *, eos: bool = False) -> list[float]:
        """log p of each token; the first is left out where nothing is before it."""
        row = self.world.rows.row
        scored, _ = self.plan(text, eos)
        self.world.rows.needed.update(node for node, _ in scored if node not in row)
        return [row[node].item(token) if node in row else 0.0 for node, token in scored]

    # Words.

    def forms(self, context: str, word: str, join: str) -> list[tuple[str, str]]:
        """(text, its part that is the context) of every casing of a candidate."""
        space = separator(context, word, join)
        if self.settings.casing == "variants":
            forms = dict.fromkeys([word, capitalised(word), word.upper()])
            return [(context + space + form, context) for form in forms]
        if self.settings.casing == "sentence":
            begun = sentence(context)
            return [(begun + sentence(context + space + word)[len(context):], begun)]
        text = self.cased(context + space + word)
        return [(text, text[:len(context)])]

    def cased(self, text: str) -> str:
        """A whole text."""
        return {"none": str, "variants": str, "sentence": sentence,
                "upper": str.upper}[self.settings.casing](text)

    def after(self, before: str, text: str) -> str:
        """A text behind what stands before it."""
        return before + separator(before, first_word(text), self.settings.join) + text

    def history(self, prompt: str, context: Sequence[str]) -> str:
        for utterance in context:
            prompt = self.after(prompt, self.cased(utterance))
        return prompt

    def word(self, context: str, word: str, join: str | None = None, history: str = "") -> Number:
        """log p(word | history, context)."""
        join = join or self.settings.join
        key = context, word, join, history
        known = self.words.get(key)
        if known is None:
            forms = [(self.after(history, text), self.after(history, before))
                     for text, before in self.forms(context, word, join)]
            size = max(2 + len(self.ids(text)) + len(self.ids(before))
                       - 2 * common(self.ids(text), self.ids(before)) for text, before in forms)
            known = self.words[key] = forms, size
        forms, size = known
        gains = [self.total(text) - self.total(before) for text, before in forms]
        return (gains[0] if len(gains) == 1 else float(np.logaddexp.reduce(gains))), size

    def text(self, text: str, *, eos: bool = False, history: str = "") -> Number:
        """log p(text | history) of a whole text, cased."""
        whole = self.after(history, self.cased(text))
        number = self.total(whole, eos=eos) - self.total(history)
        return number, len(self.ids(whole)) + len(self.ids(history)) + 2

    def ending(self, text: str, ending: str, history: str = "") -> Number:
        """log p(ending | history, text); an empty ending is the end of the text."""
        cased = self.cased(text)
        whole = self.after(history, cased)
        number = (self.total(self.after(history, cased + ending)) if ending else
                  self.total(whole, eos=True))
        return number - self.total(whole), 2 * len(self.ids(whole)) + 3


def first_word(text: str) -> str:
    """Which decides how a text joins what stands before it."""
    end = next((i for i, letter in enumerate(text) if letter.isspace()), len(text))
    return text[:end] or text


def script(letters: str) -> str:
    """Of the nearest letter or digit, where white space does not come first."""
    for letter in letters:
        if letter.isspace():
            break
        if letter.isalnum() or unicodedata.category(letter) == "Lo":
            name = unicodedata.name(letter).split()[0]
            return name if name in ("CJK", "THAI", "HANGUL") else "spaced"
    return ""


def separator(context: str, word: str, join: str) -> str:
    """The rule as far as the words of the cases go."""
    if not context or not word or context[-1].isspace() or word[0].isspace() or join == "none":
        return ""
    if join == "space":
        return " "
    before, following = script(context[::-1]), script(word)
    if before == following == "THAI":
        return ""
    if "CJK" in (before, following) and "HANGUL" not in (before, following):
        return ""
    if word.lower().rstrip(CLOSING) in CLITICS or all(letter in CLOSING for letter in word):
        return ""
    if context[-1] == "(" or (context[-1] == "-" and len(context) > 1 and context[-2].isalnum()):
        return ""
    return " "


def sentence(text: str) -> str:
    """As `casing="sentence"` does, or what is done with the part of a text that comes first."""
    letters = list(text)
    for begin, letter in enumerate(letters):
        if letter == "i" and is_first_person(text, begin):
            letters[begin] = "I"
    first = next((i for i, letter in enumerate(letters) if letter.isalpha() or letter.isdigit()),
                 None)
    if first is not None:
        letters[first] = letters[first].title()
    return "".join(letters)


def is_first_person(text: str, at: int) -> bool:
    before = at
    while before > 0 and text[before - 1] in OPENING:
        before -= 1
    if before > 0 and text[before - 1] not in ASCII_SPACES:
        return False
    rest = next((text[at + 1:i] for i in range(at + 1, len(text)) if text[i] in ASCII_SPACES),
                text[at + 1:])
    if not rest or rest[0] in "'’" or rest[0] >= "\u0e00":
        return True
    return rest[0] not in "-/" and not any(letter.isalnum() for letter in rest)


def capitalised(word: str) -> str:
    first = next((i for i, letter in enumerate(word) if letter.isalnum()), None)
    return word if first is None else word[:first] + word[first].upper() + word[first + 1:]


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other)) if a != b),
                min(len(one), len(other)))
