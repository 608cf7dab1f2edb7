"""pyctcdecode's own search, with what it would prune anyway as floors of the language model.

Note [Floors of a beam search]
pyctcdecode scores all beams of a frame, then drops those more than `beam_prune_logp` below the best
and keeps the `beam_width` best of the rest. A beam's total is its acoustic score, which is known,
and what the language model adds. The totals that are known already (words scored in earlier frames)
bound both limits from below, so each new word has a floor: below it the beam is dropped whatever
else is found. The words of a frame are asked in one call with these floors; a beam below its floor
gets -inf, and is dropped. So the same beams survive with the same scores, and words that cannot
survive are not computed to their end. Where nothing is known (the first words, the ends of texts),
the most promising beam is asked first.
"""

from __future__ import annotations

import copy
import heapq
import math
from collections.abc import Sequence
from typing import Any

from pyctcdecode.decoder import BeamSearchDecoderCTC

from lmfusion.adapters.pyctcdecode import PyctcdecodeLM
from lmfusion.state import State

Key = tuple[str, bool]  # a text, and whether it ends there
ROUNDING = 1e-9  # of a floor, relative: what sums in another order may differ by


class FloorDecoder(BeamSearchDecoderCTC):
    """`BeamSearchDecoderCTC` with a `PyctcdecodeLM`: the same beams for less work.

    Also of `CombinedScorer`s, which compute all parts but are asked once a frame. Made for
    pyctcdecode 0.5.0, two of whose methods it extends. A language model of another kind is asked as
    ever.
    """

    _limits = (1, -math.inf)  # beam_width, beam_prune_logp

    def _decode_logits(self, logits: Any, beam_width: int, beam_prune_logp: float,
                       *arguments: Any, **options: Any) -> Any:
        call = copy.copy(self)  # several threads may decode at once
        call._limits = beam_width, beam_prune_logp
        return BeamSearchDecoderCTC._decode_logits(call, logits, beam_width, beam_prune_logp,
                                                   *arguments, **options)

    def _get_lm_beams(self, beams: Any, hotword_scorer: Any, cached_lm_scores: Any,
                      cached_partial_token_scores: Any, is_eos: bool = False) -> Any:
        given = (beams, hotword_scorer, cached_lm_scores, cached_partial_token_scores, is_eos)
        if not isinstance(self._language_model, PyctcdecodeLM):
            return super()._get_lm_beams(*given)
        _ask(self._language_model, self._limits, *given)
        try:
            return super()._get_lm_beams(*given)
        finally:  # what is below a floor now may be asked again, under another
            for key in [key for key, found in cached_lm_scores.items() if found[1] == -math.inf]:
                del cached_lm_scores[key]


def _ask(lm: PyctcdecodeLM, limits: tuple[int, float], beams: Any, hotwords: Any, cached: Any,
         partial_scores: Any, is_eos: bool) -> None:
    """Puts the words of all beams into `cached`, those below their floors with -inf."""
    known: list[float] = []  # totals
    rest: dict[Key, float] = {}  # what a new text's best beam has beside the new word
    questions: dict[Key, tuple[State, str, bool]] = {}
    for text, word, part, _, _, _, logit_score in beams:
        key = (f"{text} {word}" if text and word else text or word, is_eos)
        other = logit_score + _partial(lm, hotwords, partial_scores, part)
        if key in cached:
            known.append(other + cached[key][0])
            continue
        _, before, state = cached[(text, False)]
        questions[key] = state, word, is_eos
        rest[key] = max(rest.get(key, -math.inf), other + before + hotwords.score(key[0]))
    keys = sorted(questions, key=lambda key: -rest[key])
    if not known and len(keys) > 1:
        [first] = lm.score_batch([questions[keys[0]]], [-math.inf])
        known.append(rest[keys[0]] + first[0])
        _keep(cached, keys[:1], questions, [first], hotwords)
        keys = keys[1:]
    floor = _floor(known, *limits)
    scored = lm.score_batch([questions[key] for key in keys], [floor - rest[key] for key in keys])
    _keep(cached, keys, questions, scored, hotwords)


def _keep(cached: Any, keys: Sequence[Key], questions: dict[Key, tuple[State, str, bool]],
          scored: Sequence[tuple[float, State]], hotwords: Any) -> None:
    for key, (score, state) in zip(keys, scored, strict=True):
        raw = cached[(questions[key][0].text, False)][1] + score
        cached[key] = raw + hotwords.score(key[0]), raw, state


def _floor(known: list[float], beam_width: int, beam_prune_logp: float) -> float:
    """A beam whose total is below this is dropped, whatever the others have."""
    if not known:
        return -math.inf
    floor = max(known) + beam_prune_logp
    if len(known) >= beam_width:
        floor = max(floor, heapq.nlargest(beam_width, known)[-1])
    return floor - ROUNDING * (1 + abs(floor))


def _partial(lm: PyctcdecodeLM, hotwords: Any, partial_scores: Any, part: str) -> float:
    """What the beginning of a word adds, as pyctcdecode computes and keeps it."""
    if not part:
        return 0.0
    if part not in partial_scores:
        partial_scores[part] = (hotwords.score_partial_token(part) if part in hotwords
                                else lm.score_partial_token(part))
    return float(partial_scores[part])
