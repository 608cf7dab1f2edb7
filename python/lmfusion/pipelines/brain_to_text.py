"""The rescorer of the brain-to-text benchmark (Neuroprosthetics-Lab/nejm-brain-to-text, its program
language_model/language-model-standalone.py), by the names and arguments that it has there:

    from lmfusion.pipelines.brain_to_text import build_opt, gpt2_lm_decode, rescore_with_gpt2

total = acoustic_scale * acoustic + (1 - alpha) * ngram + alpha * llm, where llm is the sum of log p
of the tokens that the tokenizer itself gives but the first, less length_penalty a token.

Two things differ. A model that fails raises its error: there, every hypothesis gets a zero. And an
empty hypothesis has no line in the n-best output: there, later lines get each other's scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmfusion import LMFusionScorer

ACOUSTIC_SCALE, ALPHA, LENGTH_PENALTY = 0.3, 0.5, 0.0  # the program's own defaults
MODEL = "facebook/opt-6.7b"


def build_opt(model_name: str = MODEL, cache_dir: str | None = None,
              device: str = "cpu") -> tuple[LMFusionScorer, None]:
    """The scorer, and None in place of a tokenizer: the scorer has its own.

    Args:
        model_name: any model of `LMFusionScorer.from_pretrained`.
        cache_dir: where its export is kept.
    """
    from lmfusion import LMFusionScorer
    return LMFusionScorer.from_pretrained(model_name, cache_dir=cache_dir, device=str(device),
                                          compat="hf"), None


def rescore_with_gpt2(model: LMFusionScorer, tokenizer: object, device: object,
                      hypotheses: Sequence[str], length_penalty: float = LENGTH_PENALTY
                      ) -> list[float]:
    """log p of texts (nats) as transformers has it: of all tokens but the first.

    Args:
        model: of `build_opt`, or any scorer with `compat="hf"`.
        tokenizer, device: not used.
        length_penalty: taken off for every token, the first one included.
    """
    del tokenizer, device
    # The first token is the start token, or one of the text: no log p in either case.
    return [math.fsum(log_prob for _, log_prob in row) - (len(row) + 1) * length_penalty
            for row in model.token_log_probs(list(hypotheses))]


def gpt2_lm_decode(model: LMFusionScorer, tokenizer: object, device: object,
                   nbest: Sequence[Sequence[Any]], acoustic_scale: float = ACOUSTIC_SCALE,
                   length_penalty: float = LENGTH_PENALTY, alpha: float = ALPHA,
                   returnConfidence: bool = False, current_context_str: str | None = None) -> Any:
    """The best text of an n-best list, and lines "text;acoustic;ngram;llm;total" in its order.

    Args:
        nbest: (text, acoustic score, n-gram score) of every hypothesis; empty texts are left out.
        returnConfidence: gives the best one's share of the probability as well.
        current_context_str: a text before every hypothesis; its log p counts, as there.

    Returns:
        (best text, lines) or (best text, lines, confidence); ("", []) or ("", [], 0.0) where no
        hypothesis has a text.
    """
    rows = [(str(text), float(acoustic), float(ngram)) for text, acoustic, ngram in nbest
            if str(text).strip()]
    if not rows:
        return ("", [], 0.0) if returnConfidence else ("", [])
    context = " ".join((current_context_str or "").split()) and f"{current_context_str} "
    texts = [_written(context + text.strip()) for text, _, _ in rows]
    scores = rescore_with_gpt2(model, tokenizer, device, texts, length_penalty)
    totals = [acoustic_scale * acoustic + (1 - alpha) * ngram + alpha * score
              for (_, acoustic, ngram), score in zip(rows, scores)]
    best = max(range(len(rows)), key=totals.__getitem__)
    lines = [";".join(map(str, (*row, score, total)))
             for row, score, total in zip(rows, scores, totals)]
    text = texts[best][len(context):] if context else texts[best]
    if not returnConfidence:
        return text, lines
    return text, lines, 1 / math.fsum(math.exp(total - totals[best]) for total in totals)


def _written(text: str) -> str:
    """Without the decoder's marks and spaces before punctuation."""
    for old, new in ((">", ""), ("  ", " "), (" ,", ","), (" .", "."), (" ?", "?")):
        text = text.replace(old, new)
    return text
