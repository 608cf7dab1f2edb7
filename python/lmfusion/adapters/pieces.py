"""Decoders whose units are not words: when is a word complete, and what is it worth?"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lmfusion import _core
from lmfusion.scorer import LMFusionScorer
from lmfusion.state import State, StateScorer, join_of, joined

# Note [Word ends]
# A recogniser's units (word pieces, characters) are not the language model's tokens, so a prefix
# is turned into text and a word is scored when it is complete: every unit that begins the next
# word carries log p(word before it | text), the unit that ends the text carries the last word and
# the end, and units within a word carry 0. The sum over a hypothesis is log p of its text,
# exactly, and one question a hypothesis gives the whole row over the vocabulary.
# A unit begins a word if it begins with a space or with a character of a script that is written
# without spaces, or follows such a character: so each unit of Chinese, Japanese or Thai is a word
# of its own, and carries the unit before it.


class Pieces:
    """The units of a recogniser as text.

    Args:
        tokens: the text of each unit, e.g. ["<blank>", "▁the", "s"].
        space: what stands for a space: at the beginning of units ("▁"), or a unit of its own.
        special: units without text: blank, start, end, unknown.
    """

    def __init__(self, tokens: Sequence[str], *, space: str = "▁",
                 special: Collection[int] = ()) -> None:
        self._texts = ["" if index in special else token.replace(space, " ")
                       for index, token in enumerate(tokens)]
        self._end_words = [_core.written_without_spaces(text[-1:]) for text in self._texts]
        # Units that begin a word (or are the space before one) whatever is before them.
        self.word_begins = [text.startswith(" ") or _core.written_without_spaces(text)
                            for text in self._texts]

    def __len__(self) -> int:
        return len(self._texts)

    def begin_words(self, ids: Sequence[int]) -> list[bool]:
        """[units]: whether each begins a word after these."""
        last = next((index for index in reversed(ids) if self._texts[index]), None)
        if last is None or not self._end_words[last]:
            return self.word_begins
        return [bool(text) for text in self._texts]

    def split(self, ids: Sequence[int], join: str = "auto") -> tuple[str, str]:
        """(the complete words as a text, the last word if it is still open, else "").

        The open word follows that text as it is: what joins it is at its beginning. Words join
        by `join` where the units have a space, else without.
        """
        words = [""]
        ended = False
        for index in ids:
            text = self._texts[index]
            if not text:
                continue
            if ended or self.word_begins[index]:
                words.append("")
            words[-1] += text
            ended = self._end_words[index]
        before = after = ""
        for word in words:
            before = after
            bare = word.strip()
            after = joined(before, bare, join if word[:1].isspace() else "none")
        return before, after[len(before):]


class WordEndScorer:
    """Scores prefixes of units at the ends of words; see Note [Word ends]. Nats."""

    def __init__(self, scorer: LMFusionScorer, pieces: Pieces,
                 endings: Sequence[str] = (".", "?", "!")) -> None:
        self.pieces = pieces
        self._join = join_of(scorer)
        self._states = StateScorer(scorer, endings=endings, join="none")  # `split` joins

    def word_ends(self, prefixes: Sequence[Sequence[int]]) -> list[float]:
        """[prefixes] of log p(open word | words before it); 0 where no word is open."""
        splits = [self.pieces.split(prefix, self._join) for prefix in prefixes]
        scored = self._states.score_batch([(State(before), word) for before, word in splits])
        return [log_prob if word else 0.0 for (log_prob, _), (_, word) in zip(scored, splits)]

    def text_ends(self, prefixes: Sequence[Sequence[int]]) -> list[float]:
        """[prefixes] of log p(open word | words before) + log p(the text ends)."""
        states = [State("".join(self.pieces.split(prefix, self._join))) for prefix in prefixes]
        return [word + end for word, end in zip(self.word_ends(prefixes),
                                                self._states.finish_batch(states))]

    def rows(self, prefixes: Sequence[Sequence[int]], end: int | None) -> list[list[float]]:
        """[prefixes][units]: what every next unit is worth; `end` is the unit that ends a text."""
        rows = [[word if begins else 0.0 for begins in self.pieces.begin_words(prefix)]
                for word, prefix in zip(self.word_ends(prefixes), prefixes)]
        if end is not None:
            for row, log_prob in zip(rows, self.text_ends(prefixes)):
                row[end] = log_prob
        return rows
