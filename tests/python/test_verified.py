"""`Verified`: the exact scorer's best, asked for what a cheap one puts near the top only."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction
from pathlib import Path

import lmfusion
import pytest
import tiny_models
from lmfusion.exporter import export
from lmfusion.verified import most_above, needed_margins
from oracle import TOLERANCE, Oracle
from test_best import Lists, Scores, order, random_lists, totals

WEIGHTS = {"weight": 2.0, "word_insertion_bonus": 0.5}


@pytest.fixture(scope="module")
def cheap(bundle: Path) -> lmfusion.LMFusionScorer:
    """Its weight does not count."""
    return lmfusion.LMFusionScorer(bundle, compute="int8", weight=7.0)


@pytest.fixture
def exact(bundle: Path) -> lmfusion.LMFusionScorer:
    return lmfusion.LMFusionScorer(bundle, weight=2.0, word_insertion_bonus=0.5)


@pytest.fixture(scope="module")
def other(oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> lmfusion.LMFusionScorer:
    """Another model of the same tokenizer, which knows nothing of the oracle's."""
    model = tiny_models.build(tiny_models.TREE_CONFIGS["qwen2"]())
    folder = tmp_path_factory.mktemp("other")
    return lmfusion.LMFusionScorer(export(model, oracle.tokenizer, folder / "other.lmf"))


def of_hugging_face(oracle: Oracle, texts: list[str], base: list[float]) -> list[float]:
    return totals(texts, base, [oracle.text(text) for text in texts], 2.0, 0.5)


def check(oracle: Oracle, lists: Lists, base: Scores, found: list[object], n: int = 1) -> None:
    """The numbers and the winners of plain Hugging Face."""
    for texts, scores, one in zip(lists, base, found, strict=True):
        expected = of_hugging_face(oracle, texts, scores)
        assert len(one.best) == min(n, len(texts))
        assert sorted(each.index for each in [*one.best, *one.beaten]) == list(range(len(texts)))
        for each, index in zip(one.best, order(expected)):
            tolerance = 2 * TOLERANCE * (1 + len(oracle.ids(texts[each.index])))
            assert each.exact
            assert each.total == pytest.approx(expected[each.index], abs=tolerance)
            assert each.total == pytest.approx(expected[index], abs=tolerance)
            assert each.log_prob == pytest.approx(oracle.text(texts[each.index]), abs=tolerance / 2)


@pytest.mark.parametrize("n", [1, 3])
def test_the_margin_that_is_needed_gives_hugging_faces_best(
        oracle: Oracle, exact: lmfusion.LMFusionScorer, cheap: lmfusion.LMFusionScorer,
        other: lmfusion.LMFusionScorer, n: int) -> None:
    lists, base = random_lists(21, count=12)
    for first in (cheap, other):
        margin = max(needed_margins(first, exact, lists, base, n=n, **WEIGHTS)) + 1e-6
        assert first is cheap or margin > 0.3  # two models that have nothing in common
        check(oracle, lists, base, lmfusion.Verified(first, exact, margin).best(lists, base, n=n),
              n)


def test_no_margin_keeps_the_others_best(oracle: Oracle, exact: lmfusion.LMFusionScorer,
                                         other: lmfusion.LMFusionScorer) -> None:
    """So the tests above can fail: without a margin the other model decides."""
    lists, base = random_lists(21, count=12)
    expected = [order(of_hugging_face(oracle, *one))[:1] for one in zip(lists, base)]
    found = lmfusion.Verified(other, exact, 0.0).best(lists, base)
    assert [[each.index for each in one.best] for one in found] != expected


def test_a_margin_of_infinity_is_the_exact_bound(oracle: Oracle, exact: lmfusion.LMFusionScorer,
                                                 other: lmfusion.LMFusionScorer) -> None:
    calls = other.stats().calls
    for seed in range(4):
        lists, base = random_lists(seed)
        found = lmfusion.Verified(other, exact, math.inf).best(lists, base, n=2)
        check(oracle, lists, base, found, 2)
        assert {one.gap for one in found} == {0.0}
    assert other.stats().calls == calls


def test_what_the_margin_left_has_no_bound(exact: lmfusion.LMFusionScorer,
                                           cheap: lmfusion.LMFusionScorer) -> None:
    lists, base = random_lists(3, count=20)
    assert lmfusion.Verified(cheap, exact, 0.0).best([[], ["the cat"]])[0].best == []
    found = lmfusion.Verified(cheap, exact, 0.1).best(lists, base)
    left = [each for one in found for each in one.beaten if each.total == math.inf]
    assert left and not any(each.exact for each in left)
    for one in found:
        has_left = any(each.total == math.inf for each in one.beaten)
        assert one.gap == (math.inf if has_left else 0.0)


def test_the_exact_scorer_computes_less(bundle: Path, cheap: lmfusion.LMFusionScorer,
                                        exact: lmfusion.LMFusionScorer) -> None:
    lists, base = random_lists(5, count=40)
    alone = lmfusion.LMFusionScorer(bundle)
    alone.best(lists, base, **WEIGHTS)
    lmfusion.Verified(cheap, exact, 0.05).best(lists, base)
    winners = lmfusion.LMFusionScorer(bundle)
    winners.score_texts([texts[one.best[0].index] for texts, one in zip(
        lists, alone.best(lists, base, **WEIGHTS)) if texts])
    assert exact.stats().tokens_computed < 0.7 * alone.stats().tokens_computed
    assert exact.stats().tokens_computed < 1.3 * winners.stats().tokens_computed


def test_a_deadline_leaves_to_the_exact_scorer_what_the_cheap_one_could_not_rule_out(
        exact: lmfusion.LMFusionScorer, cheap: lmfusion.LMFusionScorer) -> None:
    lists, base = random_lists(6)
    found = lmfusion.Verified(cheap, exact, 0.1).best(lists, base, deadline=0.0,
                                                      cache_namespace="none")
    assert exact.stats().tokens_computed == 0
    for one, truth in zip(found, exact.best(lists, base)):
        for each in one.best:
            assert each.exact or one.gap == math.inf
            assert each.total >= truth.best[0].total - 1e-4


def test_ranking_takes_one(exact: lmfusion.LMFusionScorer, cheap: lmfusion.LMFusionScorer) -> None:
    lists, base = random_lists(9)
    beams = [list(zip(*one)) for one in zip(lists, base) if one[0]]
    verified = lmfusion.Verified(cheap, exact, 100.0)
    ranked = lmfusion.nbest.rank(beams, verified, weight=2.0, n=1)
    assert ranked == lmfusion.nbest.rank(beams, exact, weight=2.0, n=1)
    assert verified.score_texts(["the cat"]) == exact.score_texts(["the cat"])
    assert lmfusion.nbest.rank(beams, verified, weight=2.0) == lmfusion.nbest.rank(
        beams, exact, weight=2.0)


def test_a_measured_margin_keeps_its_promise_on_other_lists(
        exact: lmfusion.LMFusionScorer, other: lmfusion.LMFusionScorer) -> None:
    """Of a model that has nothing in common with the exact one, so that it needs one."""
    lists, base = random_lists(31, count=200)
    margin = lmfusion.calibrate(other, exact, lists, base, agreement=0.97)
    assert margin.lists == 200 and margin.weight == 2.0
    needed = sorted(needed_margins(other, exact, lists, base, **WEIGHTS))
    assert margin.nats == needed[-1 - most_above(200, 0.97, 0.95)] < needed[-1]
    lists, base = random_lists(32, count=400)
    verified = lmfusion.Verified(other, exact, margin)
    kept = sum([each.index for each in one.best] == [each.index for each in truth.best]
               for one, truth in zip(verified.best(lists, base), exact.best(lists, base)))
    assert kept >= 0.97 * 400
    unkept = lmfusion.Verified(other, exact, 0.0)
    assert kept > sum([each.index for each in one.best] == [each.index for each in truth.best]
                       for one, truth in zip(unkept.best(lists, base), exact.best(lists, base)))


def test_progress_is_told_of_both_searches(exact: lmfusion.LMFusionScorer,
                                           cheap: lmfusion.LMFusionScorer) -> None:
    lists, base = random_lists(3, 4)
    told: list[tuple[int, int]] = []
    given = [list(zip(texts, scores)) for texts, scores in zip(lists, base)]
    verified = lmfusion.Verified(cheap, exact, 1.0)
    ranked = lmfusion.nbest.rank(given, verified, weight=2.0, n=1,
                                 progress=lambda done, total: told.append((done, total)))
    texts = sum(map(len, lists))
    assert (texts, texts) in told
    done, total = told[-1]
    assert done == total <= texts
    assert ranked == lmfusion.nbest.rank(given, verified, weight=2.0, n=1)


@pytest.mark.parametrize(("lists", "agreement", "confidence"), list(itertools.product(
    (60, 299, 1000), ("0.99", "0.95", "0.9"), ("0.95", "0.5"))))
def test_the_order_statistic_is_the_binomials(lists: int, agreement: str, confidence: str) -> None:
    """By fractions: the largest count that is not likelier than 1 - confidence."""
    keep, sure = Fraction(agreement), Fraction(confidence)

    def at_most(above: int) -> Fraction:
        return sum((math.comb(lists, k) * (1 - keep) ** k * keep ** (lists - k)
                    for k in range(above + 1)), Fraction(0))

    if at_most(0) > 1 - sure:
        with pytest.raises(lmfusion.CalibrationError, match="takes .* lists, "):
            most_above(lists, float(keep), float(sure))
        return
    above = most_above(lists, float(keep), float(sure))
    assert at_most(above) <= 1 - sure < at_most(above + 1)


def test_how_many_lists_it_takes() -> None:
    assert most_above(29_956, 0.9999, 0.95) == 0
    with pytest.raises(lmfusion.CalibrationError,
                       match=r"^an agreement of 0.9999 with confidence 0.95 takes 29,956 lists, "
                             r"29,955 given; 29,955 can show 0.9999$"):
        most_above(29_955, 0.9999, 0.95)
    with pytest.raises(lmfusion.CalibrationError, match="0 given$"):
        most_above(0, 0.9, 0.9)


SECRET = "my secret diary"


def test_wrong_calibrations_are_named(bundle: Path, exact: lmfusion.LMFusionScorer,
                                      cheap: lmfusion.LMFusionScorer,
                                      other: lmfusion.LMFusionScorer) -> None:
    generator = random.Random(1)
    lists = [[SECRET, generator.choice(["the cat", "a mat sat"])] for _ in range(20)]
    margin = lmfusion.calibrate(cheap, exact, lists, agreement=0.8, confidence=0.9)
    lmfusion.Verified(cheap, exact, margin).best(lists)
    bfloat16 = lmfusion.LMFusionScorer(bundle, compute="bfloat16")
    for first, second in ((other, exact), (bfloat16, exact), (cheap, bfloat16), (exact, cheap)):
        with pytest.raises(lmfusion.CalibrationError, match="^the margin was measured with .* as "
                                                            "the (cheap|exact) scorer, not with"):
            lmfusion.Verified(first, second, margin)
    verified = lmfusion.Verified(cheap, exact, margin)
    for wrong, message in (({"weight": 1.0}, "weight = 2.0, not for 1.0"),
                           ({"word_insertion_bonus": 9.0}, "word_insertion_bonus = 0.5, not"),
                           ({"n": 2}, "n = 1, not for 2")):
        with pytest.raises(lmfusion.CalibrationError, match=f"measured for {message}") as raised:
            verified.best(lists, **wrong)
        assert SECRET not in str(raised.value)
    with pytest.raises(lmfusion.CalibrationError, match="^weight = 0"):
        lmfusion.calibrate(cheap, exact, lists, weight=0.0)
    with pytest.raises(lmfusion.CalibrationError, match="takes 2,995 lists, 20 given; 20 can show"):
        lmfusion.calibrate(cheap, exact, lists, agreement=0.999)
    assert issubclass(lmfusion.CalibrationError, ValueError)
    assert verified.best(lists)[0].best[0].exact  # works on


@pytest.mark.parametrize("margin", [-1.0, math.nan])
def test_a_wrong_margin_is_named(exact: lmfusion.LMFusionScorer, cheap: lmfusion.LMFusionScorer,
                                 margin: float) -> None:
    with pytest.raises(ValueError, match=r"^margin = (-1.0|nan); 0 nats or more expected$"):
        lmfusion.Verified(cheap, exact, margin)
    with pytest.raises(ValueError, match=r"^margin = (-1\.0+|nan); 0 nats or more expected$"):
        exact._core.best([["the cat"]], cheap=cheap._core, margin=margin)


@pytest.mark.parametrize(("share", "value"), [("agreement", 1.0), ("agreement", 0.0),
                                              ("confidence", 1.5), ("confidence", math.nan)])
def test_a_share_that_is_none_is_named(share: str, value: float) -> None:
    shares = {"agreement": 0.9, "confidence": 0.9, share: value}
    with pytest.raises(ValueError, match=f"^{share} = .*a share between 0 and 1 expected$"):
        most_above(100, **shares)


def test_a_closed_scorer_is_told(bundle: Path, exact: lmfusion.LMFusionScorer) -> None:
    cheap = lmfusion.LMFusionScorer(bundle, compute="int8")
    verified = lmfusion.Verified(cheap, exact, 1.0)
    cheap.close()
    with pytest.raises(lmfusion.Error, match="closed"):
        verified.best([["the cat"]])
