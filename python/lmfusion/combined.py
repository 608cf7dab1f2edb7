"""More than one model in the score: a log-linear sum with a weight each."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

from lmfusion import _core
from lmfusion.arguments import check_number, check_progress, check_shape
from lmfusion.combined_best import CombinedSearch, Model, check_best
from lmfusion.combined_tokens import CombinedExplanation, summed_tokens
from lmfusion.ngram import NGram
from lmfusion.phrases import PhraseList, Ragged
from lmfusion.scorer import Floor, LMFusionScorer, Progress, needs_deadline
from lmfusion.words import by_words, nats

if TYPE_CHECKING:
    from lmfusion.lattice import BestPaths, Lattice

__all__ = ["CombinedExplanation", "CombinedScorer", "Component", "NGram"]

# What a scorer has and a combination cannot have, with the reason.
_OF_ONE_MODEL = {
    "score_token_paths": "token ids are of one model's vocabulary",
    "tokenizer": "every model has its own",
    "save_cache": "a cache file is of one model",
    "load_cache": "a cache file is of one model",
    "description": "it describes one model file",
    "options": "every model has its own",
    "device": "every model has its own",
    "to": "every model has its own device",
    "weight": "there is one a model, `weights`",
}


class Component(Protocol):
    """A model of a combination; `LMFusionScorer`, `NGram` and `PhraseList` are."""

    def log_probs(self, contexts: Sequence[str],
                  candidate_words: Sequence[Sequence[str]]) -> list[list[Any]]: ...  # floats

    def score_texts(self, texts: Sequence[str]) -> list[float]: ...


class CombinedScorer:
    """score = sum over models of weight * part + word_insertion_bonus, per candidate word.

    Language models (`LMFusionScorer`) are asked one after another, the others then. Of what stands
    before a text, `context` and `prompt`, they read all; other models see each text alone.

    Args:
        components: the models by name.
        weights: one a model; may be changed at any time.
        word_insertion_bonus: added to every word.
        homophone_aggregation: "max" or "logsumexp", for `aggregate_homophone_scores`.

    What only one model can have is asked of that one, `components[name]`: its token ids and
    tokenizer, options, device, description, and the file of its cache. Asking the combination is an
    `AttributeError` that says so.

    Raises:
        ValueError: `weights` names other models than `components`, or is not finite;
            `homophone_aggregation` is unknown.
        TypeError: a weight is no number.
    """

    __slots__ = ("components", "homophone_aggregation", "weights", "word_insertion_bonus")

    def __init__(self, components: Mapping[str, Component], weights: Mapping[str, float], *,
                 word_insertion_bonus: float = 0.0, homophone_aggregation: str = "max") -> None:
        if set(components) != set(weights):
            raise ValueError(f"weights of {sorted(weights)} for the models {sorted(components)}; "
                             "one weight a model expected")
        self.components = dict(components)
        self.weights = {name: check_number(weight, f"weights[{name!r}]")
                        for name, weight in weights.items()}
        self.word_insertion_bonus = check_number(word_insertion_bonus, "word_insertion_bonus")
        if homophone_aggregation not in ("max", "logsumexp"):
            raise ValueError(f'homophone_aggregation = {homophone_aggregation!r}; "max" or '
                             '"logsumexp" expected')
        self.homophone_aggregation = homophone_aggregation

    if not TYPE_CHECKING:
        def __getattr__(self, name: str) -> object:
            if name in _OF_ONE_MODEL:
                raise AttributeError(f"a CombinedScorer has no {name}: {_OF_ONE_MODEL[name]}; "
                                     f"components[NAME].{name} is one model's")
            raise AttributeError(f"'CombinedScorer' object has no attribute {name!r}")

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={weight!r} * {self.components[name]!r}"
                          for name, weight in self.weights.items())
        return f"CombinedScorer({parts}, word_insertion_bonus={self.word_insertion_bonus!r})"

    def parts(self, contexts: Sequence[str], candidate_words: Sequence[Sequence[str]], *,
              deadline: float | None = None, join: str | None = None,
              context: str | Sequence[str] = (), prompt: str = "", cache_namespace: str = "",
              progress: Progress | None = None) -> dict[str, Ragged]:
        """What each model says, unweighted: name -> [contexts][candidates].

        Args:
            deadline: seconds, for the language models together; what is not scored by then is NaN.
            join: how words join their contexts, in place of each model's own.
            context, prompt, cache_namespace: of the language models, as
                `LMFusionScorer.score_continuations`.
            progress: the same; candidates count once for each language model.
        """
        until = math.inf if deadline is None else time.monotonic() + deadline
        shares = self._shares(progress)
        parts = {}
        for name, component in self.components.items():
            if isinstance(component, LMFusionScorer):
                left = None if deadline is None else until - time.monotonic()
                scored = component.log_probs(
                    contexts, candidate_words, deadline=left, join=join, context=context,
                    prompt=prompt, cache_namespace=cache_namespace, progress=next(shares))
                parts[name] = [[math.nan if part is None else part for part in row]
                               for row in scored]
            else:
                parts[name] = self._other_parts(component, contexts, candidate_words, join)
        return parts

    def combine(self, parts: Mapping[str, Ragged], *, weights: Mapping[str, float] | None = None,
                word_insertion_bonus: float | None = None) -> Ragged:
        """The scores of `parts` under these or other weights; asks no model."""
        weights = self.weights if weights is None else weights
        bonus = self.word_insertion_bonus if word_insertion_bonus is None else word_insertion_bonus
        weighted = [(weight, parts[name]) for name, weight in weights.items()]
        shape: Ragged = next(iter(parts.values()), [])
        return [[sum(weight * part[i][j] for weight, part in weighted) + bonus
                 for j in range(len(row))] for i, row in enumerate(shape)]

    def score_continuations(self, contexts: Sequence[str],
                            candidate_words: Sequence[Sequence[str]], *,
                            floor: Floor | None = None, deadline: float | None = None,
                            fallback: Callable[[str, str], float] | None = None,
                            join: str | None = None, context: str | Sequence[str] = (),
                            prompt: str = "", cache_namespace: str = "",
                            progress: Progress | None = None) -> list[list[float | None]]:
        """[contexts][candidates], as `LMFusionScorer.score_continuations`.

        A floor is compared with the whole sum, so it saves no work; what a deadline left unscored
        is None, or where there is a `fallback(context, word)`, what it says plus the bonus.

        Raises:
            ValueError: a fallback without a deadline.
        """
        return self._scores(contexts, candidate_words, self.word_insertion_bonus, floor, fallback,
                            deadline=deadline, join=join, context=context, prompt=prompt,
                            cache_namespace=cache_namespace, progress=progress)

    def log_probs(self, contexts: Sequence[str], candidate_words: Sequence[Sequence[str]], *,
                  floor: Floor | None = None, deadline: float | None = None,
                  fallback: Callable[[str, str], float] | None = None, join: str | None = None,
                  context: str | Sequence[str] = (), prompt: str = "", base: float = math.e,
                  cache_namespace: str = "",
                  progress: Progress | None = None) -> list[list[float | None]]:
        """The same without the bonus, to this base; so a `StateScorer` takes this too."""
        unit = nats(base)
        rows = self._scores(contexts, candidate_words, 0.0, floor, fallback,
                            deadline=deadline, join=join, context=context, prompt=prompt,
                            cache_namespace=cache_namespace, progress=progress)
        return [[None if score is None else score / unit for score in row] for row in rows]

    def score_endings(self, texts: Sequence[str], endings: Sequence[str] = (".", "?", "!"), *,
                      context: str | Sequence[str] = (), prompt: str = "", base: float = math.e,
                      cache_namespace: str = "", progress: Progress | None = None) -> Ragged:
        """[texts][endings], weighted, of the models that know of endings; an `NGram` does not."""
        unit = nats(base)
        given = {"context": context, "prompt": prompt, "cache_namespace": cache_namespace}
        shares = self._shares(progress)
        total = [[0.0] * len(endings) for _ in texts]
        for name, weight in self.weights.items():
            component: Any = self.components[name]
            if hasattr(component, "score_endings"):
                mine = ({**given, "progress": next(shares)}
                        if isinstance(component, LMFusionScorer) else {})
                part = component.score_endings(texts, endings, **mine)
                total = [[a + weight / unit * b for a, b in zip(*rows)]
                         for rows in zip(total, part)]
        return total

    def score_texts(self, texts: Sequence[str], *, eos: bool = False, base: float = math.e,
                    context: str | Sequence[str] = (), prompt: str = "",
                    cache_namespace: str = "",
                    progress: Progress | None = None) -> list[float]:
        """The weighted sum of whole texts, without the bonus; `eos`: language models end them."""
        unit = nats(base)
        given = {"eos": eos, "context": context, "prompt": prompt,
                 "cache_namespace": cache_namespace}
        shares = self._shares(progress)
        parts = []
        for name, weight in self.weights.items():
            component: Any = self.components[name]
            mine = ({**given, "progress": next(shares)}
                    if isinstance(component, LMFusionScorer) else {})
            parts.append([weight / unit * part for part in component.score_texts(texts, **mine)])
        return [sum(text) for text in zip(*parts)] if parts else [0.0] * len(texts)

    def score_texts_batch(self, texts: Sequence[str], chunk_size: int = 256,
                          length_normalize: bool = False, *, cache_namespace: str = "",
                          progress: Progress | None = None) -> list[float]:
        """`LMFusionScorer.score_texts_batch`: language models read texts as they are given.

        `length_normalize` divides what a language model says by the number of its own tokens, and
        what other models say by the number of words.
        """
        del chunk_size
        shares = self._shares(progress)
        total = [0.0] * len(texts)
        for name, weight in self.weights.items():
            component = self.components[name]
            if isinstance(component, LMFusionScorer):
                part = component.score_texts_batch(
                    texts, length_normalize=length_normalize, cache_namespace=cache_namespace,
                    progress=next(shares))
            else:
                part = component.score_texts(texts)
                if length_normalize:
                    part = [score / max(1, len(text.split())) for score, text in zip(part, texts)]
            total = [before + weight * score for before, score in zip(total, part)]
        return total

    def explain(self, context: str, word: str, *, join: str | None = None,
                cache_namespace: str = "") -> CombinedExplanation:
        """One candidate under every model; token by token under the language models."""
        models = {name: component.explain(context, word, join=join,
                                          cache_namespace=cache_namespace)
                  for name, component in self.components.items()
                  if isinstance(component, LMFusionScorer)}
        parts = {name: models[name].candidate_log_prob if name in models
                 else self._other_parts(component, [context], [[word]], join)[0][0]
                 for name, component in self.components.items()}
        log_prob = sum(weight * parts[name] for name, weight in self.weights.items())
        return CombinedExplanation(parts, dict(self.weights), models, log_prob,
                                   log_prob + self.word_insertion_bonus)

    def best(self, lists: Sequence[Sequence[str]],
             base_scores: Sequence[Sequence[float]] | None = None, *, weight: float = 1.0,
             word_insertion_bonus: float | None = None, n: int = 1, gap: float = 0.0,
             within: float = 0.0, eos: bool = False, deadline: float | None = None,
             context: str | Sequence[str] = (), prompt: str = "", cache_namespace: str = "",
             progress: Progress | None = None) -> list[_core.BestList]:
        """The n best texts of each list, as `LMFusionScorer.best`, where log p is `score_texts`'s.

        Language models bound each other and are asked as far as it takes; the first of the
        components is asked most, so let it be the cheapest. Other models score all texts, and what
        they give is exact in every hypothesis. A model whose weight is below 0 scores all too.
        `progress` moves when lists are settled.
        """
        base = check_best(lists, base_scores, n=n, gap=gap, within=within)
        check_number(weight, "weight")
        check_progress(progress)
        bonus = (self.word_insertion_bonus if word_insertion_bonus is None
                 else check_number(word_insertion_bonus, "word_insertion_bonus"))
        models = []
        others = [[0.0] * len(texts) for texts in lists]
        for name, share in self.weights.items():
            component = self.components[name]
            if isinstance(component, LMFusionScorer):
                models += [Model(component, share, weight * share)] if share else []
            else:
                others = [[before + share * part for before, part
                           in zip(row, component.score_texts(texts))]
                          for row, texts in zip(others, lists)]
        base = [[score + weight * part + bonus * len(text.split())
                 for score, part, text in zip(*rows)] for rows in zip(base, others, lists)]
        search = CombinedSearch(models, lists, others, base, n=n, gap=gap, within=within,
                                deadline=deadline, progress=progress,
                                asked={"eos": eos, "context": context, "prompt": prompt,
                                       "cache_namespace": cache_namespace})
        search.run()
        return search.results()

    def best_path(self, lattice: Lattice, **options: Any) -> BestPaths:
        """The n best texts of a word lattice: `best_paths` of it alone."""
        return self.best_paths([lattice], **options)[0]

    def best_paths(self, lattices: Iterable[Lattice], *, n: int = 1, weight: float = 1.0,
                   word_insertion_bonus: float | None = None, acoustic_scale: float = 1.0,
                   ngram_weight: float = 1.0, words: Callable[[str], str] | None = None,
                   endings: Sequence[str] = (), paths_a_call: int | None = None,
                   max_tokens: int | None = None, deadline: float | None = None, gap: float = 0.0,
                   context: str | Sequence[str] = (), prompt: str = "",
                   cache_namespace: str = "",
                   progress: Progress | None = None) -> list[BestPaths]:
        """The n best texts of every lattice, as `LMFusionScorer.best_paths`.

        Where a word is worth more than 0, by a phrase's bonus say, nothing bounds what follows, and
        the result is the best found, not proven.
        """
        from lmfusion.lattice.best_path import best_paths
        return best_paths(
            self, lattices, n=n, weight=weight,
            word_insertion_bonus=word_insertion_bonus, acoustic_scale=acoustic_scale,
            ngram_weight=ngram_weight, words=words, endings=endings, paths_a_call=paths_a_call,
            max_tokens=max_tokens, deadline=deadline, gap=gap, context=context, prompt=prompt,
            cache_namespace=cache_namespace, progress=progress)

    def word_log_probs(self, texts: Sequence[str], *, base: float = math.e,
                       cache_namespace: str = "",
                       progress: Progress | None = None) -> list[list[tuple[str, float]]]:
        """[texts][words] of (word, what it adds to `score_texts`), words being split at spaces."""
        return by_words(texts, lambda begun: self.score_texts(
            begun, base=base, cache_namespace=cache_namespace, progress=progress))

    def token_log_probs(self, texts: Sequence[str], *, base: float = math.e,
                        cache_namespace: str = "",
                        progress: Progress | None = None) -> list[list[tuple[str, float]]]:
        """[texts][tokens] of (token, weighted sum of its log p), where tokens have such sums.

        They sum to `score_texts(texts)`. A model whose weight is 0 is not asked.

        Raises:
            ValueError: a model that counts has no tokens (an `NGram`, a `PhraseList`), or two split
                a text differently; `word_log_probs` has a sum for every word.
        """
        unit = nats(base)
        rows = {}
        counted = {name: weight for name, weight in self.weights.items() if weight}
        for name in counted:
            if not isinstance(self.components[name], LMFusionScorer):
                raise ValueError(f"the model {name!r} scores words, not tokens, so a token has no "
                                 "sum; word_log_probs sums words")
        for number, name in enumerate(counted):
            component = cast(LMFusionScorer, self.components[name])
            told = None if progress is None else functools.partial(_tell, progress, number,
                                                                   len(counted))
            rows[name] = component.token_log_probs(texts, cache_namespace=cache_namespace,
                                                   progress=told)
        if not counted:
            raise ValueError("every weight is 0, so no model has tokens; word_log_probs sums words")
        summed = summed_tokens(rows, counted, texts)
        return [[(piece, score / unit) for piece, score in row] for row in summed]

    def perplexity(self, texts: Sequence[str], *, cache_namespace: str = "",
                   progress: Progress | None = None) -> list[float]:
        """exp(-mean of `token_log_probs`) of each text; NaN for one without tokens.

        A weighted sum of logarithms is no distribution, so this compares texts under these weights,
        not one combination with another.

        Raises:
            ValueError: as `token_log_probs`.
        """
        rows = self.token_log_probs(texts, cache_namespace=cache_namespace, progress=progress)
        return [math.exp(-math.fsum(score for _, score in row) / len(row)) if row else math.nan
                for row in rows]

    def selfcheck(self, contexts: Sequence[str], candidate_words: Sequence[Sequence[str]], *,
                  cache_namespace: str = "") -> float:
        """The largest `LMFusionScorer.selfcheck` of the language models; 0 without any."""
        return max((model.selfcheck(contexts, candidate_words, cache_namespace=cache_namespace)
                    for model in self._language_models()), default=0.0)

    def aggregate_homophone_scores(self, scores: Sequence[float]) -> float:
        """One score for words that sound alike, by `homophone_aggregation`.

        Raises:
            ValueError: there are no scores.
        """
        if len(scores) == 0:
            raise ValueError("no scores to aggregate")
        return (max(map(float, scores)) if self.homophone_aggregation == "max"
                else _core.log_sum_exp(scores))

    @property
    def llm_call_count(self) -> int:
        """Scoring calls of the language models, in all, since `reset_stats()`."""
        return sum(model.llm_call_count for model in self._language_models())

    def prime(self, contexts: Sequence[str] = (), *, vocabulary: Sequence[str] = (),
              after: Sequence[str] = ("",), join: str | None = None, cache_namespace: str = "",
              progress: Progress | None = None) -> int:
        """`LMFusionScorer.prime` of every language model; the tokens computed, in all."""
        shares = self._shares(progress)
        return sum(model.prime(contexts, vocabulary=vocabulary, after=after, join=join,
                               cache_namespace=cache_namespace, progress=next(shares))
                   for model in self._language_models())

    def stats(self) -> dict[str, _core.Stats]:
        """What the language models did, by name."""
        return {name: component.stats() for name, component in self.components.items()
                if isinstance(component, LMFusionScorer)}

    def reset_stats(self) -> None:
        """Sets the counters of the language models to zero."""
        for model in self._language_models():
            model.reset_stats()

    def clear_cache(self, cache_namespace: str | None = None) -> None:
        """`LMFusionScorer.clear_cache` of every language model."""
        for model in self._language_models():
            model.clear_cache(cache_namespace)

    def close(self) -> None:
        """Closes the language models. Also at the end of `with CombinedScorer(...) as scorer:`."""
        for model in self._language_models():
            model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _other_parts(component: Component, contexts: Sequence[str],
                     candidate_words: Sequence[Sequence[str]], join: str | None) -> Ragged:
        """What a model that is no language model says."""
        if isinstance(component, PhraseList):
            return component.log_probs(contexts, candidate_words, join=join)
        return component.log_probs(contexts, candidate_words)

    def _language_models(self) -> list[LMFusionScorer]:
        return [component for component in self.components.values()
                if isinstance(component, LMFusionScorer)]

    def _scores(self, contexts: Sequence[str], candidate_words: Sequence[Sequence[str]],
                bonus: float, floor: Floor | None,
                fallback: Callable[[str, str], float] | None, **asked: Any
                ) -> list[list[float | None]]:
        needs_deadline(fallback, asked["deadline"])
        rows = self.combine(self.parts(contexts, candidate_words, **asked),
                            word_insertion_bonus=bonus)
        scores: list[list[float | None]] = [
            [None if math.isnan(score) else score for score in row] for row in rows]
        if fallback is not None:
            for text, words, row in zip(contexts, candidate_words, scores):
                for i, (word, score) in enumerate(zip(words, row)):
                    if score is None:
                        row[i] = fallback(text, word) + bonus
        if floor is not None:
            _prune(scores, floor)
        return scores

    def _shares(self, progress: Progress | None) -> Iterator[Progress | None]:
        """One `progress` a language model, which tells how far all of them are."""
        count = len(self._language_models())
        check_progress(progress)
        for number in range(count):
            yield None if progress is None else functools.partial(_tell, progress, number, count)


def _tell(progress: Progress, number: int, count: int, done: int, total: int) -> None:
    progress(number * total + done, count * total)


def _prune(scores: list[list[float | None]], floor: Floor) -> None:
    """-inf for what is below its floor."""
    floor_rows: Any = floor
    if not hasattr(floor, "__len__") or getattr(floor, "ndim", 1) == 0:  # numpy's numbers have it
        floor_rows = [[float(cast(float, floor))] * len(row) for row in scores]
    check_shape(floor_rows, [len(row) for row in scores], "floor", "contexts", "candidate")
    for i, (row, floors) in enumerate(zip(scores, floor_rows)):
        for j, score in enumerate(row):
            if math.isnan(floors[j]):
                raise ValueError(f"floor[{i}][{j}] is NaN; a number expected")
            if score is not None and score < floors[j]:
                row[j] = -math.inf
