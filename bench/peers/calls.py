"""Recorded requests as token paths, so that every system scores the same tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmfusion import _core

Encode = Callable[[str], Sequence[int]]
# context, word -> the cased text, and how many characters of it are the context
Case = Callable[[str, str], tuple[str, int]]


@dataclass(frozen=True)
class TokenPath:
    """Tokens of which those from `scored_begin` (at least 1) on are scored."""

    ids: tuple[int, ...]
    scored_begin: int
    candidate: int  # whose score it is part of
    sign: float = 1.0


@dataclass(frozen=True)
class Call:
    """One request: as it was recorded, and as token paths."""

    utterance: int
    request: dict[str, object]
    paths: tuple[TokenPath, ...]
    group_sizes: tuple[int, ...]  # candidates of each context, which compete with each other

    @property
    def candidates(self) -> int:
        return sum(self.group_sizes)

    def totals(self, path_sums: Sequence[float]) -> list[float]:
        """[candidates] log p, nats, from those of the paths."""
        totals = [0.0] * self.candidates
        for path, value in zip(self.paths, path_sums, strict=True):
            totals[path.candidate] += path.sign * value
        return totals

    def scored_tokens(self) -> list[int]:
        """[candidates] how many tokens were scored."""
        counts = [0] * self.candidates
        for path in self.paths:
            counts[path.candidate] += len(path.ids) - path.scored_begin
        return counts


def no_casing(context: str, word: str) -> tuple[str, int]:
    """Joins as the library does, by its own rule (join="auto")."""
    return f"{context}{_core.separator(context, word, 'auto')}{word}", len(context)


WORD = re.compile(r"[^ \t\n\v\f\r]+")


def sentence_casing(context: str, word: str) -> tuple[str, int]:
    """Capitals for the first letter (unless a digit is before it) and i, i'm, i'll, i'd, i've."""
    text, length = no_casing(re.sub(WORD, _first_person, context), word)
    text = re.sub(WORD, _first_person, text)
    first = next((i for i, letter in enumerate(text) if letter.isalpha() or letter.isdecimal()), 0)
    capital = text[first:first + 1].title()
    if len(capital) == 1:  # a letter that keeps its place
        text = text[:first] + capital + text[first + 1:]
    return text, length


def _first_person(found: re.Match[str]) -> str:
    word = found[0]
    known = word.rstrip(".,?!;:") in ("i", "i'm", "i'll", "i'd", "i've")
    return "I" + word[1:] if known else word


@dataclass(frozen=True)
class Converter:
    """Requests to token paths, by the rules of the library (docs/boundaries.md)."""

    encode: Encode  # without start or end token
    start: int  # -1: none
    end: int  # -1: none
    case: Case = no_casing

    def call(self, request: dict[str, object]) -> Call:
        utterance = int(request.get("utt", 0))
        if "contexts" in request:
            words = request["candidate_words"]
            pairs = [(*self.case(context, word), False)
                     for context, row in zip(request["contexts"], words, strict=True)
                     for word in row]
            sizes = [len(row) for row in words]
        elif "endings" in request:
            pairs = [self._ending(text, ending) for text in request["texts"]
                     for ending in request["endings"]]
            sizes = [len(request["endings"])] * len(request["texts"])
        else:
            eos = bool(request.get("eos", False))
            pairs = [(*self.case("", text)[:1], 0, eos) for text in request["texts"]]
            sizes = [len(pairs)]
        paths = [path for index, pair in enumerate(pairs) for path in self._paths(*pair, index)]
        return Call(utterance, request, tuple(paths), tuple(sizes))

    def _ending(self, text: str, ending: str) -> tuple[str, int, bool]:
        cased = self.case("", text)[0]
        return cased + ending, len(cased), not ending

    def _ids(self, text: str) -> tuple[int, ...]:
        start = () if self.start < 0 else (self.start,)
        return (*start, *self.encode(text))

    def _paths(self, text: str, context_length: int, eos: bool,
               candidate: int) -> Iterable[TokenPath]:
        whole, context = self._ids(text), self._ids(text[:context_length])
        if eos and self.end >= 0:
            whole = (*whole, self.end)
        shared = 0
        while shared < min(len(whole), len(context)) and whole[shared] == context[shared]:
            shared += 1
        # The first token of a path has no probability.
        yield TokenPath(whole, min(max(shared, 1), len(whole)), candidate)
        if shared < len(context) and len(context) > 1:  # a token spans the join
            yield TokenPath(context, max(shared, 1), candidate, -1.0)


def read_calls(path: Path, converter: Converter, limit: int = 0) -> list[Call]:
    """The first `limit` requests (0: all) of a file of JSON lines.

    Raises:
        ValueError: a line is no request; names the line.
    """
    calls = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                calls.append(converter.call(json.loads(line)))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}:{number}: not a scoring request: {error!r}") from error
            if len(calls) == limit:
                break
    if not calls:
        raise ValueError(f"{path}: holds no requests")
    return calls
