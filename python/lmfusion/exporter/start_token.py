"""The start token of a model, by measurement: the one after which it finds ordinary text likeliest.

What configurations call BOS is often a token of the chat template that texts never began with in
pre-training; there, the token that parted documents did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmfusion.exporter.tokenizer_file import StartToken, end_token, original_ids, start_token

SENTENCES = (
    "The train to the coast was late again this morning.",
    "She bought two apples and a loaf of bread at the market.",
    "I don't think we have met before, have we?",
    "After the storm, the whole village helped to repair the roof.",
    "Could you tell me where the nearest post office is?",
    "My grandfather kept bees behind the old stone house.",
    "The committee will publish its report at the end of the year.",
    "He laughed so hard that he spilled his coffee.",
    "Water boils at a lower temperature in the mountains.",
    "They painted the kitchen yellow because it gets so little light.",
    "There is a small museum next to the river.",
    "We should call a doctor if the fever does not go down.",
    "Most of the students had already finished their homework.",
    "Please put the books back on the shelf when you are done.",
    "The new bridge is twice as long as the old one.",
    "It rained all week, so the children played inside.",
    "Nobody knew who had left the letter on the table.",
    "In the evening we sat by the fire and told stories.",
    "The price of oil fell for the third month in a row.",
    "You can see the lighthouse from the top of the hill.",
)
MOST_CANDIDATES = 24
MARGIN = 0.1  # nats a token by which another token must be better than the declared one
KNOWS_TEXT = 0.5  # of log(vocabulary): a model that is worse does not know the sentences' language


@dataclass(frozen=True)
class Measured:
    """What the sentences cost after a start token, in nats a token."""

    token: str  # as the vocabulary writes it; "" for none
    id: int  # -1: none
    nats_per_token: float  # of all tokens; without start token, as `after_first`
    after_first: float  # of all but the first of each sentence, which has no score without one


def chosen_start_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None,
                       vocabulary_size: int, max_positions: int
                       ) -> tuple[StartToken, tuple[Measured, ...]]:
    """The start token, and what was measured, the best first; nothing without a tokenizer of
    transformers.

    A token that the tokenizer itself puts before texts stays. Otherwise the declared one (see
    `start_token`) gives way to another control token, or to none, that is better by `MARGIN`, if
    the model knows the language of the sentences at all.

    Args:
        model: in float32.
        max_positions: of the model; 0: no limit.

    Raises:
        ExportError: the tokenizer puts more than one token before a text.
    """
    declared = start_token(model, tokenizer, vocabulary_size)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):  # None, or a GGUF file's SentencePiece
        return declared, ()
    texts = [[token for token in original_ids(tokenizer, sentence)
              if token < vocabulary_size][:(max_positions or 64) - 1] for sentence in SENTENCES]
    texts = [text for text in texts if len(text) > 1]
    if not texts:
        return declared, ()
    table = [_measured(model, tokenizer, candidate, texts)
             for candidate in _candidates(model, tokenizer, declared, vocabulary_size)]
    now = next(row for row in table if row.id == declared.token_id)
    table.sort(key=lambda row: row.nats_per_token)
    best = min((row for row in table if row.id >= 0), key=lambda row: row.nats_per_token,
               default=now)
    if declared.tokenizer_adds_it or not best.nats_per_token < KNOWS_TEXT * math.log(
            vocabulary_size):
        return declared, tuple(table)
    none = next(row for row in table if row.id < 0)
    chosen = now if now.id >= 0 and now.nats_per_token < best.nats_per_token + MARGIN else best
    if none.after_first + MARGIN < chosen.after_first:
        chosen = none
    if chosen.id == declared.token_id:
        return declared, tuple(table)
    return StartToken(chosen.id, "measured", False), tuple(table)


def _candidates(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, declared: StartToken,
                vocabulary_size: int) -> list[int]:
    """The declared one, none, BOS and EOS, then the control tokens by their ids."""
    control = sorted({*tokenizer.all_special_ids, *(
        token for token, content in tokenizer.added_tokens_decoder.items() if content.special)})
    named = [model.config.get_text_config().bos_token_id, tokenizer.bos_token_id,
             end_token(model, tokenizer)]
    known = [token for token in (*named, *control)
             if isinstance(token, int) and 0 <= token < vocabulary_size]
    return list(dict.fromkeys([declared.token_id, -1, *known]))[:MOST_CANDIDATES]


def _measured(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, candidate: int,
              texts: Sequence[list[int]]) -> Measured:
    start = [candidate] if candidate >= 0 else []
    length = max(map(len, texts)) + len(start)
    ids = torch.zeros(len(texts), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)  # padded on the right, which no causal model sees
    for row, text in enumerate(texts):
        ids[row, :len(start) + len(text)] = torch.tensor(start + text)
        mask[row, :len(start) + len(text)] = 1
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    costs = -logits.log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    rows = [costs[row, :len(start) + len(text) - 1] for row, text in enumerate(texts)]
    after_first = torch.cat([row[len(start):] for row in rows]).mean().item()
    name = tokenizer.convert_ids_to_tokens(candidate) if start else ""
    return Measured(str(name), candidate, round(torch.cat(rows).mean().item(), 4),
                    round(after_first, 4))
