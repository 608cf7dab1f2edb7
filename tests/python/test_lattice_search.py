"""The best paths of lattices against all their paths, each scored by plain Hugging Face."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path

import lmfusion
import pytest
from devices import MakeScorer
from lmfusion.lattice import (
    Arc,
    Lattice,
    LatticeError,
    confusion_network,
    rounds,
    search,
    with_ngram,
)
from oracle import TOLERANCE, Oracle, joined

LABELS = {"the": "the", "the(2)": "the", "cat": "cat", "cats": "cats", "a": "a", "": "",
          "sat(3)": "sat", "<sil>": "", "[NOISE]": "", "++UM++": "", "!NULL": "", "it's": "it's"}
WEIGHT, BONUS, ACOUSTIC, NGRAM = 0.7, 1.25, 0.5, 2.0
WEIGHTS = {"weight": WEIGHT, "word_insertion_bonus": BONUS, "acoustic_scale": ACOUSTIC,
           "ngram_weight": NGRAM}


def random_lattice(seed: int, nodes: int = 6) -> Lattice:
    """Arcs forward only, some twice, some without words; scores in quarters, so sums are exact."""
    draw = random.Random(seed)
    arcs = [Arc(start, end, draw.choice(list(LABELS)), -draw.randrange(24) / 4,
                -draw.randrange(8) / 4)
            for start, end in itertools.combinations(range(nodes), 2)
            for _ in range(draw.randrange(3 if end > start + 1 else 4))]
    arcs.append(Arc(0, nodes - 1, "cat", -20.0, -1.0))
    finals = {nodes - 1: (-0.25, -0.5), nodes - 2: (-3.0, -0.25)}
    return Lattice(draw.sample(arcs, len(arcs)), finals, 0, f"random {seed}")


def all_paths(lattice: Lattice, node: int | None = None) -> Iterator[tuple[list[Arc], int]]:
    node = lattice.start if node is None else node
    if node in lattice.finals:
        yield [], node
    for arc in lattice.arcs:
        if arc.start == node:
            for arcs, end in all_paths(lattice, arc.end):
                yield [arc, *arcs], end


def by_text(lattice: Lattice, ngram: float = NGRAM) -> dict[tuple[str, ...], float]:
    """Every text's best score, bonus included, without the language model."""
    best: dict[tuple[str, ...], float] = {}
    for arcs, end in all_paths(lattice):
        words = tuple(LABELS[arc.label] for arc in arcs if LABELS[arc.label])
        score = BONUS * len(words) + sum(
            ACOUSTIC * acoustic + ngram * n for acoustic, n in
            [*((arc.acoustic, arc.ngram) for arc in arcs), lattice.finals[end]])
        best[words] = max(score, best.get(words, -math.inf))
    return best


def find(scorer: lmfusion.LMFusionScorer, lattice: Lattice, **options: object
         ) -> lmfusion.lattice.BestPaths:
    return scorer.best_path(lattice, **{**WEIGHTS, **options})


def ranked(oracle: Oracle, lattice: Lattice, ending: str = "") -> list[tuple[float, str]]:
    log_prob = functools.cache(oracle.text)
    return sorted(((score + WEIGHT * log_prob(" ".join(words) + ending), " ".join(words))
                   for words, score in by_text(lattice).items()), reverse=True)


@pytest.mark.parametrize("paths_a_call", [1, 4, 100])
def test_all_paths_scored_by_hugging_face(oracle: Oracle, scorer: lmfusion.LMFusionScorer,
                                          paths_a_call: int) -> None:
    for seed in range(8):
        lattice = random_lattice(seed)
        expected = ranked(oracle, lattice)
        for n in (1, 3, len(expected) + 5):
            found = find(scorer, lattice, n=n, paths_a_call=paths_a_call)
            assert found.proven and found.gap == 0
            assert [path.text for path in found.paths] == [text for _, text in expected[:n]]
            for path, (total, text) in zip(found.paths, expected):
                assert path.total == pytest.approx(total, abs=TOLERANCE * (len(text) + 2))


def test_many_lattices_are_searched_side_by_side(
        bundle: Path, make_scorer: MakeScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    lattices = [random_lattice(seed) for seed in range(12)]
    alone, together = make_scorer(bundle), make_scorer(bundle)
    expected = []
    for lattice in lattices:
        alone.clear_cache()
        expected += [find(alone, lattice, n=3, paths_a_call=2)]
    for texts_a_call in (1, 7, 1000):
        monkeypatch.setattr(rounds, "TEXTS_A_CALL", texts_a_call)
        together.clear_cache()
        together.reset_stats()
        found = together.best_paths(iter(lattices), n=3, paths_a_call=2, **WEIGHTS)
        for one, right in zip(found, expected, strict=True):
            assert one.proven
            assert [path.text for path in one.paths] == [path.text for path in right.paths]
            assert [path.total for path in one.paths] == pytest.approx(
                [path.total for path in right.paths], abs=1e-3)
            assert one.work.words_scored == right.work.words_scored
    # What two lattices share is computed once; all of them fill the same passes.
    assert together.stats().tokens_computed <= alone.stats().tokens_computed
    assert together.stats().forwards * 3 < alone.stats().forwards
    assert max(one.work.tokens_computed for one in found) == together.stats().tokens_computed
    assert together.best_paths([]) == []


def test_a_lattice_is_read_when_its_search_begins(scorer: lmfusion.LMFusionScorer,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "TEXTS_A_CALL", 1)
    events: list[str] = []
    model = rounds.LanguageModel.log_probs
    monkeypatch.setattr(rounds.LanguageModel, "log_probs", lambda self, some, reports: [
        events.append("score"), model(self, some, reports)][1])

    def read() -> Iterator[Lattice]:
        for seed in range(3):
            events.append("read")
            yield random_lattice(seed)

    scorer.best_paths(read(), **WEIGHTS)
    assert events.count("read") == 3 and events[:2] == ["read", "score"]


def test_a_limit_of_many_lattices_is_of_all_together(
        bundle: Path, make_scorer: MakeScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BEAM", 1)
    lattices = [random_lattice(seed) for seed in range(6)]
    whole = make_scorer(bundle).best_paths(lattices, **WEIGHTS)
    found = make_scorer(bundle).best_paths(lattices, max_tokens=0, paths_a_call=1, **WEIGHTS)
    assert not all(one.proven for one in found)
    for one, right in zip(found, whole, strict=True):
        assert one.gap >= right.paths[0].total - one.paths[0].total - 1e-3
    spent = max(one.work.tokens_computed for one in whole)
    assert all(one.proven for one in make_scorer(bundle).best_paths(
        lattices, max_tokens=spent + 1, **WEIGHTS))


@pytest.mark.parametrize(("context", "prompt"), [
    (["the cat sat on the mat", "don't sat"], ""), ((), "a talk about cats:"),
    ("the cat", "cats\n\n")])
def test_what_stands_before_a_text(oracle: Oracle, scorer: lmfusion.LMFusionScorer,
                                   context: str | list[str], prompt: str) -> None:
    """By Hugging Face's log p of the joined whole, less that of what stands before."""
    before = prompt
    for utterance in [context] if isinstance(context, str) else context:
        before = joined(before, utterance)

    def log_prob(text: str) -> float:
        return oracle.text(joined(before, text)) - oracle.text(before)

    for seed in range(3):
        lattice = random_lattice(seed)
        expected = sorted(((score + WEIGHT * log_prob(" ".join(words)), " ".join(words))
                           for words, score in by_text(lattice).items()), reverse=True)
        found = find(scorer, lattice, n=4, context=context, prompt=prompt)
        assert found.proven
        assert [path.text for path in found.paths] == [text for _, text in expected[:4]]
        for path, (total, text) in zip(found.paths, expected):
            assert path.total == pytest.approx(total, abs=TOLERANCE * (len(text) + 2))
        ended = find(scorer, lattice, endings=["."], context=context, prompt=prompt).paths[0]
        assert ended.log_prob == pytest.approx(
            oracle.text(joined(before, ended.text) + ".") - oracle.text(before), abs=2e-3)


def test_a_long_search_scores_more_at_once(bundle: Path, make_scorer: MakeScorer) -> None:
    slots = [{"the": 0.0, "a": -0.25, "cat": -0.5, "cats": -0.75}] * 9
    few, more = make_scorer(bundle), make_scorer(bundle)
    by_eights = few.best_path(confusion_network(slots), weight=1.0, paths_a_call=8)
    growing = more.best_path(confusion_network(slots), weight=1.0)
    assert growing.proven and growing.paths[0].text == by_eights.paths[0].text
    assert growing.work.words_scored > 1000
    assert growing.work.calls * 2 < by_eights.work.calls
    assert growing.work.words_scored <= 1.25 * by_eights.work.words_scored


def test_the_parts_are_those_of_a_path(scorer: lmfusion.LMFusionScorer) -> None:
    lattice = random_lattice(3)
    for path in find(scorer, lattice, n=5).paths:
        assert tuple(LABELS[arc.label] for arc in path.arcs if LABELS[arc.label]) == path.words
        assert path.arcs[0].start == lattice.start
        assert all(a.end == b.start for a, b in itertools.pairwise(path.arcs))
        acoustic, ngram = lattice.finals[path.arcs[-1].end]
        assert path.acoustic == acoustic + sum(arc.acoustic for arc in path.arcs)
        assert path.ngram == ngram + sum(arc.ngram for arc in path.arcs)
        assert path.log_prob == pytest.approx(scorer.score_texts([path.text])[0], abs=1e-4)
        assert path.total == pytest.approx(
            ACOUSTIC * path.acoustic + NGRAM * path.ngram + WEIGHT * path.log_prob
            + BONUS * len(path.words), abs=1e-9)


@pytest.mark.parametrize(("join", "text"), [("none", "thecat日本"), ("space", "the cat 日本"),
                                            ("auto", "the cat日本")])
def test_words_join_as_the_scorer_joins_them(oracle: Oracle, bundle: Path, make_scorer: MakeScorer,
                                             join: str, text: str) -> None:
    scorer = make_scorer(bundle, join=join)
    words = ("the", "cat", "日本")
    one_path = Lattice([Arc(i, i + 1, word) for i, word in enumerate(words)], {3: (0.0, 0.0)})
    path = scorer.best_path(one_path, weight=1.0, word_insertion_bonus=0.0).paths[0]
    assert path.text == text
    assert path.total == pytest.approx(oracle.text(text), abs=TOLERANCE * 20)


@pytest.mark.parametrize("endings", [["."], [".", "?", ""]])
def test_endings(oracle: Oracle, scorer: lmfusion.LMFusionScorer, endings: list[str]) -> None:
    lattice = random_lattice(1)

    def log_prob(text: str) -> float:
        return math.log(sum(math.exp(oracle.text(text + ending, eos=None if ending else 2))
                            for ending in endings))

    expected = max((score + WEIGHT * log_prob(" ".join(words)), words)
                   for words, score in by_text(lattice).items())
    found = find(scorer, lattice, endings=endings)
    assert found.proven and found.paths[0].words == expected[1]
    assert found.paths[0].total == pytest.approx(expected[0], abs=2e-3)


@pytest.mark.parametrize("options", [{"kv_cache_bytes": 40_000}, {"mode": "uncached"},
                                     {"max_batch_tokens": 2}])
def test_neither_cache_nor_batches_change_what_is_found(
        bundle: Path, make_scorer: MakeScorer, scorer: lmfusion.LMFusionScorer,
        options: dict[str, object]) -> None:
    other = make_scorer(bundle, **options)
    for seed in range(4):
        lattice = random_lattice(seed)
        for paths_a_call in (1, 7):
            assert [path.text for path in find(other, lattice, n=4,
                                               paths_a_call=paths_a_call).paths] == [
                path.text for path in find(scorer, lattice, n=4).paths]


def test_equal_totals_stand_in_the_order_of_their_words(scorer: lmfusion.LMFusionScorer) -> None:
    slots = [{"b": -0.5, "a": -0.5, "": -0.5}, {"d": 0.0, "c": 0.0}] * 2
    words = sorted(tuple(word for word in choice if word) for choice in itertools.product(*slots))
    expected = sorted(set(words), key=lambda one: (-len(one), one))
    for n, paths_a_call in itertools.product((1, 2, 5, 9), (1, 3)):
        found = scorer.best_path(confusion_network(slots), n=n, weight=0.0, ngram_weight=0.0,
                                 word_insertion_bonus=1.0, paths_a_call=paths_a_call)
        assert [path.words for path in found.paths] == expected[:n]
        assert found.proven and not found.work.calls and not found.work.tokens_computed


def test_a_word_that_cannot_win_is_not_scored(scorer: lmfusion.LMFusionScorer) -> None:
    lattice = confusion_network([{"the": 0.0, "cats": -1000.0}, {"cat": 0.0, "sat": -1000.0}] * 3)
    found = scorer.best_path(lattice, weight=1.0, word_insertion_bonus=0.0, paths_a_call=1)
    assert found.proven and found.paths[0].text == "the cat the cat the cat"
    assert found.work.words_scored == 6 and found.work.paths_extended == 7
    scorer.clear_cache()
    before = scorer.stats().tokens_computed
    scorer.score_texts([found.paths[0].text])
    assert found.work.tokens_computed == scorer.stats().tokens_computed - before


def test_texts_said_by_many_paths_are_scored_once(scorer: lmfusion.LMFusionScorer) -> None:
    copies = [Arc(0, 1 + copy, "the", -copy / 4) for copy in range(10)]
    copies += [Arc(1 + copy, 11, "cat(2)", -(9 - copy)) for copy in range(10)]
    found = scorer.best_path(Lattice(copies, {11: (0.0, 0.0)}), weight=1.0)
    assert found.paths[0].acoustic == -9 / 4 and found.work.words_scored == 2
    assert [arc.end for arc in found.paths[0].arcs] == [10, 11]


@pytest.mark.parametrize("beam", [1, 8])
@pytest.mark.parametrize("limit", [{"max_tokens": 0}, {"max_tokens": 3}, {"deadline": 0.0},
                                   {"gap": 2.0}, {"gap": 1e6}])
def test_what_a_limit_leaves_open_is_certified(oracle: Oracle, bundle: Path,
                                               limit: dict[str, float], beam: int,
                                               make_scorer: MakeScorer,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BEAM", beam)
    for seed in range(8):
        lattice = random_lattice(seed)
        expected = ranked(oracle, lattice)
        totals = {text: total for total, text in expected}
        found = find(make_scorer(bundle), lattice, paths_a_call=1, **limit)
        path, tolerance = found.paths[0], TOLERANCE * 40
        assert path.total == pytest.approx(totals[path.text], abs=tolerance)
        assert found.gap >= expected[0][0] - path.total - tolerance
        assert found.gap <= limit.get("gap", math.inf)
        assert found.proven == (found.gap == 0)
        if found.proven:
            assert path.text == expected[0][1]
    if "gap" not in limit and beam == 1:
        assert found.gap > 0  # or the limit was none


def test_what_goes_on_after_a_limit_is_what_looks_best(bundle: Path, make_scorer: MakeScorer,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    networks = [confusion_network([{word: -place / 4 for place, word in enumerate(
        random.Random(seed + slot).sample(["the", "a", "cat", "cats", "mat", "sat"], 4))}
        for slot in range(5)]) for seed in range(6)]

    def totals(**limit: int) -> list[float]:
        found = make_scorer(bundle).best_paths(networks, weight=1.0, word_insertion_bonus=0.0,
                                               **limit)
        return [one.paths[0].total for one in found]

    best, near = totals(), []
    for beam in (1, 8):
        monkeypatch.setattr(search, "BEAM", beam)
        near.append(sum(right - total for right, total in zip(best, totals(max_tokens=0))))
    assert -1e-2 < near[1] < near[0] / 2


def test_a_log_probability_above_0_proves_nothing(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, tokenizer=merges_words)
    found = scorer.best_path(confusion_network([{"a": 0.0}, {"b": 0.0, "c": -1.0}]), weight=1.0)
    context, text = (scorer.score_texts([text])[0] for text in ("a", "a b"))
    assert text > context  # what the test is about
    assert not found.proven and found.gap == math.inf


def merges_words(text: str) -> list[int]:
    """"a b" is one token, and a likely one; "a" is three."""
    return {"": [], "a": [7, 8, 9], "a b": [5], "a c": [7, 8, 9, 6]}[text]


def test_the_rule_for_words(scorer: lmfusion.LMFusionScorer) -> None:
    lattice = confusion_network([{"NEW_YORK": 0.0}, {"um": 0.0}, {"is": 0.0}])
    found = scorer.best_path(lattice, word_insertion_bonus=2.0, weight=0.0, words=lambda label: {
        "um": ""}.get(label, label.lower().replace("_", " ")))
    assert found.paths[0].text == "new york is"
    assert found.paths[0].words == ("new", "york", "is") and found.paths[0].total == 6.0


def test_scores_of_an_ngram(scorer: lmfusion.LMFusionScorer) -> None:
    def log_prob(before: tuple[str, ...], word: str) -> float:
        assert len(before) <= 2 and word in {*LABELS.values(), "</s>"}
        return -len(" ".join(before)) / 4 - len(word) / 2

    for seed in range(6):
        lattice = random_lattice(seed)
        best: dict[tuple[str, ...], float] = {}
        for words, score in by_text(lattice, ngram=0.0).items():
            said = ["<s>", *words, "</s>"]
            best[words] = score + NGRAM * sum(log_prob(tuple(said[max(0, i - 2):i]), said[i])
                                              for i in range(1, len(said)))
        found = find(scorer, with_ngram(lattice, log_prob), n=len(best), weight=0.0)
        assert {path.words: path.total for path in found.paths} == pytest.approx(best)


def test_copied_arcs_are_made_when_asked_for() -> None:
    lattice = Lattice([Arc(0, 1, "the", -1.0, 0.0, (0.0, 0.5)), Arc(0, 1, "a", -2.0),
                       Arc(1, 2, "cat", -3.0)], {2: (-0.5, 0.0)})
    copied = with_ngram(lattice, lambda before, word: -len(before) - len(word) / 8, order=2)
    first, *others = copied.arcs
    assert first == copied.arcs[0] == Arc(0, 1, "the", -1.0, -1.375, (0.0, 0.5))
    assert [arc.start for arc in others] == [0, 1, 2] and copied.arcs[1:] == tuple(others)
    assert copied.arcs[-1] == Arc(2, 3, "cat", -3.0, -1.375) and len(copied.arcs) == 4
    assert copied == Lattice(tuple(copied.arcs), copied.finals) and hash(copied.arcs)
    assert copied.finals == {3: (-0.5, -1.5)}


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_an_ngram_without_a_score(score: float) -> None:
    lattice = Lattice([Arc(0, 1, "the"), Arc(1, 2, "cat")], {2: (0.0, 0.0)})
    for bad in ("cat", "</s>"):
        with pytest.raises(LatticeError, match="the n-gram score is") as raised:
            with_ngram(lattice, lambda before, word, bad=bad: score if word == bad else -1.0)
        assert bad not in str(raised.value)


def test_a_chain_of_pauses_as_long_as_a_talk(scorer: lmfusion.LMFusionScorer) -> None:
    """Nothing is found by recursion."""
    arcs = [Arc(node, node + 1, "", -0.5) for node in range(5000)]
    found = scorer.best_path(Lattice([*arcs, Arc(5000, 5001, "cat")], {5001: (0.0, 0.0)}))
    assert found.paths[0].text == "cat" and found.paths[0].acoustic == -2500
    assert len(found.paths[0].arcs) == 5001


BAD = {
    "cycle": ([Arc(0, 1, "a"), Arc(1, 2, "b"), Arc(2, 1, "c"), Arc(2, 3, "d")], {3: (0, 0)}),
    "cycle that": ([Arc(0, 0, "a"), Arc(0, 1, "b")], {1: (0, 0)}),
    "no final": ([Arc(0, 1, "a")], {}),
    "no path leads": ([Arc(0, 1, "a"), Arc(2, 3, "b")], {3: (0, 0)}),
    "acoustic score is nan": ([Arc(0, 1, "a", math.nan)], {1: (0, 0)}),
    "n-gram score is inf": ([Arc(0, 1, "a", 0.0, math.inf)], {1: (0, 0)}),
    "final node 1: the n-gram score is nan": ([Arc(0, 1, "a")], {1: (0, math.nan)}),
    "numbered from 0": ([Arc(-1, 1, "a")], {1: (0, 0)}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_lattices(message: str) -> None:
    with pytest.raises(LatticeError, match=message):
        Lattice(*BAD[message])


def test_a_lattice_without_a_possible_path(scorer: lmfusion.LMFusionScorer) -> None:
    lattice = Lattice([Arc(0, 1, "a", -math.inf)], {1: (0, 0)})
    with pytest.raises(LatticeError, match="-inf"):
        scorer.best_path(lattice)
    assert scorer.best_path(lattice, acoustic_scale=0.0).paths[0].text == "a"


@pytest.mark.parametrize("option", [
    {"n": 0}, {"paths_a_call": 0}, {"max_tokens": -1}, {"deadline": -1.0}, {"gap": math.nan},
    {"weight": -1.0}, {"weight": math.nan}, {"acoustic_scale": -1.0}, {"ngram_weight": math.inf},
    {"word_insertion_bonus": math.nan}, {"endings": "."}, {"endings": [".", "."]},
    {"endings": ["?", "?!"]}])
def test_options_that_cannot_be_right(scorer: lmfusion.LMFusionScorer,
                                      option: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        scorer.best_path(confusion_network([{"a": 0.0}]), **option)
    assert scorer.best_path(confusion_network([{"a": 0.0}])).proven
