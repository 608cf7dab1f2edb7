"""`LMFusionScorer`, the typed face of the core's scorer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

from lmfusion import _core
from lmfusion.errors import Error, ModelFileError
from lmfusion.words import by_words, nats

if TYPE_CHECKING:
    from lmfusion.lattice import BestPaths, Lattice

Floor = float | Sequence[Sequence[float]]
# Called with (done, total) of a call's candidates, texts or paths; what it raises ends the call.
Progress = Callable[[int, int], object]


class LMFusionScorer:
    """How likely words and texts are under a causal language model, exactly.

    All log-probabilities are natural logarithms (nats). Texts that share a prefix share its
    computation, within a call and between calls, up to `kv_cache_bytes`; what is kept never
    changes a score. Thread safe: calls of several threads are packed together, and the GIL is
    released while they compute. Ctrl-C ends a long call after the forward pass at work; what was
    computed stays in the cache, and the scorer works on. Methods that may take long tell a function
    `progress` how far they are.

    Args:
        model: a model file (`python -m lmfusion export`), or any TorchScript causal language
            model (ids [B, T], mask [B, T]) -> logits [B, T, vocabulary], scored without a cache.
        weight, word_insertion_bonus: score = weight * sum(log p) + word_insertion_bonus, per word.
        homophone_aggregation: "max" or "logsumexp", for `aggregate_homophone_scores`.
        device: "cpu", "cuda" or "cuda:N".
        compute: type of the matrix products, "float32" (exact) or a faster one (docs/speed.md).
        max_context_length: tokens of context that are kept, the start token not counted; older
            ones are dropped in steps, counted in `stats().truncated_contexts`.
        casing: "none", "sentence", "truecase", "truecase-compat", "variants" (docs/casing.md), or
            a function from a whole text to the cased text.
        join: what stands between a context and a word: "auto" (as people write them: nothing in
            Chinese, Japanese or Thai, or before "." and "'s"; docs/boundaries.md), "space" or
            "none".
        truecaser: file of a truecaser, for the two truecasings; default: the one in the model.
        tokenizer: function from a text to its token ids, in place of the model's own tokenizer.
        kv_cache_bytes: hard limit of the cache in bytes, or "auto": 1 GiB on the CPU, half of the
            free memory of a device.
        max_batch_tokens: tokens of one forward pass at most.
        bos: the token before every text: "auto", "tokenizer", "none", or a token, as its vocabulary
            writes it or its id.
        bos_id: the same by its id, in place of `bos`.
        boundary: "plain", or "word" for the end-of-word correction (docs/boundaries.md).
        special_tokens: what text that spells a control token is: "text", its letters, or "allow",
            the token, as Hugging Face's tokenizers read it.
        kv_dtype: what a device keeps keys and values in, "float32", "bfloat16", "float16",
            "float8", or "auto" for the type of `compute` (docs/memory.md).
        mode: "tree", "grouped" or "uncached"; the same scores at other costs.
        selfcheck_every: every so many calls, one is scored again without the cache and compared:
            `stats().selfchecks`, `selfcheck_failures`; 0: never.
        compat: "hf" scores as decoders that call a Hugging Face tokenizer's `encode` and model
            do: `bos="tokenizer"`, and `join="space"` unless another is given (docs/adapters.md has
            the cases that differ). None: no change.

    Raises:
        ModelFileError: the file cannot be read.
        TokenizerError: its tokenizer is of an unknown kind.
        ValueError: an argument cannot be right; the text names it.
    """

    __slots__ = ("__weakref__", "_calls_before", "_core", "_options", "_path")

    def __init__(self, model: str | os.PathLike[str], *, weight: float = 0.3,
                 word_insertion_bonus: float = 0.0, homophone_aggregation: str = "max",
                 device: str = "cpu", compute: str = "float32", max_context_length: int = 512,
                 casing: str | Callable[[str], str] = "none",
                 join: str = "auto", truecaser: str | os.PathLike[str] | None = None,
                 tokenizer: Callable[[str], Sequence[int]] | None = None,
                 kv_cache_bytes: int | str = "auto", max_batch_tokens: int = 512,
                 bos: str | int = "auto", bos_id: int | str = "auto", boundary: str = "plain",
                 special_tokens: str = "text", mode: str = "tree", kv_dtype: str = "auto",
                 selfcheck_every: int = 0,
                 compat: str | None = None) -> None:
        options = {name: value for name, value in locals().items()
                   if name not in ("self", "model", "compat")}
        if compat not in (None, "hf"):
            raise ValueError(f'compat = {compat!r}; "hf" or None expected')
        if compat == "hf":
            if bos != "auto":
                raise ValueError(f'compat = "hf" decides the start token; bos = {bos!r} given too')
            options["bos"] = "tokenizer"
            options["join"] = "space" if join == "auto" else join
        if (not isinstance(bos, (str, bool)) and hasattr(bos, "__index__")
                and bos_id == "auto"):
            options["bos"], options["bos_id"] = "auto", bos
        options["device"] = str(device)
        options["truecaser"] = "" if truecaser is None else os.fspath(truecaser)
        if not isinstance(model, (str, os.PathLike)):
            raise TypeError(f"model: {type(model).__name__} found; the path of a model file "
                            "expected; lmfusion.from_hf takes a live model")
        self._open(os.fspath(model), options)

    @classmethod
    def from_pretrained(cls, model: str | os.PathLike[str] | None = None, *,
                        lora: str | os.PathLike[str] | None = None, revision: str | None = None,
                        cache_dir: str | os.PathLike[str] | None = None, uncached: bool = False,
                        **options: Any) -> Self:
        """A scorer of a Hugging Face folder, a .gguf file, a name on the hub, or a model file.

        The first call exports the model into the cache (docs/export.md), later ones open what is
        there, also without network.

        Args:
            model: the folder, file or name; None: the default model.
            lora: folder of a LoRA adapter, merged into the weights.
            revision: of a name on the hub: a branch, a tag or a commit.
            cache_dir: where exports are kept; default: models/ in $LMFUSION_CACHE or
                ~/.cache/lmfusion.
            uncached: export the plain form, for models that tree attention cannot hold.
            options: of `LMFusionScorer`.

        Raises:
            FileNotFoundError: no such file, folder or name; the text says what to put where.
            ExportError: the model cannot be exported exactly; says what can be done.
            ValueError: an option cannot be right.
        """
        from lmfusion.pretrained import model_file
        return cls(model_file(model, lora=lora, revision=revision, cache_dir=cache_dir,
                              uncached=uncached), **options)

    def _open(self, path: str, options: dict[str, Any]) -> None:
        if not os.path.exists(path) or os.path.isdir(path):
            raise ModelFileError(
                f"no such model file: {path}. A folder, a .gguf file or a name on a model hub is "
                f"opened by LMFusionScorer.from_pretrained({path!r})")
        self._path = path
        self._options = options
        self._calls_before = 0
        self._core = _core.LMFusionScorer(path, **options)

    def score_continuations(self, contexts: Sequence[str],
                            candidate_words: Sequence[Sequence[str]], *,
                            floor: Floor | None = None, deadline: float | None = None,
                            fallback: Callable[[str, str], float] | None = None,
                            join: str | None = None, context: str | Sequence[str] = (),
                            prompt: str = "", cache_namespace: str = "",
                            progress: Progress | None = None) -> list[list[float | None]]:
        """weight * log p(word | context) + word_insertion_bonus of every candidate.

        Args:
            contexts: [contexts]; may repeat, may be empty texts.
            candidate_words: [contexts][candidates of each].
            floor: one number, or one a candidate. A candidate whose score is below its floor gets
                -inf, always, and is computed only as far as it takes to know that.
            deadline: seconds. No work is begun later; the call may be late by one context. What
                is not scored by then gets None, or what `fallback` says.
            fallback: log p (nats) of a word after a context, from a faster model; weight and bonus
                are applied to it.
            join: in place of the scorer's.
            context: earlier utterances, oldest first, that stand before every text and are not
                scored: up to 1,024 tokens, the oldest dropped in steps (docs/context.md).
            prompt: text before all that, as it is; never dropped.
            cache_namespace: calls of different namespaces share nothing.
            progress: called as progress(done, total), of candidates, after every forward pass and
                at the end, on this thread. What it raises ends the call. It may ask `stats()`, but
                not for scores of this scorer (`Error`).

        Returns:
            [contexts][candidates].

        Raises:
            ValueError: the lengths differ, a text is not valid Unicode, there is a floor and
                `weight` is not above 0, or a fallback without a deadline.
            CacheBudgetError: one text is larger than `kv_cache_bytes`.
            NumericalError: the model gave NaN or infinity.
        """
        needs_deadline(fallback, deadline)
        scores: list[list[Any]] = self._core.score_continuations(
            contexts, candidate_words, cache_namespace, floor, deadline, progress, context,
            prompt, join)
        if deadline is not None:
            weight, bonus = self.weight, self.word_insertion_bonus
            _fill(scores, contexts, candidate_words, None if fallback is None else
                  lambda context, word: weight * fallback(context, word) + bonus)
        return scores

    def log_probs(self, contexts: Sequence[str], candidate_words: Sequence[Sequence[str]], *,
                  floor: Floor | None = None, deadline: float | None = None,
                  fallback: Callable[[str, str], float] | None = None, join: str | None = None,
                  context: str | Sequence[str] = (), prompt: str = "", base: float = math.e,
                  cache_namespace: str = "",
                  progress: Progress | None = None) -> list[list[float | None]]:
        """As `score_continuations` without weight and bonus: log p(word | context).

        Nats, or another logarithm by its `base`, 2 or 10 say; `floor` and `fallback` are nats.
        """
        needs_deadline(fallback, deadline)
        unit = nats(base)
        log_probs: list[list[Any]] = self._core.log_probs(
            contexts, candidate_words, cache_namespace, floor, deadline, progress, context,
            prompt, join)
        if deadline is not None:
            _fill(log_probs, contexts, candidate_words, fallback)
        return [[None if log_prob is None else log_prob / unit for log_prob in row]
                for row in log_probs]

    def score_texts(self, texts: Sequence[str], *, eos: bool = False, base: float = math.e,
                    context: str | Sequence[str] = (), prompt: str = "",
                    cache_namespace: str = "",
                    progress: Progress | None = None) -> list[float]:
        """log p of whole texts, unweighted; with the end-of-text token where `eos`.

        Nats, or another logarithm by its `base`, 2 or 10 say. `context` and `prompt` are those of
        `score_continuations`: log p(text | prompt, context).
        """
        unit = nats(base)
        return [log_prob / unit for log_prob in self._core.score_texts(
            texts, eos, cache_namespace, progress, context, prompt)]

    def best(self, lists: Sequence[Sequence[str]],
             base_scores: Sequence[Sequence[float]] | None = None, *,
             weight: float | None = None, word_insertion_bonus: float | None = None, n: int = 1,
             gap: float = 0.0, within: float = 0.0, eos: bool = False,
             deadline: float | None = None, context: str | Sequence[str] = (), prompt: str = "",
             cache_namespace: str = "",
             progress: Progress | None = None) -> list[_core.BestList]:
        """The n best texts of each list, exactly, computed no further than it takes to know.

        total = base score + weight * log p(text) + word_insertion_bonus * words, where log p is
        `score_texts`'s and words are `text.split()`'s. A log-probability never exceeds 0, so a text
        whose total can no longer reach the n-th best is left (docs/nbest.md).

        Args:
            lists: [lists][texts of each]; any lengths, 0 too.
            base_scores: [lists][texts], in units of the total, -inf too; None: 0.
            weight, word_insertion_bonus: default: the scorer's own. A weight of 0 needs work only
                for the texts returned; one below 0 leaves no bound, so every text is scored.
            n: texts to return of each list.
            gap: leave off when nothing can be better than what was found by more than this.
            within: a decoder's beam, say: texts whose totals are no more than this behind the n-th
                best are exact in `beaten` too; inf: all.
            eos: texts end with the end-of-text token.
            deadline: seconds. No pass is begun later; what is known by then is returned.
            context, prompt: before every text, as in `score_continuations`.
            cache_namespace: calls of different namespaces share nothing.
            progress: as in `score_continuations`, of texts whose place is settled.

        Returns:
            [lists] of objects with `best`, the n best (all of a shorter list), best first, equal
            totals in the order of the list; `beaten`, the others in the order of the list; and
            `gap`, by how much one of `beaten` can be better than the last of `best` at most: 0
            unless a gap or a deadline was given, inf where `best` itself is not known exactly.
            Each hypothesis has `index` (in its list), `log_prob` (nats), `total`, and `exact`:
            where False, neither number can be more than it says.

        Raises:
            ValueError: other shapes; a base score that is NaN or +inf; n below 1; gap or within
                below 0.
            CacheBudgetError: one text is larger than `kv_cache_bytes`.
            NumericalError: the model gave NaN or infinity.
        """
        return self._core.best(lists, base_scores, weight, word_insertion_bonus, n, gap, within,
                               eos, deadline, cache_namespace, context, prompt, progress)

    def token_log_probs(self, texts: Sequence[str], *, base: float = math.e,
                        cache_namespace: str = "",
                        progress: Progress | None = None) -> list[list[tuple[str, float]]]:
        """[texts][tokens] of (token as its vocabulary writes it, log p), the start token left out.

        They sum to `score_texts(texts)`. `base` is the logarithm's: e, 2 or 10.
        """
        unit = nats(base)
        return [[(token.piece, token.log_prob / unit) for token in row]
                for row in self._core.token_log_probs(texts, cache_namespace, progress)]

    def word_log_probs(self, texts: Sequence[str], *, base: float = math.e,
                       cache_namespace: str = "",
                       progress: Progress | None = None) -> list[list[tuple[str, float]]]:
        """[texts][words] of (word, log p of it after all before it), words being split at spaces.

        They sum to `score_texts(texts)`. `base` is the logarithm's: e, 2 or 10.
        """
        return by_words(texts, lambda begun: self.score_texts(
            begun, base=base, cache_namespace=cache_namespace, progress=progress))

    def perplexity(self, texts: Sequence[str], *, cache_namespace: str = "",
                   progress: Progress | None = None) -> list[float]:
        """exp(-mean log p of a token) of each text; NaN for one without tokens."""
        rows = self._core.token_log_probs(texts, cache_namespace, progress)
        return [math.exp(-math.fsum(token.log_prob for token in row) / len(row)) if row
                else math.nan for row in rows]

    def score_texts_batch(self, texts: Sequence[str], chunk_size: int = 256,
                          length_normalize: bool = False, *,
                          cache_namespace: str = "",
                          progress: Progress | None = None) -> list[float]:
        """log p of whole texts as they are given (no casing), nats, unweighted.

        The interface of a decoder that rescores its beam every few frames and appends sentence
        ends itself. `chunk_size` is not needed here (`max_batch_tokens` bounds a forward pass);
        `length_normalize` divides by the number of scored tokens.
        """
        del chunk_size
        return self._core.score_texts_batch(texts, length_normalize, cache_namespace, progress)

    def score_endings(self, texts: Sequence[str],
                      endings: Sequence[str] = (".", "?", "!"), *,
                      context: str | Sequence[str] = (), prompt: str = "", base: float = math.e,
                      cache_namespace: str = "",
                      progress: Progress | None = None) -> list[list[float]]:
        """log p(ending | text), nats, unweighted: [texts][endings].

        An ending follows its text without a space; "" stands for the end-of-text token. `context`
        and `prompt` are those of `score_continuations`. `base` is the logarithm's: e, 2 or 10.
        """
        unit = nats(base)
        rows = self._core.score_endings(texts, endings, cache_namespace, progress, context, prompt)
        return [[log_prob / unit for log_prob in row] for row in rows]

    def best_path(self, lattice: Lattice, *, n: int = 1, weight: float | None = None,
                  word_insertion_bonus: float | None = None, acoustic_scale: float = 1.0,
                  ngram_weight: float = 1.0, words: Callable[[str], str] | None = None,
                  endings: Sequence[str] = (), paths_a_call: int | None = None,
                  max_tokens: int | None = None, deadline: float | None = None, gap: float = 0.0,
                  context: str | Sequence[str] = (), prompt: str = "",
                  cache_namespace: str = "", progress: Progress | None = None) -> BestPaths:
        """The n best texts of a word lattice, proven (docs/lattices.md):

            acoustic_scale * acoustic + ngram_weight * n-gram + weight * log p(text) + bonus * words

        Args:
            lattice: of `lmfusion.lattice.read`, or made of its arcs.
            n: texts to find. Paths that say the same are one, by the best of their scores.
            weight, word_insertion_bonus: at least 0, and finite; None: this scorer's own.
            words: label -> the word or words of the text, "" for none; None: `word_of`.
            endings: ways for a text to end, as (".", "?"); log p of ending in one of them counts.
                "" is the end-of-text token. Empty: only the words count.
            paths_a_call: partial texts that are scored at once. More fill the forward passes, and
                score more that the best path makes needless. None: 8 at first, then an eighth of
                those scored before, 64 at most.
            max_tokens, deadline: end the search after so many computed tokens, or seconds. The
                result is then the best found, late by one call or by the words of a few texts.
            gap: end once no other text's total can be higher by so much than the n-th.
            context, prompt: before every text, as in `score_continuations`.
            cache_namespace: calls of different namespaces share nothing.
            progress: as in `score_continuations`, called as progress(done, total) of the words and
                endings scored, and of these and the partial texts that wait. A proof rarely needs
                all of them, and each brings others, so the total goes up and down; done == total
                at the end.

        Raises:
            LatticeError: every path has a score of -inf.
            ValueError: an option cannot be right.
            CacheBudgetError, NumericalError: as `score_continuations`.
        """
        from lmfusion.lattice import Lattice
        if not isinstance(lattice, Lattice):
            raise TypeError(f"lattice: {type(lattice).__name__} found; a Lattice expected, of "
                            "lmfusion.lattice.read; best_paths takes several")
        return self.best_paths(
            [lattice], n=n, weight=weight, word_insertion_bonus=word_insertion_bonus,
            acoustic_scale=acoustic_scale, ngram_weight=ngram_weight, words=words, endings=endings,
            paths_a_call=paths_a_call, max_tokens=max_tokens, deadline=deadline, gap=gap,
            context=context, prompt=prompt, cache_namespace=cache_namespace, progress=progress)[0]

    def best_paths(self, lattices: Iterable[Lattice], *, n: int = 1, weight: float | None = None,
                   word_insertion_bonus: float | None = None, acoustic_scale: float = 1.0,
                   ngram_weight: float = 1.0, words: Callable[[str], str] | None = None,
                   endings: Sequence[str] = (), paths_a_call: int | None = None,
                   max_tokens: int | None = None, deadline: float | None = None, gap: float = 0.0,
                   context: str | Sequence[str] = (), prompt: str = "",
                   cache_namespace: str = "",
                   progress: Progress | None = None) -> list[BestPaths]:
        """`best_path` of every lattice; several are searched at once, which fills the passes.

        Args:
            lattices: any number, read as searches begin, so they need not fit into memory at once.
            paths_a_call: of each lattice.
            max_tokens, deadline: of all of them together.

        Raises:
            LatticeError, ValueError, CacheBudgetError, NumericalError: as `best_path`. The first
                ends all searches.
        """
        from lmfusion.lattice.best_path import best_paths
        return best_paths(
            self, lattices, n=n, weight=self.weight if weight is None else weight,
            word_insertion_bonus=word_insertion_bonus, acoustic_scale=acoustic_scale,
            ngram_weight=ngram_weight, words=words, endings=endings, paths_a_call=paths_a_call,
            max_tokens=max_tokens, deadline=deadline, gap=gap, context=context, prompt=prompt,
            cache_namespace=cache_namespace, progress=progress)

    def score_token_paths(self, paths: Sequence[Sequence[int]], scored_begin: Sequence[int], *,
                          cache_namespace: str = "",
                          progress: Progress | None = None) -> list[list[float]]:
        """log p (nats) of each token of a path from `scored_begin` (at least 1) on."""
        return self._core.score_token_paths(paths, scored_begin, cache_namespace, progress)

    def prime(self, contexts: Sequence[str] = (), *, vocabulary: Sequence[str] = (),
              after: Sequence[str] = ("",), join: str | None = None, cache_namespace: str = "",
              progress: Progress | None = None) -> int:
        """Computes and keeps what later calls will ask for (docs/warm_start.md).

        Args:
            contexts: texts that words will be asked after.
            vocabulary: words, each of which is computed as a candidate after every text of
                `after`, the beginning of a sentence by default.
            join: of these words, in place of the scorer's.
            cache_namespace: whose calls will find it.

        Returns:
            The number of tokens computed; 0 where all was there.

        Raises:
            CacheBudgetError: `kv_cache_bytes` does not hold all of it at once; the text says how
                many bytes do. Nothing was computed.
            ValueError: this scorer keeps nothing between calls (a plain model, or another mode).
        """
        return self._core.prime(contexts, vocabulary, after, cache_namespace, progress, join)

    def save_cache(self, path: str | os.PathLike[str], *, contexts: Sequence[str] | None = None,
                   cache_namespace: str = "") -> int:
        """Writes what the cache holds of one namespace to a file (docs/warm_start.md).

        Args:
            path: the file; replaced in one step.
            contexts: only what the cache holds of these texts; None: everything.

        Returns:
            The number of tokens written.

        Raises:
            CacheFileError: the file cannot be written.
            ValueError: `contexts` is an empty list, or this scorer keeps nothing between calls.
        """
        if contexts is not None and len(contexts) == 0:
            raise ValueError("contexts is empty, so there is nothing to save; None saves all")
        return self._core.save_cache(os.fspath(path), contexts or [], cache_namespace)

    def load_cache(self, path: str | os.PathLike[str], *, cache_namespace: str = "") -> int:
        """Adds what a file of `save_cache` holds to the cache; what is there stays.

        Returns:
            The number of tokens that the cache did not hold.

        Raises:
            CacheFileError: the file is damaged, or of another model, `compute` or `kv_dtype`.
            CacheBudgetError: it is larger than `kv_cache_bytes`. In both cases nothing is loaded.
        """
        return self._core.load_cache(os.fspath(path), cache_namespace)

    def explain(self, context: str, word: str, *, join: str | None = None,
                cache_namespace: str = "") -> _core.Explanation:
        """One candidate, token by token: log p, what was reused, what was computed.

        `tokens`, `text` and `log_prob` are of the likeliest form of the candidate; `forms` has all
        (more than one under casing "variants" only), `candidate_log_prob` their logsumexp, which
        `score` weighs.
        """
        return self._core.explain(context, word, cache_namespace, join)

    def selfcheck(self, contexts: Sequence[str], candidate_words: Sequence[Sequence[str]], *,
                  cache_namespace: str = "") -> float:
        """Scores candidates with the cache and again without it, and compares.

        Returns:
            The largest difference of a token's log-probability, nats: some 1e-5 in float32, of
            rounding. `stats().selfcheck_failures` counts calls in which it was more than rounding
            explains. A scorer made with `selfcheck_every=N` does so with every N-th call.
        """
        return self._core.selfcheck(contexts, candidate_words, cache_namespace)

    def aggregate_homophone_scores(self, scores: Sequence[float]) -> float:
        """One score for words that sound alike, by `homophone_aggregation`."""
        return self._core.aggregate_homophone_scores(scores)

    def stats(self) -> _core.Stats:
        """What was done since the scorer was made or `reset_stats()`."""
        return self._core.stats()

    def reset_stats(self) -> None:
        """Sets the counters of `stats()` to zero; the cache stays."""
        self._core.reset_stats()
        self._calls_before = 0

    def clear_cache(self, cache_namespace: str | None = None) -> None:
        """Forgets what was computed, of one namespace or (None) of all; waits for calls at work.

        The namespace "" is that of calls without one.
        """
        self._core.clear_cache(cache_namespace)

    @property
    def weight(self) -> float:
        """Factor of log p in a score. May be set; not while another thread scores."""
        return self._core.weight

    @weight.setter
    def weight(self, weight: float) -> None:
        self._core.weight = weight

    @property
    def word_insertion_bonus(self) -> float:
        """Added to the score of every word. May be set; not while another thread scores."""
        return self._core.word_insertion_bonus

    @word_insertion_bonus.setter
    def word_insertion_bonus(self, bonus: float) -> None:
        self._core.word_insertion_bonus = bonus

    @property
    def homophone_aggregation(self) -> str:
        """"max" or "logsumexp". May be set."""
        return self._core.homophone_aggregation

    @homophone_aggregation.setter
    def homophone_aggregation(self, aggregation: str) -> None:
        self._core.homophone_aggregation = aggregation

    @property
    def llm_call_count(self) -> int:
        """Scoring calls since the scorer was made or `reset_stats()`. May be set, to 0 say."""
        return self._core.stats().calls + self._calls_before

    @llm_call_count.setter
    def llm_call_count(self, count: int) -> None:
        self._calls_before = count - self._core.stats().calls

    @property
    def options(self) -> dict[str, Any]:
        """All options by name, as they are now (docs/reference.md)."""
        return {**self._options, **self._core.options()}

    @property
    def device(self) -> str:
        """Where the model computes."""
        return str(self._options["device"])

    def to(self, device: object) -> LMFusionScorer:
        """Moves to another device ("cpu", "cuda:1", a torch.device): reads the model file anew and
        forgets the cache and `stats()`. Not while another thread scores. Returns the scorer."""
        if str(device) != self.device:
            options, calls = {**self.options, "device": str(device)}, self.llm_call_count
            self._core = _core.LMFusionScorer(self._path, **options)
            self._options, self._calls_before = options, calls
        return self

    @property
    def description(self) -> dict[str, Any]:
        """The model's description, the fields of docs/export.md; {} for a foreign file."""
        return json.loads(self._core.model_description)

    @property
    def tokenizer(self) -> _core.Tokenizer:
        """The tokenizer: `encode(text)`, `decode(ids)`, `piece(id)`, `piece_id(piece)`,
        `vocabulary_size`."""
        return self._core.tokenizer

    def close(self) -> None:
        """Lets go of the model and the cache. A call of another thread that has begun is finished;
        every later one is an `Error`. Also at the end of `with LMFusionScorer(...) as scorer:`."""
        self._core = cast(_core.LMFusionScorer, _Closed())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: the same file opened with the same options. The cache and `stats()`
        stay behind; functions among the options must be picklable themselves."""
        options = self.options
        if options["truecaser"]:
            options["truecaser"] = os.path.abspath(options["truecaser"])
        return _reopened, (type(self), os.path.abspath(self._path), options), (
            getattr(self, "__dict__", None) or None)

    def __repr__(self) -> str:
        if isinstance(self._core, _Closed):
            return f"LMFusionScorer({self._path!r}, closed)"
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"LMFusionScorer({self._path!r}, {options})"


class _Closed:
    """In place of the core of a scorer that was closed."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        raise Error("the scorer is closed; open its model file again")

    def __setattr__(self, name: str, value: object) -> None:
        self.__getattr__(name)


def _reopened(cls: type[LMFusionScorer], path: str, options: dict[str, Any]) -> LMFusionScorer:
    scorer = cls.__new__(cls)
    scorer._open(path, options)
    return scorer


def needs_deadline(fallback: object, deadline: float | None) -> None:
    """Refuses a fallback that would never be asked."""
    if fallback is not None and deadline is None:
        raise ValueError("fallback without deadline: it is asked only for what a deadline leaves "
                         "unscored; give a deadline")


def _fill(scores: list[list[Any]], contexts: Sequence[str], words: Sequence[Sequence[str]],
          fallback: Callable[[str, str], float] | None) -> None:
    """Replaces the NaN of what the deadline left unscored."""
    for row, context, row_words in zip(scores, contexts, words):
        for i, (score, word) in enumerate(zip(row, row_words)):
            if math.isnan(score):
                row[i] = None if fallback is None else fallback(context, word)
