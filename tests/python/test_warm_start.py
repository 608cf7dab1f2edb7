"""Priming and cache snapshots: what was primed or loaded is not computed, and scores stay those of
plain Hugging Face."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import lmfusion
import pytest
import tiny_models
from devices import CPU_AND_DEVICES
from lmfusion.exporter import export
from oracle import WORDS, Oracle, check, requests

CONTEXTS = ["", "the cat", "the cat sat on", "i'm"]


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama-tied-biases"]())
    return Oracle(model, tiny_models.tiny_tokenizer(), 1)


@pytest.fixture(scope="module")
def bundle(oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(oracle.model, oracle.tokenizer, tmp_path_factory.mktemp("warm") / "tiny.lmf")


def computed(scorer: lmfusion.LMFusionScorer) -> int:
    return scorer.stats().tokens_computed


@pytest.mark.parametrize("settings", [
    {}, {"casing": "sentence"}, {"boundary": "word"}, {"bos": "none"}, {"casing": str.upper},
    {"casing": "variants"}, {"max_context_length": 8}, {"max_batch_tokens": 3},
    {"device": "emulated"}], ids=str)
def test_what_is_primed_is_not_computed_again(bundle: Path, settings: dict[str, object]) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, **settings)
    plain = lmfusion.LMFusionScorer(bundle, **{**settings, "mode": "uncached"})
    count = scorer.prime(CONTEXTS, vocabulary=WORDS, after=["", "the cat"])
    assert count == computed(scorer) > 0
    assert scorer.stats().calls == 0
    contexts, words = ["", "the cat"], [WORDS, WORDS]
    scores = scorer.log_probs(contexts, words)
    assert computed(scorer) == count
    for row, wanted in zip(scores, plain.log_probs(contexts, words)):
        assert row == pytest.approx(wanted, abs=2e-4)
    assert scorer.prime(CONTEXTS, vocabulary=WORDS, after=["", "the cat"]) == 0


def test_words_of_one_token_after_a_primed_context(oracle: Oracle, bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, weight=1.0)
    distinct = {tuple(ids[:i + 1]) for ids in map(oracle.ids, CONTEXTS) for i in range(len(ids))}
    assert scorer.prime(CONTEXTS) == len(distinct) == scorer.stats().cached_tokens
    words = [" the" if context else "t" for context in CONTEXTS]  # one token each
    assert all(len(oracle.ids(context + word)) == len(oracle.ids(context)) + 1
               for context, word in zip(CONTEXTS, words))
    rows = [[word] for word in words]
    check(oracle, CONTEXTS, rows, scorer.score_continuations(CONTEXTS, rows))
    assert computed(scorer) == len(distinct)
    assert scorer.prime([]) == 0


def test_priming_knows_its_namespace(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    count = scorer.prime(CONTEXTS, cache_namespace="one")
    assert scorer.prime(CONTEXTS, cache_namespace="one") == 0
    assert scorer.prime(CONTEXTS) == count


def test_a_budget_that_is_too_small_is_told_before_anything_is_done(oracle: Oracle,
                                                                    bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, kv_cache_bytes=40_000)
    scorer.score_continuations(["the"], [["cat"]])
    before = scorer.stats()
    with pytest.raises(lmfusion.CacheBudgetError, match=r"bytes = \d+, and it is 40000") as e:
        scorer.prime(vocabulary=WORDS, after=["", *WORDS])
    assert computed(scorer) == before.tokens_computed
    assert scorer.stats().cached_tokens == before.cached_tokens
    needed = int(str(e.value).split("kv_cache_bytes = ")[1].split(",")[0])
    fits = lmfusion.LMFusionScorer(bundle, weight=1.0, kv_cache_bytes=needed)
    contexts, words = requests(31)
    fits.score_continuations(contexts, words)  # others, which make room
    fits.prime(vocabulary=WORDS, after=["", *WORDS])
    assert fits.stats().cache_bytes <= needed
    count = computed(fits)
    rows = [WORDS] * (1 + len(WORDS))
    check(oracle, ["", *WORDS], rows, fits.score_continuations(["", *WORDS], rows))
    assert computed(fits) == count


def test_bad_arguments(bundle: Path, oracle: Oracle, tmp_path: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    with pytest.raises(TypeError):
        scorer.prime("the cat")
    with pytest.raises(ValueError, match="after"):
        scorer.prime(vocabulary=["a"], after=[])
    with pytest.raises(ValueError, match="contexts is empty"):
        scorer.save_cache(tmp_path / "cache", contexts=[])
    with pytest.raises(lmfusion.TextError, match=r"vocabulary\[0\]"):
        scorer.prime(vocabulary=["\ud800"])
    plain = export(oracle.model, oracle.tokenizer, tmp_path / "plain.lmf", uncached=True)
    for keeps_nothing in (lmfusion.LMFusionScorer(plain),
                          lmfusion.LMFusionScorer(bundle, mode="grouped")):
        for call in (lambda s: s.prime(["a"]), lambda s: s.save_cache(tmp_path / "cache"),
                     lambda s: s.load_cache(tmp_path / "cache")):
            with pytest.raises(ValueError, match="keeps nothing between calls"):
                call(keeps_nothing)


@pytest.mark.parametrize("device", CPU_AND_DEVICES)
def test_a_loaded_cache_equals_a_fresh_one_and_hugging_face(oracle: Oracle, bundle: Path,
                                                            device: str, tmp_path: Path) -> None:
    contexts, words = requests(32)
    saved = lmfusion.LMFusionScorer(bundle, weight=1.0, device=device)
    first = saved.score_continuations(contexts, words)
    assert saved.save_cache(tmp_path / "cache") == saved.stats().cached_tokens == computed(saved)
    loaded = lmfusion.LMFusionScorer(bundle, weight=1.0, device=device)
    assert loaded.load_cache(tmp_path / "cache") == computed(saved)
    scores = loaded.score_continuations(contexts, words)
    assert computed(loaded) == 0 and loaded.stats().forwards == 0
    assert scores == first
    check(oracle, contexts, words, scores)
    # What follows reads the keys and values that were loaded.
    longer = [f"{context} {row[0]}".strip() for context, row in zip(contexts, words) if row]
    rows = [WORDS[:6]] * len(longer)
    check(oracle, longer, rows, loaded.score_continuations(longer, rows))
    fresh = lmfusion.LMFusionScorer(bundle, device=device)
    fresh.score_continuations(longer, rows)
    assert 0 < computed(loaded) < computed(fresh)


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "float8"])
def test_narrow_keys_and_values_are_saved_as_they_are(bundle: Path, kv_dtype: str,
                                                      tmp_path: Path) -> None:
    settings = {"device": "emulated", "compute": "bfloat16", "kv_dtype": kv_dtype}
    contexts, words = requests(33)
    saved = lmfusion.LMFusionScorer(bundle, **settings)
    primed = saved.prime(contexts)
    saved.save_cache(tmp_path / "cache")
    loaded = lmfusion.LMFusionScorer(bundle, **settings)
    assert loaded.load_cache(tmp_path / "cache") == primed
    for row, wanted in zip(loaded.log_probs(contexts, words), saved.log_probs(contexts, words)):
        assert row == pytest.approx(wanted, abs=1e-5)
    assert computed(loaded) == computed(saved) - primed


def test_only_the_contexts_that_are_named(bundle: Path, tmp_path: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, casing="sentence")
    scorer.score_continuations(*requests(34))
    scorer.prime(CONTEXTS)
    count = scorer.save_cache(tmp_path / "some", contexts=CONTEXTS)
    assert 0 < count < scorer.save_cache(tmp_path / "all")
    loaded = lmfusion.LMFusionScorer(bundle, casing="sentence")
    assert loaded.load_cache(tmp_path / "some") == count
    assert loaded.prime(CONTEXTS) == 0
    assert lmfusion.LMFusionScorer(bundle, casing="sentence").prime(CONTEXTS) == count


def test_eviction_after_loading(oracle: Oracle, bundle: Path, tmp_path: Path) -> None:
    saved = lmfusion.LMFusionScorer(bundle)
    saved.prime(CONTEXTS)
    saved.save_cache(tmp_path / "cache")
    budget = 2 * saved.stats().cache_bytes + 40 * 3000
    loaded = lmfusion.LMFusionScorer(bundle, weight=1.0, kv_cache_bytes=budget)
    for _ in range(2):
        loaded.load_cache(tmp_path / "cache")
        for seed in (35, 36, 37):
            contexts, words = requests(seed)
            check(oracle, contexts, words, loaded.score_continuations(contexts, words))
            assert loaded.stats().cache_bytes <= budget
    assert loaded.stats().evictions > 0
    small = lmfusion.LMFusionScorer(bundle, weight=1.0,
                                    kv_cache_bytes=saved.stats().cache_bytes - 1)
    with pytest.raises(lmfusion.CacheBudgetError, match="kv_cache_bytes"):
        small.load_cache(tmp_path / "cache")
    check(oracle, ["the"], [["cat"]], small.score_continuations(["the"], [["cat"]]))


def test_while_other_threads_score(oracle: Oracle, bundle: Path, tmp_path: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, weight=1.0, kv_cache_bytes=800_000)
    results: dict[int, list[list[float]]] = {}

    def decode(seed: int) -> None:
        for _ in range(5):
            results[seed] = scorer.score_continuations(*requests(seed))

    threads = [threading.Thread(target=decode, args=(seed,)) for seed in range(40, 44)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        scorer.prime(CONTEXTS)
        scorer.save_cache(tmp_path / "cache")
        scorer.clear_cache()
        scorer.load_cache(tmp_path / "cache")
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for seed, scores in results.items():
        check(oracle, *requests(seed), scores)


def test_from_another_process(oracle: Oracle, bundle: Path, tmp_path: Path) -> None:
    program = ("import sys, lmfusion; scorer = lmfusion.LMFusionScorer(sys.argv[1]);"
               "scorer.prime(['the cat'], vocabulary=['sat', 'on'], after=['the cat']);"
               "scorer.save_cache(sys.argv[2])")
    package = Path(lmfusion.__file__).parents[1]
    subprocess.run([sys.executable, "-c", program, bundle, tmp_path / "cache"], check=True,
                   env={"PYTHONPATH": str(package)})
    scorer = lmfusion.LMFusionScorer(bundle, weight=1.0)
    assert scorer.load_cache(tmp_path / "cache") > 0
    contexts, words = ["the cat"], [["sat", "on"]]
    check(oracle, contexts, words, scorer.score_continuations(contexts, words))
    assert computed(scorer) == 0


def test_another_model_and_damage_are_refused(bundle: Path, tmp_path: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    scorer.prime(CONTEXTS)
    scorer.save_cache(tmp_path / "cache")
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama-tied-biases"](), seed=1)
    other = export(model, tiny_models.tiny_tokenizer(), tmp_path / "other.lmf")
    for settings, named in [({"model": other}, "weights_sha256"),
                            ({"model": bundle, "compute": "bfloat16"}, "compute float32"),
                            ({"model": bundle, "device": "emulated", "kv_dtype": "bfloat16"},
                             "keys and values")]:
        with pytest.raises(lmfusion.CacheFileError, match=named):
            lmfusion.LMFusionScorer(**settings).load_cache(tmp_path / "cache")
    content = bytearray((tmp_path / "cache").read_bytes())
    generator = random.Random(0)
    for _ in range(20):
        bad = content.copy()
        bad[generator.randrange(len(bad))] ^= 1 << generator.randrange(8)
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(lmfusion.CacheFileError, match="bad"):
            lmfusion.LMFusionScorer(bundle).load_cache(tmp_path / "bad")
    (tmp_path / "bad").write_bytes(content[:-1])
    with pytest.raises(lmfusion.CacheFileError, match="damaged"):
        lmfusion.LMFusionScorer(bundle).load_cache(tmp_path / "bad")
    with pytest.raises(lmfusion.CacheFileError, match="not a cache snapshot"):
        lmfusion.LMFusionScorer(bundle).load_cache(bundle)
    with pytest.raises(lmfusion.CacheFileError, match="no such"):
        lmfusion.LMFusionScorer(bundle).load_cache(tmp_path / "nothing")
    with pytest.raises(lmfusion.CacheFileError, match="cannot be written"):
        scorer.save_cache(tmp_path / "no folder" / "cache")
