"""The best of lists and lattices by several models, against all of their texts scored by each."""

from __future__ import annotations

import copy
import math
import pickle
import random
from pathlib import Path

import lmfusion
import pytest
import tiny_models
from lmfusion import nbest
from lmfusion.exporter import export
from lmfusion.lattice import Arc, Lattice
from oracle import TOLERANCE, WORDS, Oracle

LISTS = [[" ".join(random.Random(31 * i + j).choices(WORDS, k=1 + (i + j) % 7)) for j in range(12)]
         for i in range(6)] + [[], ["the cat"], ["cat", "cat"]]
BASE = [[random.Random(7 * i + j).randrange(24) / 2 for j in range(len(texts))]
        for i, texts in enumerate(LISTS)]


@pytest.fixture(scope="module")
def models(bundle: Path, tmp_path_factory: pytest.TempPathFactory, oracle: Oracle
           ) -> tuple[Path, Path, Oracle, Oracle]:
    """Two model files of other weights, and plain Hugging Face for each."""
    tokenizer = tiny_models.tiny_tokenizer()
    other = tiny_models.build(tiny_models.TREE_CONFIGS["llama"](), seed=5)
    path = tmp_path_factory.mktemp("other") / "other.lmf"
    export(other, tokenizer, path)
    return bundle, path, oracle, Oracle(other, tokenizer, oracle.start)


PHRASES = lmfusion.PhraseList({"the cat": 3.0, "on": -2.0})


def combined(models: tuple[Path, Path, Oracle, Oracle], one: float = 0.7, other: float = 0.4,
             phrases: float = 1.0) -> lmfusion.CombinedScorer:
    return lmfusion.CombinedScorer(
        {"one": lmfusion.LMFusionScorer(models[0]), "phrases": PHRASES,
         "other": lmfusion.LMFusionScorer(models[1])},
        {"one": one, "phrases": phrases, "other": other}, word_insertion_bonus=0.5)


def log_prob(models: tuple[Path, Path, Oracle, Oracle], text: str, one: float, other: float,
             phrases: float = 1.0) -> float:
    return (one * models[2].text(text) + other * models[3].text(text)
            + phrases * PHRASES.score_texts([text])[0])


@pytest.mark.parametrize("shares", [(0.7, 0.4), (0.7, 0.0), (0.0, 0.0), (1.5, -0.3), (-0.2, -0.1)],
                         ids=str)
@pytest.mark.parametrize(("weight", "n"), [(1.0, 1), (0.5, 3), (1.0, 99), (0.0, 2), (-0.5, 2)])
def test_the_best_are_those_of_all(models: tuple[Path, Path, Oracle, Oracle],
                                   shares: tuple[float, float], weight: float, n: int) -> None:
    scorer = combined(models, *shares)
    found = scorer.best(LISTS, BASE, weight=weight, n=n)
    for texts, base, one in zip(LISTS, BASE, found, strict=True):
        right = [log_prob(models, text, *shares) for text in texts]
        totals = [score + weight * part + 0.5 * len(text.split())
                  for score, part, text in zip(base, right, texts)]
        ranked = sorted(range(len(texts)), key=lambda j: -totals[j])
        tolerance = 8 * TOLERANCE
        assert [totals[each.index] for each in one.best] == pytest.approx(
            [totals[j] for j in ranked[:n]], abs=2 * tolerance)
        assert one.gap == 0
        assert sorted(each.index for each in [*one.best, *one.beaten]) == list(range(len(texts)))
        for each in one.best:
            assert each.exact
            assert each.log_prob == pytest.approx(right[each.index], abs=tolerance)
            assert each.total == pytest.approx(totals[each.index], abs=tolerance)
        for each in one.beaten:
            assert each.total >= totals[each.index] - tolerance
            if each.exact:
                assert each.log_prob == pytest.approx(right[each.index], abs=tolerance)


def test_fewer_tokens_than_all_of_them_take(models: tuple[Path, Path, Oracle, Oracle]) -> None:
    scorer = combined(models)
    spread = [[-4.0 * j for j in range(len(texts))] for texts in LISTS]
    best = [one.best[:1] for one in scorer.best(LISTS, spread)]
    some = {name: stats.tokens_computed for name, stats in scorer.stats().items()}
    scorer.reset_stats()
    scorer.clear_cache()
    scorer.score_texts([text for texts in LISTS for text in texts])
    for name, stats in scorer.stats().items():
        assert 0 < some[name] < stats.tokens_computed / 2
    texts = nbest.rank([list(zip(*each)) for each in zip(LISTS[:3], spread)], scorer, n=1,
                       weight=1.0, word_insertion_bonus=0.5)
    assert [one[0].index for one in texts] == [one[0].index for one in best[:3]]


def test_gaps_beams_and_deadlines(models: tuple[Path, Path, Oracle, Oracle]) -> None:
    scorer = combined(models)
    totals = [[score + part + 0.5 * len(text.split()) for score, part, text in zip(
        base, scorer.score_texts(texts), texts)] for texts, base in zip(LISTS, BASE)]
    for one, right in zip(combined(models).best(LISTS, BASE, gap=3.0), totals):
        assert 0 <= one.gap <= 3.0
        if right:
            assert right[one.best[0].index] >= max(right) - one.gap - 1e-3
    for one, right in zip(combined(models).best(LISTS, BASE, n=2, within=4.0), totals):
        nth = min([each.total for each in one.best], default=0.0)
        for each in one.beaten:
            assert each.exact or right[each.index] < nth - 4.0 + 1e-3
    for one in combined(models).best(LISTS, BASE, within=math.inf):
        assert all(each.exact for each in one.beaten)
    late = combined(models).best(LISTS, BASE, deadline=0)
    assert [one.gap for one in late if one.best] == [math.inf] * 8
    assert all(each.total >= right[each.index] - 1e-3 for one, right in zip(late, totals)
               for each in [*one.best, *one.beaten])
    assert combined(models).best(LISTS, BASE, deadline=1e9)[0].gap == 0


def test_arguments_are_those_of_a_scorer(models: tuple[Path, Path, Oracle, Oracle]) -> None:
    scorer = combined(models)
    before = {"context": ["a mat"], "prompt": "you:"}
    (one,) = scorer.best([LISTS[0]], eos=True, **before)  # type: ignore[arg-type]
    right = scorer.score_texts(LISTS[0], eos=True, **before)  # type: ignore[arg-type]
    totals = [part + 0.5 * len(text.split()) for part, text in zip(right, LISTS[0])]
    assert one.best[0].total == pytest.approx(max(totals), abs=1e-3)
    reports: list[tuple[int, int]] = []
    scorer.clear_cache()
    scorer.best(LISTS, BASE, progress=lambda *told: reports.append(told))
    total = sum(map(len, LISTS))
    assert reports == sorted(reports) and reports[-1] == (total, total) and len(reports) > 2

    def enough(done: int, total: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError):
        scorer.best([["a hand"]], progress=enough)
    for wrong, match in ({"n": 0}, "n = 0"), ({"gap": -1.0}, "gap = "), ({"within": math.nan},
                                                                        "within = "):
        with pytest.raises(ValueError, match=match):
            scorer.best(LISTS, BASE, **wrong)
    with pytest.raises(ValueError, match=r"base_scores\[1\] has 1 numbers for 2 texts"):
        scorer.best([["a"], ["b", "c"]], [[0.0], [0.0]])
    with pytest.raises(ValueError, match=r"base_scores\[0\]\[0\] is nan"):
        scorer.best([["a"]], [[math.nan]])
    with pytest.raises(TypeError, match=r"lists\[0\]\[1\]: int found"):
        scorer.best([["a", 1]])  # type: ignore[list-item]


def test_a_lattice(models: tuple[Path, Path, Oracle, Oracle]) -> None:
    lattice = Lattice([Arc(i, i + 1, word, -0.3 * k) for i in range(3)
                       for k, word in enumerate(WORDS[3 * i:3 * i + 3])], {3: (0.0, 0.0)})
    for phrases in (0.0, 1.0):
        scorer = combined(models, phrases=phrases)
        found = scorer.best_path(lattice, endings=["."])
        texts = [f"{a} {b} {c}" for a in WORDS[:3] for b in WORDS[3:6] for c in WORDS[6:9]]
        scores = {text: (sum(-0.3 * (WORDS.index(word) % 3) for word in text.split()) + 1.5
                         + log_prob(models, text, 0.7, 0.4, phrases)
                         + 0.7 * (models[2].text(text + ".") - models[2].text(text))
                         + 0.4 * (models[3].text(text + ".") - models[3].text(text)))
                  for text in texts}
        assert found.proven
        assert found.paths[0].total == pytest.approx(max(scores.values()), abs=1e-2)
        assert found.paths[0].total == pytest.approx(scores[found.paths[0].text], abs=1e-2)
        assert found.work.tokens_computed == sum(
            stats.tokens_computed for stats in scorer.stats().values())
    boosted = lmfusion.CombinedScorer(
        {"one": lmfusion.LMFusionScorer(models[0]),
         "phrases": lmfusion.PhraseList({WORDS[4]: 60.0})}, {"one": 1.0, "phrases": 1.0})
    found = boosted.best_path(lattice)  # a word worth more than 0 leaves no bound
    assert not found.proven and found.gap == math.inf


def test_the_rest_of_a_scorer(models: tuple[Path, Path, Oracle, Oracle]) -> None:
    scorer = combined(models)
    assert scorer.prime(["the cat"]) > 0 and scorer.prime(["the cat"]) == 0
    assert scorer.prime(["the cat"], cache_namespace="a") > 0
    scorer.clear_cache("a")
    assert scorer.prime(["the cat"]) == 0
    assert scorer.prime(["the cat"], cache_namespace="a") > 0
    (words,) = scorer.word_log_probs(["the cat sat"])
    assert [word for word, _ in words] == ["the", "cat", "sat"]
    assert sum(part for _, part in words) == pytest.approx(scorer.score_texts(["the cat sat"])[0])
    for again in (pickle.loads(pickle.dumps(scorer)), copy.deepcopy(scorer)):
        assert again.score_texts(["the cat"]) == pytest.approx(scorer.score_texts(["the cat"]))
    spaced = lmfusion.CombinedScorer(
        {"one": lmfusion.LMFusionScorer(models[0], join="space")}, {"one": 1.0})
    states = lmfusion.StateScorer(spaced)  # type: ignore[arg-type]
    assert states.after(states.start("the"), ".").text == "the ."  # as its model joins
    with scorer as again:
        again.score_texts(["a"])
    with pytest.raises(lmfusion.Error, match="closed"):
        scorer.score_texts(["a"])
