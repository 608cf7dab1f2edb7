"""`LMFusionScorer.best`: what full scoring and plain Hugging Face give, for less work."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import lmfusion
import pytest
from devices import MakeScorer
from oracle import TOLERANCE, WORDS, Oracle

Lists = list[list[str]]
Scores = list[list[float]]


def random_lists(seed: int, count: int = 6) -> tuple[Lists, Scores]:
    """Lists of 0 to 12 texts that branch, repeat and may be empty; base scores with equals."""
    generator = random.Random(seed)
    lists, base = [], []
    for _ in range(count):
        texts = [" ".join(generator.choices(WORDS, k=generator.randrange(7)))]
        for _ in range(generator.randrange(12)):
            words = generator.choice(texts).split()
            words[generator.randrange(len(words) + 1):] = generator.choices(
                WORDS, k=generator.randrange(4))
            texts.append(" ".join(words))
        lists.append([] if generator.random() < 0.1 else texts)
        base.append([-math.inf if generator.random() < 0.05 else generator.randrange(40) / 4
                     for _ in lists[-1]])
    return lists, base


def totals(texts: Sequence[str], base: Sequence[float], log_probs: Sequence[float], weight: float,
           bonus: float) -> list[float]:
    return [-math.inf if score == -math.inf else
            score + (weight * log_prob if weight else 0) + bonus * len(text.split())
            for text, score, log_prob in zip(texts, base, log_probs)]


def order(values: Sequence[float]) -> list[int]:
    """Indices, best first, equal ones in their order."""
    return sorted(range(len(values)), key=lambda i: -values[i])


def check(scorer: lmfusion.LMFusionScorer, lists: Lists, base: Scores, weight: float, bonus: float,
          n: int, full: lmfusion.LMFusionScorer | None = None) -> None:
    """The very order and numbers of full scoring; beaten texts are not above their bounds."""
    found = scorer.best(lists, base, weight=weight, word_insertion_bonus=bonus, n=n)
    assert len(found) == len(lists)
    for texts, scores, one in zip(lists, base, found):
        log_probs = (full or scorer).score_texts(texts)
        expected = totals(texts, scores, log_probs, weight, bonus)
        ranked = order(expected)
        assert [each.index for each in one.best] == ranked[:n]
        assert [each.index for each in one.beaten] == sorted(ranked[n:])
        assert one.gap == 0
        for each in one.best:
            assert each.exact
            assert each.log_prob == pytest.approx(log_probs[each.index], abs=1e-4)
            assert each.total == pytest.approx(expected[each.index], abs=1e-4 * (1 + abs(weight)))
        for each in one.beaten:
            assert each.log_prob >= log_probs[each.index] - 1e-4
            assert each.total >= expected[each.index] - 1e-4 * (1 + abs(weight))


@pytest.mark.parametrize("weight", [1.0, 0.25, 4.0, 0.0, -0.5])
@pytest.mark.parametrize("n", [1, 3, 100])
def test_the_best_are_those_of_full_scoring(scorer: lmfusion.LMFusionScorer, weight: float,
                                            n: int) -> None:
    for seed in range(3):
        lists, base = random_lists(seed)
        scorer.clear_cache()
        check(scorer, lists, base, weight, 0.5, n)  # cold
        check(scorer, lists, base, weight, 0.5, n)  # all is known


def test_the_best_are_those_of_hugging_face(scorer: lmfusion.LMFusionScorer,
                                            oracle: Oracle) -> None:
    lists, base = random_lists(7, count=8)
    for texts, scores, one in zip(lists, base, scorer.best(lists, base, weight=2.0)):
        if not texts:
            assert one.best == []
            continue
        log_probs = [oracle.text(text) for text in texts]
        expected = totals(texts, scores, log_probs, 2.0, scorer.word_insertion_bonus)
        tolerance = 2 * TOLERANCE * max(len(oracle.ids(text)) for text in texts)
        best = one.best[0]
        assert best.total == pytest.approx(max(expected), abs=tolerance)
        assert best.total == pytest.approx(expected[best.index], abs=tolerance)


@pytest.mark.parametrize("options", [
    {"mode": "uncached"}, {"mode": "grouped"}, {"boundary": "word"}, {"casing": "sentence"},
    {"max_context_length": 4}, {"max_batch_tokens": 1}, {"max_batch_tokens": 7}, {"bos": "none"},
], ids=str)
def test_every_option_gives_what_full_scoring_gives(bundle: Path, make_scorer: MakeScorer,
                                                    options: dict[str, object]) -> None:
    scorer = make_scorer(bundle, **options)
    for seed in range(3):
        lists, base = random_lists(seed)
        check(scorer, lists, base, 1.0, 0.25, 2, make_scorer(bundle, **options))


def test_a_cache_that_forgets_gives_the_same(bundle: Path, make_scorer: MakeScorer) -> None:
    full = make_scorer(bundle)
    lists, base = random_lists(11, count=10)
    probe = make_scorer(bundle)
    probe.score_texts(["the cat"])
    token = probe.stats().cache_bytes // max(1, probe.stats().cached_tokens)
    scorer = make_scorer(bundle, kv_cache_bytes=50 * token)
    check(scorer, lists, base, 1.0, 0.0, 3, full)
    assert scorer.stats().evictions > 0


def test_threads_get_what_one_gets(scorer: lmfusion.LMFusionScorer) -> None:
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            lists, base = random_lists(seed % 4)
            check(scorer, lists, base, 1.0, 0.5, 1 + seed % 2)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_fewer_tokens_are_computed_in_full_passes(bundle: Path, make_scorer: MakeScorer) -> None:
    lists, base = random_lists(3, count=40)
    base = [[score * 10 for score in scores] for scores in base]
    full, best = make_scorer(bundle), make_scorer(bundle)
    full.score_texts([text for texts in lists for text in texts])
    check(best, lists, base, 1.0, 0.0, 1, full)
    computed = best.stats().tokens_computed
    assert 2 * computed < full.stats().tokens_computed
    assert best.stats().forwards * 16 < computed
    assert best.stats().calls == 1


def test_a_gap_and_a_deadline_say_what_is_left(scorer: lmfusion.LMFusionScorer) -> None:
    lists, base = random_lists(5)
    exact = scorer.best(lists, base, weight=1.0)
    for mine, one in zip(scorer.best(lists, base, weight=1.0, gap=5.0, cache_namespace="gap"),
                         exact):
        assert not one.best or one.best[0].total <= mine.best[0].total + mine.gap + 1e-4
        assert mine.gap <= 5.0
    none = scorer.best(lists, base, weight=1.0, deadline=0.0, cache_namespace="none")
    for mine, one in zip(none, exact):
        assert len(mine.best) == len(one.best)
        for each in mine.best:
            assert each.exact or mine.gap == math.inf
            assert each.total >= one.best[0].total - 1e-4


@pytest.mark.parametrize("within", [3.0, 8.0, math.inf])
def test_what_is_within_a_beam_is_exact(scorer: lmfusion.LMFusionScorer, oracle: Oracle,
                                        within: float) -> None:
    lists, base = random_lists(12)
    found = scorer.best(lists, base, weight=0.25, word_insertion_bonus=0.0, n=2, within=within)
    near = 0
    for texts, scores, one in zip(lists, base, found):
        expected = totals(texts, scores, [oracle.text(text) for text in texts], 0.25, 0.0)
        for each in one.beaten:
            if each.total > -math.inf and expected[each.index] > one.best[-1].total - within + 1e-3:
                near += 1
                assert each.exact
                assert each.total == pytest.approx(expected[each.index], abs=2e-3)
    assert near >= 2


def test_the_end_of_the_text_counts_where_asked(scorer: lmfusion.LMFusionScorer) -> None:
    texts = ["the cat", "the cat sat", "a mat"]
    found = scorer.best([texts], weight=1.0, word_insertion_bonus=0.0, eos=True)[0].best[0]
    log_probs = scorer.score_texts(texts, eos=True)
    assert found.index == order(log_probs)[0]
    assert found.log_prob == pytest.approx(max(log_probs), abs=1e-5)


def test_defaults_are_the_scorers_own(scorer: lmfusion.LMFusionScorer) -> None:
    found = scorer.best([["the cat", "the cat sat on"]])[0].best[0]
    texts = ["the cat", "the cat sat on"]
    expected = totals(texts, [0, 0], scorer.score_texts(texts), 0.5, 1.0)
    assert found.total == pytest.approx(max(expected), abs=1e-5)
    assert scorer.best([]) == []


def test_only_the_best_are_ranked_where_only_they_are_asked_for(
        scorer: lmfusion.LMFusionScorer) -> None:
    lists, base = random_lists(9)
    beams = [list(zip(*one)) for one in zip(lists, base) if one[0]]
    for weight, acoustic_weight in ((1.0, 1.0), (0.5, 0.0), (0.0, 2.0)):
        weights = {"weight": weight, "acoustic_weight": acoustic_weight}
        every = lmfusion.nbest.rank(beams, scorer, **weights)
        for n in (1, 3):
            assert lmfusion.nbest.rank(beams, scorer, n=n, **weights) == [
                rows[:n] for rows in every]
            ranked = lmfusion.nbest.rescore(beams, scorer, n=n, **weights)
            for given, rows, now in zip(beams, every, ranked):
                best = [row.index for row in rows[:n]]
                rest = [i for i in range(len(given)) if i not in best]
                assert now == [given[i] for i in best + rest]


SECRET = "my secret diary"


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"lists": [[SECRET]], "base_scores": [[math.nan]]}, ValueError,
     r"^base_scores\[0\]\[0\] is NaN; a number or -infinity expected$"),
    ({"lists": [[SECRET], [SECRET, "b"]], "base_scores": [[0], [0, math.inf]]}, ValueError,
     r"^base_scores\[1\]\[1\] is infinity"),
    ({"lists": [[SECRET]], "base_scores": []}, ValueError, "^base_scores has 0 rows for 1 lists"),
    ({"lists": [[SECRET]], "base_scores": [[1, 2]]}, ValueError,
     r"^base_scores\[0\] has 2 numbers for 1 texts"),
    ({"lists": [[SECRET]], "n": 0}, ValueError, "^n = 0.*at least 1 expected$"),
    ({"lists": [[SECRET]], "gap": -1}, ValueError, "^gap = -1.*0 or more expected$"),
    ({"lists": [[SECRET]], "gap": math.nan}, ValueError, "^gap = nan"),
    ({"lists": [[SECRET]], "within": -1}, ValueError, "^within = -1.*0 or more expected$"),
    ({"lists": [[SECRET]], "within": math.nan}, ValueError, "^within = nan"),
    ({"lists": [[SECRET]], "deadline": math.nan}, ValueError, "^deadline is NaN"),
    ({"lists": [[SECRET]], "weight": math.nan}, ValueError, "^weight = nan.*finite"),
    ({"lists": [SECRET]}, TypeError, r"^lists\[0\]: str found; a list of str expected$"),
    ({"lists": [[SECRET]], "base_scores": [["1"]]}, TypeError, r"^base_scores\[0\]\[0\]: str"),
    ({"lists": [[SECRET, "\ud800"]]}, lmfusion.TextError,
     r"^texts\[1\]|^lists"),
])
def test_a_wrong_argument_is_named(scorer: lmfusion.LMFusionScorer, arguments: dict[str, object],
                                   error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        scorer.best(**arguments)
    assert SECRET not in str(raised.value)
    assert scorer.best([["the cat"]])[0].best[0].exact  # works on
