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

# Note [Open words]
# A search that knows no lexicon finds that a word costs nothing until it ends, and never ends one.
# With `open_words` a word is scored while it is open, as if it ended here: every unit after a
# prefix carries what the prefix's last unit changed, log p(text) - log p(text without that unit).
# It is the same for all units, needs no question that Note [Word ends] does not ask, and is late by
# one unit; the end is not late, so the sum over a hypothesis is log p of its text again.


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
    """Scores prefixes of units at the ends of words; see Note [Word ends]. Nats.

    Args:
        open_words: score words while they are open too; see Note [Open words].
    """

    def __init__(self, scorer: LMFusionScorer, pieces: Pieces,
                 endings: Sequence[str] = (".", "?", "!"), *, open_words: bool = False) -> None:
        self.pieces = pieces
        self._open_words = open_words
        self._join = join_of(scorer)
        self._states = StateScorer(scorer, endings=endings, join="none")  # `split` joins

    def word_ends(self, prefixes: Sequence[Sequence[int]]) -> list[float]:
        """[prefixes] of log p(open word | words before it); 0 where no word is open."""
        splits = [self.pieces.split(prefix, self._join) for prefix in prefixes]
        scored = self._states.score_batch([(State(before), word) for before, word in splits])
        return [log_prob if word else 0.0 for (log_prob, _), (_, word) in zip(scored, splits)]

    def text_ends(self, prefixes: Sequence[Sequence[int]]) -> list[float]:
        """[prefixes] of what is left to score when the text ends here: the open word, the end."""
        return [left + end for left, end in zip(self._left(prefixes), self._ends(prefixes))]

    def rows(self, prefixes: Sequence[Sequence[int]], end: int | None) -> list[list[float]]:
        """[prefixes][units]: what every next unit is worth; `end` is the unit that ends a text."""
        left = self._left(prefixes)
        if self._open_words:
            rows = [[change] * len(self.pieces) for change in left]
        else:
            rows = [[word if begins else 0.0 for begins in self.pieces.begin_words(prefix)]
                    for word, prefix in zip(left, prefixes)]
        if end is not None:
            for row, word, log_prob in zip(rows, left, self._ends(prefixes)):
                row[end] = word + log_prob
        return rows

    def _left(self, prefixes: Sequence[Sequence[int]]) -> list[float]:
        """[prefixes] of log p of what no unit of the prefix carries: its open word, or, of open
        words, what its last unit changed."""
        if not self._open_words:
            return self.word_ends(prefixes)
        shorter = [prefix[:-1] for prefix in prefixes]
        log_probs = self.word_ends([*prefixes, *shorter])
        splits = [self.pieces.split(prefix, self._join) for prefix in (*prefixes, *shorter)]
        count = len(prefixes)
        return [after - (before if splits[i][0] == splits[count + i][0] else 0.0)
                for i, (after, before) in enumerate(zip(log_probs, log_probs[count:]))]

    def _ends(self, prefixes: Sequence[Sequence[int]]) -> list[float]:
        """[prefixes] of log p(the text ends)."""
        return self._states.finish_batch(
            [State("".join(self.pieces.split(prefix, self._join))) for prefix in prefixes])
