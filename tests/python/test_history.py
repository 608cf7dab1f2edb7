"""`context=` and `prompt=`: log p of a text after others, against Hugging Face on the whole."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import lmfusion
import pytest
from devices import MakeScorer
from oracle import TOLERANCE, WORDS, Oracle

PROMPT = "a talk about cats:"
CONTEXT = ["the cat sat on the mat", "don't sat, i'm on the mat "]
TEXTS = ["the cat", "", "cats on a mat", " the cat", "i'm", "'tis the cat", "the cat"]


def history(prompt: str, context: list[str]) -> str:
    """The whole that stands before a text, by the rule that docs/context.md gives."""
    whole = prompt
    for utterance in context:
        whole = after(whole, utterance)
    return whole


def after(before: str, text: str) -> str:
    space = before and text and not before[-1].isspace() and not text[0].isspace()
    return f"{before}{' ' if space else ''}{text}"


def expected(oracle: Oracle, before: str, text: str) -> float:
    return oracle.text(after(before, text)) - oracle.text(before)


def check(oracle: Oracle, before: str, texts: list[str], found: list[float]) -> None:
    for text, score in zip(texts, found, strict=True):
        tokens = len(oracle.ids(after(before, text)))
        assert score == pytest.approx(expected(oracle, before, text), abs=TOLERANCE * tokens)


@pytest.mark.parametrize("prompt", ["", PROMPT, "cats\n\n", "a mat "])
@pytest.mark.parametrize("context", [[], CONTEXT[:1], CONTEXT, ["", "x", ""]], ids=len)
def test_texts_after_others(scorer: lmfusion.LMFusionScorer, oracle: Oracle, prompt: str,
                            context: list[str]) -> None:
    before = history(prompt, context)
    found = scorer.score_texts(TEXTS, context=context, prompt=prompt)
    check(oracle, before, TEXTS, found)
    ended = scorer.score_texts(TEXTS, eos=True, context=context, prompt=prompt)
    for text, score, with_end in zip(TEXTS, found, ended):
        whole = after(before, text)
        end = oracle.text(whole, eos=scorer.description["eos_token_id"]) - oracle.text(whole)
        assert with_end - score == pytest.approx(end, abs=1e-4)
    if len(context) == 1:  # a text of its own stands for a list of it
        assert scorer.score_texts(TEXTS, context=context[0], prompt=prompt) == found


def test_words_endings_and_states(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    before = history(PROMPT, CONTEXT)
    contexts, words = ["", "the", "the cat"], [["the", "i'm", ""], ["cat", "cats"], ["sat"]]
    rows = scorer.log_probs(contexts, words, context=CONTEXT, prompt=PROMPT)
    for context, row, found in zip(contexts, words, rows):
        start = after(before, context)
        check(oracle, start, row, found)
    scores = scorer.score_continuations(contexts, words, context=CONTEXT, prompt=PROMPT)
    assert scores[1][0] == pytest.approx(0.5 * rows[1][0] + 1.0)
    endings = scorer.score_endings(["the cat"], [".", ""], context=CONTEXT, prompt=PROMPT)[0]
    whole = after(before, "the cat")
    assert endings[0] == pytest.approx(oracle.text(whole + ".") - oracle.text(whole), abs=1e-3)

    states = lmfusion.StateScorer(scorer, context=CONTEXT, prompt=PROMPT)
    total, state = 0.0, states.start()
    for word in ("the", "cat", "sat"):
        log_prob, state = states.score(state, word)
        total += log_prob
    assert total == pytest.approx(expected(oracle, before, "the cat sat"), abs=2e-3)
    assert states.finish(state) == pytest.approx(scorer.score_endings(
        ["the cat sat"], [""], context=CONTEXT, prompt=PROMPT)[0][0], abs=1e-5)
    states.prefetch([state])


@pytest.mark.parametrize("options", [{}, {"boundary": "word"}, {"mode": "uncached"},
                                     {"max_batch_tokens": 3}], ids=str)
@pytest.mark.parametrize("prompt", [PROMPT, "cats\n\n"])
def test_the_best_after_others(bundle: Path, make_scorer: MakeScorer, options: dict[str, object],
                               prompt: str) -> None:
    scorer = make_scorer(bundle, **options)
    generator = random.Random(3)
    lists = [[" ".join(generator.choices(WORDS, k=generator.randrange(6))) for _ in range(8)]
             for _ in range(5)]
    base = [[generator.randrange(8) / 2 for _ in texts] for texts in lists]
    best = scorer.best(lists, base, weight=1.0, word_insertion_bonus=0.0, n=2, context=CONTEXT,
                       prompt=prompt)
    for texts, scores, one in zip(lists, base, best):
        log_probs = make_scorer(bundle, **options).score_texts(texts, context=CONTEXT,
                                                               prompt=prompt)
        totals = [sum(pair) for pair in zip(scores, log_probs)]
        ranked = sorted(range(len(texts)), key=lambda i: -totals[i])
        assert [each.index for each in one.best] == ranked[:2]
        assert [each.log_prob for each in one.best] == pytest.approx(
            [log_probs[i] for i in ranked[:2]], abs=1e-4)
        for each in one.beaten:
            assert each.total >= totals[each.index] - 1e-4


JOINED = {  # before, text -> what stands between them under join="auto"
    ("今天天气", "很好"): "", ("今日は", "いい天気です"): "", ("วันนี้", "อากาศดี"): "",
    ("今天天气。", "很好"): "", ("我用", "Python 写"): "", ("오늘", "날씨가 좋다"): " ",
    ("the cat", "sat"): " ", ("the cat", "'s mat"): "", ("the cat", "’s mat"): "",
    ("the cat", ". sat"): "", ("(", "cat"): "", ("the cat\t", "sat"): "",
    ("the cat\u00a0", "sat"): "", ("the cat", "\u3000sat"): "", ("the cat\n\n", "sat"): "",
}


@pytest.mark.parametrize("join", ["auto", "space", "none"])
@pytest.mark.parametrize(("before", "text"), JOINED)
def test_what_stands_before_joins_as_words_do(bundle: Path, oracle: Oracle, before: str, text: str,
                                              join: str) -> None:
    separator = {"auto": JOINED[before, text], "none": "", "space":
                 "" if before[-1].isspace() or text[0].isspace() else " "}[join]
    whole = before + separator + text
    wanted = oracle.text(whole) - oracle.text(before)
    scorer = lmfusion.LMFusionScorer(bundle, join=join)
    tolerance = TOLERANCE * len(oracle.ids(whole))
    givens: list[dict[str, Any]] = [{"context": before}, {"prompt": before},
                                    {"context": ["", before]}]
    for history_of in givens:
        assert scorer.score_texts([text], **history_of)[0] == pytest.approx(wanted, abs=tolerance)
        (best,) = scorer.best([[text]], weight=1.0, **history_of)
        assert best.best[0].log_prob == pytest.approx(wanted, abs=tolerance)
        assert scorer.log_probs([""], [[text]], **history_of)[0][0] == pytest.approx(
            wanted, abs=tolerance)
        words = text.split(" ")
        states = lmfusion.StateScorer(scorer, join="space", **history_of)
        total, state = 0.0, states.start()
        for word in words:  # wherever it is split, the scores sum to the text's
            log_prob, state = states.score(state, word)
            total += log_prob
        if text[0] != "\u3000":
            assert total == pytest.approx(wanted, abs=tolerance)
        ended = scorer.score_endings([text], ["."], **history_of)[0][0]
        assert ended == pytest.approx(oracle.text(whole + ".") - oracle.text(whole),
                                      abs=tolerance)
    three = scorer.score_texts(["x"], prompt=before, context=[text])[0]  # utterances among them
    after_all = whole + scorer_separator(whole, "x", join)
    assert three == pytest.approx(oracle.text(after_all + "x") - oracle.text(whole), abs=tolerance)


GROWING = {  # text that grows letter by letter -> what stands before each, behind "the", by "auto"
    ".cat": ["", " ", " ", " "], "'tis": ["", "", " ", " "], "n't": [" ", " ", ""],
    "(今天": [" ", "", ""], "?!x": ["", "", " "], ".5 .": ["", " ", " ", " "],
    "'s mat": ["", "", "", "", "", ""], " cat": ["", "", "", ""],
}


@pytest.mark.parametrize("options", [{"join": "auto"}, {"join": "space"}, {"join": "none"},
                                     {"boundary": "word"}, {"casing": "variants"},
                                     {"mode": "uncached"}], ids=str)
@pytest.mark.parametrize("text", GROWING)
def test_a_text_that_grows_is_the_text_that_is_scored(bundle: Path, oracle: Oracle, text: str,
                                                      options: dict[str, Any]) -> None:
    """Each of its beginnings joins the prompt as it does as a context, and as a whole text."""
    scorer = lmfusion.LMFusionScorer(bundle, **options)
    join = options.get("join", "auto")
    wholes = ["the"]
    for end, separator in enumerate(GROWING[text], 1):
        separator = {"none": "", "auto": separator,
                     "space": "" if text[0] == " " else " "}[join]
        wholes.append("the" + separator + text[:end])
    steps = [scorer.log_probs([text[:i]], [[text[i]]], join="none", prompt="the")[0][0]
             for i in range(len(text))]
    if options.keys() <= {"join", "mode"}:
        for begun, grown, step in zip(wholes, wholes[1:], steps):
            assert step == pytest.approx(oracle.text(grown) - oracle.text(begun), abs=1e-3)
    if "casing" not in options:
        assert total(steps) == pytest.approx(
            scorer.score_texts([text], prompt="the")[0], abs=2e-3)
        assert total(steps[1:]) == pytest.approx(
            scorer.log_probs([text[0]], [[text[1:]]], join="none", prompt="the")[0][0], abs=2e-3)
        assert scorer.score_endings([text[0]], [text[1:]], prompt="the")[0][0] == pytest.approx(
            total(steps[1:]), abs=2e-3)
    for i in range(len(text)):  # together with others that leave it as it is
        row = scorer.log_probs([text[:i]], [[" cat", text[i], "", "x"]], join="none",
                               prompt="the")[0]
        assert row[1] == pytest.approx(steps[i], abs=1e-4) and row[2] == 0


def total(log_probs: list[float | None]) -> float:
    return sum(log_prob for log_prob in log_probs if log_prob is not None)


def scorer_separator(before: str, text: str, join: str) -> str:
    """A Latin letter after these: Chinese and Japanese take no space, others do."""
    last = before.rstrip("。")[-1]
    return "" if join == "none" or (join == "auto" and last in "好す天写") else " "


def test_another_call_between_passes_does_not_drop_the_prompt(bundle: Path,
                                                              oracle: Oracle) -> None:
    probe = lmfusion.LMFusionScorer(bundle)
    probe.score_texts(["the cat sat on a mat"])
    token = probe.stats().cache_bytes // probe.stats().cached_tokens
    prompt = " ".join(["the cat sat on a mat"] * 4)
    words = ["cat sat on", "mat cat you", "and sand hand"]
    alone = lmfusion.LMFusionScorer(bundle, weight=1.0)
    alone.score_continuations([""], [words], prompt=prompt, floor=-1e9)
    scorer = lmfusion.LMFusionScorer(bundle, weight=1.0,
                                     kv_cache_bytes=(len(oracle.ids(prompt)) + 45) * token)
    others: list[threading.Thread] = []
    asked = [" ".join((WORDS[i:] + WORDS[:i])[:7]) for i in range(8)]

    def progress(done: int, total: int) -> None:
        """Calls of other threads, which fill the cache, wait for the end of this pass."""
        if not others:
            others.extend(threading.Thread(target=scorer.score_texts, args=([text],),
                                           kwargs={"cache_namespace": "other"}) for text in asked)
            for other in others:
                other.start()
            time.sleep(0.2)

    scorer.score_continuations([""], [words], prompt=prompt, floor=-1e9, progress=progress)
    for other in others:
        other.join()
    assert scorer.stats().evictions > 0
    whole = lmfusion.LMFusionScorer(bundle)
    for text in asked:
        whole.score_texts([text], cache_namespace="other")
    assert (scorer.stats().tokens_computed - whole.stats().tokens_computed
            - alone.stats().tokens_computed) < len(oracle.ids(prompt)) / 2


def test_casing_is_of_each_text_alone(bundle: Path, make_scorer: MakeScorer,
                                      oracle: Oracle) -> None:
    scorer = make_scorer(bundle, casing="sentence")
    before = "talk: The cat sat. I'm on."
    found = scorer.score_texts(["the mat", "i'm"], context=["the cat sat.", "i'm on."],
                               prompt="talk:")
    check(oracle, before, ["The mat", "I'm"], found)
    rows = scorer.log_probs(["", "the"], [["the"], ["cat"]], context=["the cat sat."],
                            prompt="talk:")
    assert rows[0][0] == pytest.approx(expected(oracle, "talk: The cat sat.", "The"), abs=1e-3)


def test_a_history_is_computed_once(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    scorer.score_texts(["the cat"], context=CONTEXT, prompt=PROMPT)
    first = scorer.stats().tokens_computed
    assert first >= len(oracle.ids(history(PROMPT, CONTEXT)))
    scorer.score_texts(["a mat"], context=CONTEXT, prompt=PROMPT)
    scorer.score_texts(["cats"], context=[*CONTEXT, "a cat"], prompt=PROMPT)
    assert scorer.stats().tokens_computed - first < 20


def test_a_prompt_outlives_what_follows_it(bundle: Path, make_scorer: MakeScorer,
                                           oracle: Oracle) -> None:
    probe = make_scorer(bundle)
    probe.score_texts(["the cat sat on a mat"])
    token = probe.stats().cache_bytes // probe.stats().cached_tokens
    prompt = " ".join(["the cat sat on a mat"] * 4)
    scorer = make_scorer(bundle, kv_cache_bytes=(len(oracle.ids(prompt)) + 90) * token)
    generator = random.Random(1)
    computed = 0
    for _ in range(30):
        text = " ".join(generator.choices(WORDS, k=6))
        scorer.score_texts([text], prompt=prompt)
        computed += len(oracle.ids(after(prompt, text))) - len(oracle.ids(prompt))
    assert scorer.stats().evictions > 0
    assert scorer.stats().tokens_computed <= len(oracle.ids(prompt)) + computed


def test_the_oldest_are_dropped_in_blocks(scorer: lmfusion.LMFusionScorer,
                                          oracle: Oracle) -> None:
    utterances = [f"{WORDS[i % 7]} {i}" for i in range(40)]
    kept_from = []
    for count in range(1, 41):
        context = utterances[:count]
        scorer.reset_stats()
        found = scorer.score_texts(["the cat"], context=context)[0]
        off = [abs(found - expected(oracle, history("", context[start:]), "the cat"))
               for start in range(count)]
        start = off.index(min(off))
        assert off[start] < 1e-3
        kept_from.append(start)
        assert scorer.stats().truncated_contexts == (start > 0)
        if start > 0:  # no more than it takes
            assert len(oracle.ids(history("", context[start - 1:]))) > 60
    assert kept_from == sorted(kept_from)
    assert 1 < len(set(kept_from)) < len(kept_from) / 3  # moves, and rarely


def test_a_long_text_keeps_its_history(bundle: Path, make_scorer: MakeScorer,
                                       oracle: Oracle) -> None:
    """What max_context_length drops is the text's own, never the history."""
    scorer = make_scorer(bundle, max_context_length=8)
    text = "the cat sat on a mat " * 4
    prompt_ids = oracle.ids(PROMPT)
    ids = oracle.ids(after(PROMPT, text))
    assert ids[:len(prompt_ids)] == prompt_ids
    own = ids[len(prompt_ids):]
    total = 0.0
    for i, token in enumerate(own):
        dropped = 0 if i <= 8 else (i - 8 + 1) // 2 * 2
        total += oracle.tokens_log_prob([*prompt_ids, *own[dropped:i], token])[-1]
    found = scorer.score_texts([text], prompt=PROMPT)[0]
    assert found == pytest.approx(total, abs=TOLERANCE * len(ids))
    assert scorer.stats().truncated_contexts == 1


def test_what_cannot_be_right_is_refused(scorer: lmfusion.LMFusionScorer) -> None:
    with pytest.raises(TypeError, match=r"^context\[1\]: int found"):
        scorer.score_texts(["a"], context=["b", 1])
    with pytest.raises(TypeError, match="^prompt: NoneType found"):
        scorer.best([["a"]], prompt=None)
    with pytest.raises(lmfusion.TextError):
        scorer.log_probs(["a"], [["b"]], context=["\ud800"])
    with pytest.raises(ValueError, match="^prompt has .* tokens, and the model's positions leave"):
        scorer.score_texts(["a"], prompt="the cat " * 3000)
    assert scorer.score_texts(["the cat"])[0] < 0  # works on
