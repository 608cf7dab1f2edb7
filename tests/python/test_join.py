"""How words join their contexts, against plain Hugging Face on the texts as people write them."""

from __future__ import annotations

import itertools
from pathlib import Path

import lmfusion
import pytest
from devices import MakeScorer
from lmfusion.adapters.pieces import Pieces, WordEndScorer
from oracle import Oracle

TOLERANCE = 2e-3  # nats a text of some tokens
CASES = [("今天天气", "很好", "今天天气很好"), ("私は", "学生です", "私は学生です"),
         ("ฉันชอบ", "กินข้าว", "ฉันชอบกินข้าว"), ("저는", "학생", "저는 학생"),
         ("今天", "iPhone", "今天iPhone"), ("2024", "年", "2024年"), ("ใช้", "iPhone", "ใช้ iPhone"),
         ("i like tea", ".", "i like tea."), ("it", "'s", "it's"), ("do", "n’t", "don’t"),
         ("i like\n", "tea", "i like\ntea"), ("i like", "\u00a0tea", "i like\u00a0tea"),
         ("i", "'d've", "i'd've"), ("mother", "-in-law", "mother-in-law"), ("€", "5", "€5"),
         ("e", "\u0301", "e\u0301"), ("so (", "then", "so (then"),
         ("well-", "known", "well-known"), ("the", "cat", "the cat")]


def gain(oracle: Oracle, context: str, text: str) -> float:
    return oracle.text(text) - oracle.text(context)


@pytest.mark.parametrize(("context", "word", "text"), CASES)
def test_words_join_as_people_write_them(make_scorer: MakeScorer, bundle: Path, oracle: Oracle,
                                         context: str, word: str, text: str) -> None:
    scorer = make_scorer(bundle, weight=0.5)
    wanted = pytest.approx(gain(oracle, context, text), abs=TOLERANCE)
    assert scorer.log_probs([context], [[word]]) == [[wanted]]
    assert scorer.explain(context, word).text == text
    for casing in ("none", "variants", lambda given: given):
        cased = make_scorer(bundle, casing=casing)
        assert cased.explain(context, word).forms[0].text == text
    log_prob, state = lmfusion.StateScorer(scorer).score(lmfusion.State(context), word)
    assert (log_prob, state.text) == (wanted, text)
    ((score,),) = scorer.score_continuations([context], [[word]])
    assert score == pytest.approx(0.5 * gain(oracle, context, text), abs=TOLERANCE)


@pytest.mark.parametrize("join", ["space", "none"])
def test_a_join_by_option_and_by_call(make_scorer: MakeScorer, bundle: Path, oracle: Oracle,
                                      join: str) -> None:
    between = " " if join == "space" else ""
    by_option, by_call = make_scorer(bundle, join=join, weight=1.0), make_scorer(bundle, weight=1.0)
    assert by_option.options["join"] == join
    combined = lmfusion.CombinedScorer({"llm": by_call}, {"llm": 1.0})
    for context, word in [("今天", "很好"), ("it", "'s"), ("the", "cat")]:
        wanted = [[pytest.approx(gain(oracle, context, context + between + word), abs=TOLERANCE)]]
        assert by_option.log_probs([context], [[word]]) == wanted
        for scorer in (by_call, combined):
            assert scorer.log_probs([context], [[word]], join=join) == wanted
            assert scorer.score_continuations([context], [[word]], join=join) == wanted
            assert scorer.score_continuations([context], [[word]], join=join,
                                              deadline=1e9) == wanted
        assert by_call.explain(context, word, join=join).text == context + between + word
        states = lmfusion.StateScorer(by_call, join=join)
        assert states.score(states.start(context), word) == (
            wanted[0][0], lmfusion.State(context + between + word))
    by_call.clear_cache()
    by_call.prime(vocabulary=["很好"], after=["今天"], join=join)
    computed = by_call.stats().tokens_computed
    by_call.log_probs(["今天"], [["很好"]], join=join)
    assert by_call.stats().tokens_computed == computed


def test_a_join_that_is_none(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    for wrong in ("yes", ""):
        with pytest.raises(ValueError, match=f'join = "{wrong}"; one of "auto", "space", "none"'):
            lmfusion.LMFusionScorer(bundle, join=wrong)
        with pytest.raises(ValueError, match="join"):
            scorer.log_probs(["a"], [["b"]], join=wrong)
    with pytest.raises(TypeError, match="join"):
        scorer.log_probs(["a"], [["b"]], join=1)  # type: ignore[arg-type]
    assert lmfusion.LMFusionScorer(bundle, compat="hf").options["join"] == "space"
    assert lmfusion.LMFusionScorer(bundle, compat="hf", join="none").options["join"] == "none"


@pytest.mark.parametrize("casing", [lambda text: text.replace(" ", ""),
                                    lambda text: text.replace(" ", "") + "。",
                                    lambda text: text.replace(" ", "  ")])
def test_a_casing_that_changes_the_separator(bundle: Path, oracle: Oracle, casing: object) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, casing=casing, join="space")
    found = scorer.explain("今天 天气", "很好")
    before = found.text.encode()[:found.context_bytes].decode()
    assert before.replace(" ", "") == "今天天气" and found.text.startswith(before)
    assert found.log_prob == pytest.approx(gain(oracle, before, found.text), abs=TOLERANCE)
    lost = lmfusion.LMFusionScorer(bundle, casing=lambda text: "other")
    with pytest.raises(ValueError, match=r"candidate_words\[0\]\[0\]: the casing function changed"):
        lost.log_probs(["今天天气"], [["很好"]])


@pytest.mark.parametrize(("text", "written"), [
    ("今天天气", None), ("私は学生です", None), ("ฉันกิน", None),
    ("今天 iphone很好", "今天iphone很好"),
    ("the 天 cat", "the天cat"), ("the cat", None)])
def test_character_units_carry_their_scores_as_they_come(
        scorer: lmfusion.LMFusionScorer, oracle: Oracle, text: str, written: str | None) -> None:
    letters = sorted(set(text))
    units = ["<blank>", *(letter.replace(" ", "▁") for letter in letters), "<eos>"]
    end = len(units) - 1
    words = WordEndScorer(scorer, Pieces(units, special={0, end}), endings=("。",))
    path = [*(1 + letters.index(letter) for letter in text), end]
    rows = words.rows([path[:size] for size in range(len(path))], end)
    carried = [row[unit] for row, unit in zip(rows, path)]
    whole = written or text
    assert sum(carried) == pytest.approx(
        oracle.text(whole) + gain(oracle, whole, whole + "。"), abs=TOLERANCE)
    if " " not in text:  # every unit carries the one before it
        assert carried[:-1] == [0.0, *(
            pytest.approx(gain(oracle, text[:i], text[:i + 1]), abs=TOLERANCE)
            for i in range(len(text) - 1))]


def test_units_of_several_characters(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    units = ["▁今", "天天", "气", "▁the", "s", "<eos>"]
    words = WordEndScorer(scorer, Pieces(units, special={5}), endings=())
    for path in itertools.permutations(range(5)):
        rows = words.rows([path[:size] for size in range(6)], 5)
        text = "".join(units[i] for i in path).replace("▁", " ").strip()
        text = text.replace(" 今", "今").replace("气 the", "气the").replace("天天 the", "天天the")
        text = text.replace("今 the", "今the")
        total = sum(row[unit] for row, unit in zip(rows, [*path, 5]))
        assert total == pytest.approx(oracle.text(text), abs=TOLERANCE), text


def test_phrases_of_any_writing() -> None:
    phrases = lmfusion.PhraseList({"don’t go": 4.0, "cafe\u0301": 2.0, "天气很好": 8.0})
    assert phrases.score_texts(["Don't go", "don’t go", "caf\u00e9!", "CAFE\u0301"]) == [4, 4, 2, 2]
    steps = phrases.log_probs(["今天", "今天天气", "今天天气很", "今天天气很好", "do", "don't"],
                              [["天气"], ["很"], ["好"], ["吗", "，"], ["n’t"], ["go"]])
    assert steps == [[pytest.approx(2.0)], [pytest.approx(2.0)], [pytest.approx(2.0)],
                     [0.0, 0.0], [pytest.approx(2.0)], [pytest.approx(2.0)]]
    assert phrases.score_texts(["今天天气很好吗"]) == [8.0]
    assert phrases.log_probs(["今天天气"], [["不"]]) == [[pytest.approx(-4.0)]]
