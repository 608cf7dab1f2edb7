"""/v1/completions as OpenAI's clients send it: log-probabilities of a prompt, nothing generated.

`echo` with `logprobs` gives log p of every token of the prompt, from the token tree, whatever
other calls have asked. `max_tokens` is 0, or 1 for the likeliest next token.
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from lmfusion.likeliest import likeliest_tokens
from lmfusion.scorer import LMFusionScorer
from lmfusion.service.limits import Limits
from lmfusion.service.refusal import Refusal

Ids = list[int]


class Completion(BaseModel):
    """The request. What would change how a text is generated is taken and has no effect."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str | None = None
    prompt: str | list[str] | Ids | list[Ids]
    max_tokens: int = 16
    echo: bool = False
    logprobs: int | None = None
    n: int = 1
    best_of: int = 1
    stream: bool = False
    temperature: Annotated[float, Field(strict=False)] | None = None
    top_p: Any = None
    seed: Any = None
    stop: Any = None
    user: Any = None

    def candidates(self) -> int:
        """Prompts."""
        return len(self._prompts())

    def _prompts(self) -> list[Any]:
        """One text or list of ids each, all of one kind."""
        single = isinstance(self.prompt, str) or (
            bool(self.prompt) and isinstance(self.prompt[0], int))
        return [self.prompt] if single else list(self.prompt)

    def check(self) -> None:
        """Refuses what a service that scores cannot do.

        Raises:
            Refusal: with status 400.
        """
        for wrong, message in (
                (self.max_tokens not in (0, 1), f"max_tokens = {self.max_tokens}; 0 (score the "
                 "prompt) or 1 (and name the likeliest next token) expected: this service scores, "
                 "it does not generate"),
                (self.n != 1 or self.best_of != 1, "n and best_of must be 1"),
                (self.stream, "stream must be false"),
                (self.max_tokens == 1 and self.temperature not in (None, 0.0),
                 "with max_tokens = 1 the token is the likeliest one: temperature must be 0"),
                (self.max_tokens == 0 and not self.echo,
                 "max_tokens = 0 without echo asks for nothing; set echo to true"),
                (self.logprobs is not None and not 0 <= self.logprobs <= 20,
                 f"logprobs = {self.logprobs}; 0 to 20 expected")):
            if wrong:
                raise Refusal(400, "ValueError", message)

    def run(self, scorer: LMFusionScorer, namespace: str, model: str, limits: Limits) -> Any:
        """The answer."""
        self.check()
        prompts = self._prompts()
        texts = bool(prompts) and isinstance(prompts[0], str)
        rows = (_rows_of_texts(scorer, prompts, namespace) if texts
                else _rows_of_ids(scorer, prompts, namespace))
        self._check_positions(rows, limits)
        choices = [self._choice(scorer, namespace, index, prompt, row)
                   for index, (prompt, row) in enumerate(zip(prompts, rows))]
        tokens = sum(len(row.ids) for row in rows)
        return {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion",
                "created": int(time.time()), "model": model, "choices": choices,
                "usage": {"prompt_tokens": tokens,
                          "completion_tokens": self.max_tokens * len(rows),
                          "total_tokens": tokens + self.max_tokens * len(rows)}}

    def _check_positions(self, rows: list[_Row], limits: Limits) -> None:
        asked = self.max_tokens * len(rows)
        if self.logprobs and self.echo:
            asked += sum(log_prob is not None for row in rows for log_prob in row.log_probs)
        if asked > limits.positions:
            raise Refusal(400, "ValueError", f"the likeliest tokens of {asked} positions are asked "
                          f"for, which are scored with the whole vocabulary each; "
                          f"{limits.positions} are allowed: set logprobs to 0, or send less")

    def _choice(self, scorer: LMFusionScorer, namespace: str, index: int, prompt: str | Ids,
                row: _Row) -> dict[str, Any]:
        piece = scorer.tokenizer.piece
        ids: list[int] = []
        log_probs: list[float | None] = []
        top: list[dict[str, float] | None] = []
        if self.echo:
            ids, log_probs = list(row.ids), list(row.log_probs)
            if self.logprobs:
                begin = len(row.path) - len(ids)
                top = [None if log_probs[i] is None else self._top(
                    scorer, namespace, row.path[:begin + i]) for i in range(len(ids))]
        if self.max_tokens == 1:
            [(token, log_prob)] = likeliest_tokens(scorer, row.path, cache_namespace=namespace)
            ids.append(token)
            log_probs.append(log_prob)
            if self.logprobs:
                top.append(self._top(scorer, namespace, row.path))
        text = "".join(map(piece, ids[len(row.ids):] if self.echo else ids))
        if self.echo:
            text = (prompt if isinstance(prompt, str) else "".join(map(piece, prompt))) + text
        found = None if self.logprobs is None else {
            "tokens": list(map(piece, ids)), "token_ids": ids, "token_logprobs": log_probs,
            "top_logprobs": top or None, "text_offset": None}
        return {"index": index, "text": text, "logprobs": found, "finish_reason": "length"}

    def _top(self, scorer: LMFusionScorer, namespace: str, path: Ids) -> dict[str, float]:
        best = likeliest_tokens(scorer, path, self.logprobs or 0, cache_namespace=namespace)
        return {scorer.tokenizer.piece(token): log_prob for token, log_prob in best}


class _Row:
    """A prompt: its tokens, log p of each (None: nothing stands before it), and its path."""

    def __init__(self, ids: Ids, log_probs: list[float | None], path: Ids) -> None:
        self.ids, self.log_probs, self.path = ids, log_probs, path


def _rows_of_texts(scorer: LMFusionScorer, texts: Any, namespace: str) -> list[_Row]:
    """After the scorer's own start token, which is not shown."""
    start = [token.id for token in scorer.explain("", ".", cache_namespace=namespace).tokens
             if not token.scored]
    rows = []
    for tokens in scorer._core.token_log_probs(texts, namespace):
        ids = [token.id for token in tokens]
        rows.append(_Row(ids, [token.log_prob for token in tokens], [*start, *ids]))
    return rows


def _rows_of_ids(scorer: LMFusionScorer, prompts: list[Ids], namespace: str) -> list[_Row]:
    """As they are: the first token has nothing before it."""
    if not all(prompts):
        raise ValueError("a prompt of token ids is empty; at least one id expected")
    scored = scorer.score_token_paths(prompts, [1] * len(prompts), cache_namespace=namespace)
    return [_Row(ids, [None, *log_probs], ids) for ids, log_probs in zip(prompts, scored)]
