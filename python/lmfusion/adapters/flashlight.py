"""flashlight-text and torchaudio: `ctc_decoder(..., lm=FlashlightLM(scorer, words), ...)`."""

from __future__ import annotations

from collections.abc import Sequence

from flashlight.lib.text.decoder import LM, LMState

from lmfusion.scorer import LMFusionScorer
from lmfusion.state import State, StateScorer


class FlashlightLM(LM):
    """A word language model for flashlight's lexicon decoder.

    Scores are log p in nats; the decoder's own `lm_weight` and `word_score` are applied to them,
    not the scorer's. Building a decoder asks for every word from the start, which is one call of
    the model. After that it asks for one word at a time (its Python interface has no batch call;
    C++ decoders have one, see include/lmfusion/flashlight_lm.h). States are interned by
    their words, so hypotheses of the same words merge; `start` forgets those of the last utterance.

    Args:
        scorer: the scorer.
        words: the word of each index of the decoder's dictionary.
        unknown: the dictionary's entry for unknown words; it costs nothing here (the decoder has
            `unk_score`) and adds no text.
        endings: how an utterance ends; () scores no end.
    """

    def __init__(self, scorer: LMFusionScorer, words: Sequence[str], *, unknown: str = "<unk>",
                 endings: Sequence[str] = (".", "?", "!")) -> None:
        super().__init__()
        self._scorer = StateScorer(scorer, endings=endings)
        self._words = ["" if word == unknown else word for word in words]
        self._first: list[float] = []  # log p of each word at the start, once asked for
        self._known: dict[LMState, tuple[State, float]] = {}
        self._finish_index = len(self._words)  # the child of a state that stands for its end

    def start(self, start_with_nothing: bool) -> LMState:
        """The state before the first word."""
        del start_with_nothing
        root = LMState()
        self._known = {root: (self._scorer.start(), 0.0)}
        return root

    def score(self, state: LMState, token_index: int) -> tuple[LMState, float]:
        """The state after a word, and log p(word | state)."""
        if not 0 <= token_index < len(self._words):
            raise ValueError(f"word index {token_index} is not within the {len(self._words)} words "
                             "of the adapter; give it the decoder's own dictionary")
        child = state.child(token_index)
        if child not in self._known:
            before, word = self._known[state][0], self._words[token_index]
            if not word:
                self._known[child] = before, 0.0
            elif before == self._scorer.start():
                after = self._scorer.after(before, word)
                self._known[child] = after, self._first_words()[token_index]
            else:
                log_prob, after = self._scorer.score(before, word)
                self._known[child] = after, log_prob
        return child, self._known[child][1]

    def finish(self, state: LMState) -> tuple[LMState, float]:
        """The state after the end, and log p(end | state)."""
        child = state.child(self._finish_index)
        if child not in self._known:
            before = self._known[state][0]
            self._known[child] = before, self._scorer.finish(before)
        return child, self._known[child][1]

    def _first_words(self) -> list[float]:
        """[words] of log p(word | nothing), in one call the first time."""
        if not self._first:
            start = self._scorer.start()
            self._first = [log_prob for log_prob, _ in
                           self._scorer.score_batch([(start, word) for word in self._words])]
        return self._first
