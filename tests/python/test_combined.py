"""More than one model in a score, against their sums; kenlm runs for real."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmfusion
import numpy
import pytest
from oracle import Oracle

TOLERANCE = 2e-3  # nats a text of some tokens; float32 noise of two sums of differences


ARPA = """\\data\\
ngram 1=6
ngram 2=4

\\1-grams:
-1.5\t<unk>
-99\t<s>\t-0.4
-1.2\t</s>
-0.7\tthe\t-0.3
-1.1\tcat\t-0.2
-1.3\tsat\t-0.1

\\2-grams:
-0.2\t<s> the
-0.4\tthe cat
-0.5\tcat sat
-0.9\tcat </s>

\\end\\
"""


def test_an_n_gram_model(scorer: lmfusion.LMFusionScorer, tmp_path: Path) -> None:
    pytest.importorskip("kenlm", reason="pip install kenlm to test n-gram models")
    (tmp_path / "lm.arpa").write_text(ARPA)
    model = lmfusion.combined.NGram(tmp_path / "lm.arpa")
    nat = math.log(10)
    assert model.log_probs(["", "the", "The CAT", "sat the"],
                           [["the", "cat"], ["cat", "the"], ["sat", "zebra"], ["cat sat"]]) == [
        pytest.approx([-0.2 * nat, (-0.4 - 1.1) * nat]),
        pytest.approx([-0.4 * nat, (-0.3 - 0.7) * nat]),
        pytest.approx([-0.5 * nat, (-0.2 - 1.5) * nat]),
        pytest.approx([(-0.4 - 0.5) * nat])]
    assert model.score_texts(["the cat"]) == [pytest.approx((-0.2 - 0.4) * nat)]
    assert model.log_prob("the", "cat") == pytest.approx(-0.4 * nat)
    late = scorer.score_continuations(["the"], [["cat"]], deadline=0.0, fallback=model.log_prob)
    assert late == [[pytest.approx(0.5 * -0.4 * nat + 1.0)]]


def test_phrases_survive_casing_and_partial_matches_are_taken_back() -> None:
    phrases = lmfusion.PhraseList({"new york": 4.0, "Ada": 3.0, "new york city": 9.0, "uh": -1.0})

    def gains(text: str) -> list[float]:
        words = text.split()
        return [phrases.log_probs([" ".join(words[:i])], [[word]])[0][0]
                for i, word in enumerate(words)]

    assert gains("ADA met") == [3.0, 0.0]
    assert gains("in New York.") == [0.0, pytest.approx(3.0), pytest.approx(7.0)]
    assert gains("new shoes") == [pytest.approx(3.0), pytest.approx(-3.0)]
    assert sum(gains("uh new york city, ada")) == pytest.approx(-1.0 + 4.0 + 9.0 + 3.0)
    for text in ("uh new york city, ada", "new new york", "ada ada", ""):
        pending = 3.0 if text.endswith("new") else 0.0
        whole = phrases.score_texts([text])[0]
        if not text.endswith("york"):
            assert sum(gains(text)) - pending == pytest.approx(whole)
    with pytest.raises(ValueError, match="no words"):
        lmfusion.PhraseList({"...": 1.0})


def test_a_combination_is_a_weighted_sum_and_reweighs_without_asking(
        scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    combined = lmfusion.CombinedScorer(
        {"llm": scorer, "phrases": lmfusion.PhraseList({"cat": 2.0})},
        {"llm": 0.5, "phrases": 1.5}, word_insertion_bonus=0.25)
    contexts, words = ["the", "and"], [["cat", "sand"], ["you"]]
    parts = combined.parts(contexts, words)
    llm = [[oracle.word(context, word) for word in row] for context, row in zip(contexts, words)]
    extra = [[2.0, 0.0], [0.0]]
    wanted = [[0.5 * a + 1.5 * b + 0.25 for a, b in zip(*rows)] for rows in zip(llm, extra)]
    for found, row_ in zip(combined.score_continuations(contexts, words), wanted, strict=True):
        assert found == pytest.approx(row_, abs=TOLERANCE)
    calls = scorer.stats().calls
    other = combined.combine(parts, weights={"llm": 0.0, "phrases": 3.0}, word_insertion_bonus=0.0)
    assert other == [[6.0, 0.0], [0.0]] and scorer.stats().calls == calls
    combined.weights["phrases"] = 0.0
    assert combined.combine(parts)[0][0] == pytest.approx(0.5 * llm[0][0] + 0.25, abs=TOLERANCE)
    assert combined.score_texts(["the cat"]) == [
        pytest.approx(0.5 * oracle.text("the cat"), abs=TOLERANCE)]
    with pytest.raises(ValueError, match="one weight a model"):
        lmfusion.CombinedScorer({"llm": scorer}, {"lm": 1.0})


@pytest.mark.parametrize("text", ["i met ada", "i met ada lovelace", "ada lovelace and ada",
                                  "ada ada", "", "uh", "the new york"])
def test_phrases_cut_off_by_the_end_are_taken_back(text: str) -> None:
    phrases = lmfusion.PhraseList({"Ada Lovelace": 6.0, "uh": -2.0, "New York Times": 9.0})
    words = text.split()
    steps = phrases.log_probs([" ".join(words[:i]) for i in range(len(words))],
                              [[word] for word in words])
    (ends,) = phrases.score_endings([text], [".", "?"])
    assert ends[0] == ends[1]
    assert sum(step for (step,) in steps) + ends[0] == pytest.approx(
        phrases.score_texts([text])[0])


def test_a_combination_takes_what_a_scorer_takes(bundle: Path, oracle: Oracle) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    combined = lmfusion.CombinedScorer(
        {"llm": scorer, "phrases": lmfusion.PhraseList({"cat": 2.0})},
        {"llm": 0.5, "phrases": 1.5}, word_insertion_bonus=0.25)
    contexts, words = ["the", "and"], [["cat", "sand"], ["you"]]
    plain = combined.score_continuations(contexts, words)
    low = min(score for row in plain for score in row)
    above = low + 0.01
    for floor in (above, numpy.float32(above), [[above] * len(row) for row in words]):
        assert combined.score_continuations(contexts, words, floor=floor) == [
            [-math.inf if score == low else score for score in row] for row in plain]
    with pytest.raises(ValueError, match="floor has 1 rows for 2 contexts"):
        combined.score_continuations(contexts, words, floor=[[0.0, 0.0]])
    with pytest.raises(ValueError, match=r"floor\[0\]\[0\] is NaN"):
        combined.score_continuations(contexts, words, floor=math.nan)
    assert combined.score_continuations(contexts, words, deadline=0) == [[None, None], [None]]
    assert combined.score_continuations(contexts, words, deadline=1e9) == plain
    late = combined.score_continuations(contexts, words, deadline=0, floor=-3.0,
                                        fallback=lambda context, word: -len(context + word))
    assert late == [[-math.inf, -math.inf], [-math.inf]]
    late = combined.score_continuations(contexts, words, deadline=0,
                                        fallback=lambda context, word: -len(context + word))
    assert late == [[-6 + 0.25, -7 + 0.25], [-6 + 0.25]]
    for one in (combined, scorer):
        with pytest.raises(ValueError, match="fallback without deadline"):
            one.score_continuations(contexts, words, fallback=lambda context, word: 0.0)
    ended = scorer.score_texts(["the cat"], eos=True)[0] * 0.5 + 1.5 * 2.0
    assert combined.score_texts(["the cat"], eos=True) == [pytest.approx(ended)]
    computed = scorer.stats().tokens_computed
    combined.score_continuations(contexts, words, cache_namespace="a")
    assert scorer.stats().tokens_computed > computed  # shares nothing with ""
    assert combined.combine(combined.parts(contexts, words), weights={}) == [[0.25, 0.25], [0.25]]
    states = lmfusion.StateScorer(combined, endings=[".", "?"])  # type: ignore[arg-type]
    log_prob, state = states.score(states.start("the"), "cat")
    assert log_prob == pytest.approx(0.5 * oracle.word("the", "cat") + 1.5 * 2.0, abs=TOLERANCE)
    ends = [0.5 * (oracle.text(f"the cat{mark}") - oracle.text("the cat")) for mark in ".?"]
    assert states.finish(state) == pytest.approx(
        math.log(sum(map(math.exp, ends))), abs=TOLERANCE)


def test_a_combination_reads_what_stands_before_and_tells_how_far_it_is(bundle: Path) -> None:
    one, other = lmfusion.LMFusionScorer(bundle), lmfusion.LMFusionScorer(bundle, bos="none")
    combined = lmfusion.CombinedScorer(
        {"one": one, "phrases": lmfusion.PhraseList({"cat": 2.0}), "other": other},
        {"one": 0.5, "phrases": 1.5, "other": 0.25}, word_insertion_bonus=1.0)
    before: dict[str, Any] = {"context": ["a mat"], "prompt": "you:"}
    reports: list[tuple[int, int]] = []

    def told(total: int) -> Callable[[int, int], None]:
        reports.clear()
        return lambda done, of: reports.append((done, of))

    def check_reports(total: int) -> None:
        assert reports == sorted(reports) and reports[-1] == (total, total)

    wanted = [0.5 * a + 1.5 * b + 0.25 * c for a, b, c in zip(
        one.score_texts(["the cat"], **before), [2.0], other.score_texts(["the cat"], **before))]
    assert combined.score_texts(["the cat"], progress=told(2), **before) == pytest.approx(wanted)
    check_reports(2)
    assert combined.score_texts(["the cat"], base=2, **before) == pytest.approx(
        [score / math.log(2) for score in wanted])
    words = [["cat", "mat", "hand"]]
    rows = [[0.5 * a + 1.5 * b + 0.25 * c for a, b, c in zip(*rows)] for rows in zip(
        one.log_probs(["the"], words, **before), [[2.0, 0.0, 0.0]],
        other.log_probs(["the"], words, **before))]
    assert combined.log_probs(["the"], words, progress=told(6), **before) == [
        pytest.approx(rows[0])]
    check_reports(6)
    assert combined.score_continuations(["the"], words, progress=told(6), **before) == [
        pytest.approx([score + 1.0 for score in rows[0]])]
    check_reports(6)
    low = min(rows[0])
    assert combined.log_probs(["the"], words, floor=low + 1e-3, **before) == [
        [-math.inf if score == low else pytest.approx(score) for score in rows[0]]]
    assert combined.log_probs(["the"], words, deadline=0, fallback=lambda *_: -7.0) == [[-7.0] * 3]
    endings = combined.score_endings(["the cat"], [".", "?"], progress=told(4), **before)
    check_reports(4)
    ended = zip(one.score_endings(["the cat"], [".", "?"], **before)[0],
                other.score_endings(["the cat"], [".", "?"], **before)[0])
    assert endings == [pytest.approx([0.5 * a + 0.25 * b for a, b in ended])]

    def enough(done: int, total: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        combined.score_texts(["the hand"], progress=enough)
    states = lmfusion.StateScorer(combined, **before)  # type: ignore[arg-type]
    assert states.score(states.start("the"), "cat")[0] == pytest.approx(rows[0][0])
