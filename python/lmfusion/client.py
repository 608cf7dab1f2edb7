"""`Client`: a scorer that runs somewhere else, behind `lmfusion serve`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, Self

from lmfusion import _core
from lmfusion.errors import Error, ServiceError
from lmfusion.scorer import Floor
from lmfusion.service.connection import Connection, TooLate
from lmfusion.service.wire import number
from lmfusion.words import nats

CANDIDATES = 2048  # of one request, so that others have their turn in between
CHARACTERS = 1 << 19  # likewise


class Client:
    """The scoring methods of `LMFusionScorer`, answered by a service with the same numbers.

        scorer = lmfusion.Client("http://gpu:8000")  # was: lmfusion.LMFusionScorer("model.lmf")

    What needs the scorer itself is not there: `best`, `best_path`, `best_paths`, states, `explain`,
    files of the cache, and the arguments `context`, `prompt` and `progress`.

    Thread safe. Long calls are sent in several requests. What was lost on the way (a connection, a
    service that is busy or restarts) is asked again, since an answer depends on nothing but its
    question. Where that does not help there is a `ServiceError`, whose `result` has what was scored
    and None for the rest. Errors of the scorer are raised as it would raise them here.

    Args:
        url: of the service.
        token: what the service knows the caller by; its calls share a cache with no other's.
        weight, word_insertion_bonus: of `score_continuations`; None: those the service was
            started with.
        timeout: seconds that one answer may take.
        retry_seconds: how long a request is tried again after its first failure.
    """

    def __init__(self, url: str, *, token: str | None = None, weight: float | None = None,
                 word_insertion_bonus: float | None = None, timeout: float = 120.0,
                 retry_seconds: float = 30.0) -> None:
        self._connection = Connection(url.rstrip("/"), token, timeout, retry_seconds)
        self._weight, self._bonus = weight, word_insertion_bonus
        self._model: dict[str, Any] | None = None

    def score_continuations(self, contexts: Sequence[str],
                            candidate_words: Sequence[Sequence[str]], *,
                            floor: Floor | None = None, deadline: float | None = None,
                            fallback: Callable[[str, str], float] | None = None,
                            cache_namespace: str = "") -> list[list[float | None]]:
        """As `LMFusionScorer.score_continuations`.

        The deadline counts the way there and back, the queue and the scoring. What has no answer by
        then, whatever the reason, gets None or what `fallback` says.
        """
        weight, bonus = self.weight, self.word_insertion_bonus
        return self._continuations(
            "score_continuations", contexts, candidate_words, floor, deadline, cache_namespace,
            None if fallback is None else
            lambda context, word: weight * fallback(context, word) + bonus,
            weight=weight, word_insertion_bonus=bonus)

    def log_probs(self, contexts: Sequence[str], candidate_words: Sequence[Sequence[str]], *,
                  floor: Floor | None = None, deadline: float | None = None,
                  fallback: Callable[[str, str], float] | None = None, base: float = math.e,
                  cache_namespace: str = "") -> list[list[float | None]]:
        """As `LMFusionScorer.log_probs`; for the deadline see `score_continuations`."""
        unit = nats(base)
        rows = self._continuations("log_probs", contexts, candidate_words, floor, deadline,
                                   cache_namespace, fallback)
        return [[None if log_prob is None else log_prob / unit for log_prob in row]
                for row in rows]

    def score_texts(self, texts: Sequence[str], *, eos: bool = False, base: float = math.e,
                    cache_namespace: str = "") -> list[float]:
        """As `LMFusionScorer.score_texts`."""
        unit = nats(base)
        return [number(each) / unit for each in self._of_texts(
            "score_texts", texts, eos=eos, cache_namespace=cache_namespace)]

    def score_texts_batch(self, texts: Sequence[str], chunk_size: int = 256,
                          length_normalize: bool = False, *,
                          cache_namespace: str = "") -> list[float]:
        """As `LMFusionScorer.score_texts_batch`."""
        del chunk_size
        return list(map(number, self._of_texts(
            "score_texts_batch", texts, length_normalize=length_normalize,
            cache_namespace=cache_namespace)))

    def score_endings(self, texts: Sequence[str], endings: Sequence[str] = (".", "?", "!"), *,
                      base: float = math.e, cache_namespace: str = "") -> list[list[float]]:
        """As `LMFusionScorer.score_endings`."""
        unit = nats(base)
        rows = self._of_texts("score_endings", texts, endings=_texts("endings", endings),
                              cache_namespace=cache_namespace)
        return [[number(log_prob) / unit for log_prob in row] for row in rows]

    def token_log_probs(self, texts: Sequence[str], *, base: float = math.e,
                        cache_namespace: str = "") -> list[list[tuple[str, float]]]:
        """As `LMFusionScorer.token_log_probs`."""
        return self._pairs("token_log_probs", texts, base, cache_namespace)

    def word_log_probs(self, texts: Sequence[str], *, base: float = math.e,
                       cache_namespace: str = "") -> list[list[tuple[str, float]]]:
        """As `LMFusionScorer.word_log_probs`."""
        return self._pairs("word_log_probs", texts, base, cache_namespace)

    def perplexity(self, texts: Sequence[str], *, cache_namespace: str = "") -> list[float]:
        """As `LMFusionScorer.perplexity`."""
        return list(map(number, self._of_texts("perplexity", texts,
                                               cache_namespace=cache_namespace)))

    def score_token_paths(self, paths: Sequence[Sequence[int]], scored_begin: Sequence[int], *,
                          cache_namespace: str = "") -> list[list[float]]:
        """As `LMFusionScorer.score_token_paths`."""
        paths, begins = [list(map(int, path)) for path in paths], list(map(int, scored_begin))
        _same_length("paths", paths, "scored_begin", begins)
        rows = self._in_pieces("score_token_paths", [1] * len(paths), [len(path) for path in paths],
                               lambda some: {"paths": paths[some], "scored_begin": begins[some],
                                             "cache_namespace": cache_namespace})
        return [list(map(number, row)) for row in rows]

    def prime(self, contexts: Sequence[str] = (), *, vocabulary: Sequence[str] = (),
              after: Sequence[str] = ("",), cache_namespace: str = "") -> int:
        """As `LMFusionScorer.prime`, in the service's cache."""
        document = {"contexts": _texts("contexts", contexts),
                    "vocabulary": _texts("vocabulary", vocabulary),
                    "after": _texts("after", after), "cache_namespace": cache_namespace}
        return int(self._connection.post("/prime", document)["result"])

    def aggregate_homophone_scores(self, scores: Sequence[float]) -> float:
        """As `LMFusionScorer.aggregate_homophone_scores`, by the service's option; no request."""
        if len(scores) == 0:
            raise ValueError("there are no scores to aggregate; one at least expected")
        logsumexp = self.options["homophone_aggregation"] == "logsumexp"
        return _core.log_sum_exp(scores) if logsumexp else max(scores)

    def stats(self) -> RemoteStats:
        """The counters of the service, of all its clients."""
        return RemoteStats(**self._connection.get("/stats"))

    @property
    def weight(self) -> float:
        """Factor of log p in a score. May be set, for this client."""
        return float(self.options["weight"]) if self._weight is None else self._weight

    @weight.setter
    def weight(self, weight: float) -> None:
        self._weight = weight

    @property
    def word_insertion_bonus(self) -> float:
        """Added to the score of every word. May be set, for this client."""
        return (float(self.options["word_insertion_bonus"]) if self._bonus is None
                else self._bonus)

    @word_insertion_bonus.setter
    def word_insertion_bonus(self, bonus: float) -> None:
        self._bonus = bonus

    @property
    def options(self) -> dict[str, Any]:
        """What the service's scorer was opened with, as far as it is numbers and names."""
        return dict(self._described()["options"])

    @property
    def description(self) -> dict[str, Any]:
        """The model's description, numbers and names of it."""
        return dict(self._described()["description"])

    def close(self) -> None:
        """Closes the connections. Also at the end of `with Client(...) as scorer:`."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._connection.url!r})"

    def _described(self) -> dict[str, Any]:
        if self._model is None:
            self._model = self._connection.get("/v1/models")["data"][0]
        return self._model

    def _continuations(self, name: str, contexts: Sequence[str],
                       candidate_words: Sequence[Sequence[str]], floor: Floor | None,
                       deadline: float | None, cache_namespace: str,
                       fallback: Callable[[str, str], float] | None, **more: Any
                       ) -> list[list[float | None]]:
        contexts = _texts("contexts", contexts)
        words = [_texts(f"candidate_words[{i}]", row)
                 for i, row in enumerate(_list("candidate_words", candidate_words))]
        if len(contexts) != len(words):
            raise ValueError(f"{len(contexts)} contexts and {len(words)} lists of candidate words; "
                             "one list a context expected")
        floors = _floors(floor)
        if isinstance(floors, list):
            _same_length("floor", floors, "candidate_words", words)

        def document(some: slice) -> dict[str, Any]:
            return {"contexts": contexts[some], "candidate_words": words[some],
                    "floor": floors[some] if isinstance(floors, list) else floors,
                    "cache_namespace": cache_namespace, **more}

        sizes = [len(context) + sum(map(len, row)) for context, row in zip(contexts, words)]
        rows = self._in_pieces(name, list(map(len, words)), sizes, document, deadline,
                               lambda some: [[None] * len(row) for row in words[some]])
        return [[float(score) if score is not None
                 else None if fallback is None else fallback(context, word)
                 for score, word in zip(scores, row)]
                for context, row, scores in zip(contexts, words, rows)]

    def _of_texts(self, name: str, texts: Sequence[str], **more: Any) -> list[Any]:
        texts = _texts("texts", texts)
        return self._in_pieces(name, [1] * len(texts), list(map(len, texts)),
                               lambda some: {"texts": texts[some], **more})

    def _pairs(self, name: str, texts: Sequence[str], base: float, cache_namespace: str
               ) -> list[list[tuple[str, float]]]:
        unit = nats(base)
        return [[(piece, number(log_prob) / unit) for piece, log_prob in row]
                for row in self._of_texts(name, texts, cache_namespace=cache_namespace)]

    def _in_pieces(self, name: str, counts: list[int], sizes: list[int],
                   document: Callable[[slice], dict[str, Any]], deadline: float | None = None,
                   unscored: Callable[[slice], list[Any]] | None = None) -> list[Any]:
        """The rows of all requests, in order.

        Args:
            counts, sizes: [rows] of candidates and of characters.
            document: of the rows of a slice.
            deadline: seconds from now; `unscored` rows stand for what it cuts off.
        """
        if deadline is not None and math.isnan(deadline):
            raise ValueError("deadline = nan; a number of seconds expected")
        until = None if deadline is None else time.monotonic() + deadline
        rows: list[Any] = []
        for some in _pieces(counts, sizes):
            try:
                rows += self._connection.post(f"/{name}", document(some), until)["result"]
            except TooLate:
                if unscored is None:
                    raise
                rows += unscored(some)
            except ServiceError as error:
                error.result = rows + [None] * (len(counts) - len(rows))
                error.args = (f"{error.args[0]} ({len(rows)} of {len(counts)} rows were scored)",)
                raise
            except (Error, ValueError, TypeError) as error:
                if some.start:
                    error.add_note(f"in the rows {some.start} to {some.stop - 1} of the call")
                raise
        return rows


class RemoteStats(SimpleNamespace):
    """The counters of docs/reference.md as attributes."""

    def to_dict(self) -> dict[str, Any]:
        """name -> value."""
        return dict(vars(self))

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(vars(self))


def _pieces(counts: list[int], sizes: list[int]) -> Iterator[slice]:
    """Slices of rows that fit into a request each; a row is never cut."""
    begin = count = size = 0
    for i in range(len(counts)):
        if i > begin and (count + counts[i] > CANDIDATES or size + sizes[i] > CHARACTERS
                          or i - begin >= CANDIDATES):
            yield slice(begin, i)
            begin, count, size = i, 0, 0
        count += counts[i]
        size += sizes[i]
    if begin < len(counts):
        yield slice(begin, len(counts))


def _list(name: str, values: Any) -> list[Any]:
    if not isinstance(values, (list, tuple)) and not hasattr(values, "tolist"):
        raise TypeError(f"{name}: {type(values).__name__} found; a list expected")
    return list(values)


def _texts(name: str, values: Any) -> list[str]:
    """A list of texts, or the error that the scorer would raise."""
    if isinstance(values, (str, bytes, dict, set, frozenset)) or not isinstance(values, Sequence):
        raise TypeError(f"{name}: {type(values).__name__} found; a list of str expected")
    texts = list(values)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{i}]: {type(text).__name__} found; a str expected")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise _core.TextError(f"{name}[{i}] is not valid Unicode: a lone surrogate at "
                                  f"character {error.start}") from None
    return texts


def _floors(floor: Floor | None) -> Any:
    """Numbers as JSON takes them: json writes -inf as -Infinity, which the service reads."""
    if floor is None or isinstance(floor, (int, float)):
        return floor
    return [list(map(float, row)) for row in floor]


def _same_length(name: str, values: list[Any], other: str, others: list[Any]) -> None:
    if len(values) != len(others):
        raise ValueError(f"{name} has {len(values)} rows for {len(others)} of {other}; "
                         "as many expected")
