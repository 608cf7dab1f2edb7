"""Decoders whose units are not words: when is a word complete, and what is it worth?"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lmfusion.scorer import LMFusionScorer
from lmfusion.state import State, StateScorer

# Note [Word ends]
# A recogniser's units (word pieces, characters) are not the language model's tokens, so a prefix
# is turned into text and a word is scored when it is complete: every unit that begins the next
# word carries log p(word before it | text), the unit that ends the text carries the last word and
# the end, and units within a word carry 0. The sum over a hypothesis is log p of its text,
# exactly, and one question a hypothesis gives the whole row over the vocabulary.


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
        # Units that begin a word (or are the space before one), and so end the word before.
        self.word_begins = [text.startswith(" ") for text in self._texts]

    def __len__(self) -> int:
        return len(self._texts)

    def split(self, ids: Sequence[int]) -> tuple[str, str]:
        """(the complete words, the last word if it is still open, else "")."""
        text = "".join(self._texts[index] for index in ids)
        before, _, word = text.rpartition(" ")
        return " ".join(before.split()), word


class WordEndScorer:
    """Scores prefixes of units at the ends of words; see Note [Word ends]. Nats."""

    def __init__(self, scorer: LMFusionScorer, pieces: Pieces,
                 endings: Sequence[str] = (".", "?", "!")) -> None:
        self.pieces = pieces
        self._states = StateScorer(scorer, endings=endings)

    def word_ends(self, prefixes: Sequence[Sequence[int]]) -> list[float]:
        """[prefixes] of log p(open word | words before it); 0 where no word is open."""
        splits = [self.pieces.split(prefix) for prefix in prefixes]
        scored = self._states.score_batch([(State(before), word) for before, word in splits])
        return [log_prob if word else 0.0 for (log_prob, _), (_, word) in zip(scored, splits)]

    def text_ends(self, prefixes: Sequence[Sequence[int]]) -> list[float]:
        """[prefixes] of log p(open word | words before) + log p(the text ends)."""
        states = [State(before).after(word) for before, word in map(self.pieces.split, prefixes)]
        return [word + end for word, end in zip(self.word_ends(prefixes),
                                                self._states.finish_batch(states))]

    def rows(self, prefixes: Sequence[Sequence[int]], end: int | None) -> list[list[float]]:
        """[prefixes][units]: what every next unit is worth; `end` is the unit that ends a text."""
        rows = [[word if begins else 0.0 for begins in self.pieces.word_begins]
                for word in self.word_ends(prefixes)]
        if end is not None:
            for row, log_prob in zip(rows, self.text_ends(prefixes)):
                row[end] = log_prob
        return rows
