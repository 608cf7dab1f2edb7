"""What a scorer says about itself and its calls: explanations, threads, states."""

from __future__ import annotations

import math
import sys
import threading
import time
from pathlib import Path

import lmfusion
import pytest
import torch
from lmfusion import _core
from oracle import Oracle

TOLERANCE = 2e-3


def test_an_explanation_of_variants_is_of_one_form(oracle: Oracle, bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, casing="variants", weight=0.5,
                                     word_insertion_bonus=1.0)
    shown = set()
    for context in ("", "the", "the cat sat on", "i am"):
        for word in ("the", "cat", "mat", "i"):
            found = scorer.explain(context, word)
            by_form = {f"{context} {form}".strip(): oracle.word(context, form)
                       for form in dict.fromkeys((word, word.capitalize(), word.upper()))}
            assert {form.text: form.log_prob for form in found.forms} == pytest.approx(
                by_form, abs=TOLERANCE)
            assert found.text == max(found.forms, key=lambda form: form.log_prob).text
            assert [token.id for token in found.tokens] == oracle.ids(found.text)
            total = (sum(token.log_prob for token in found.tokens if token.scored)
                     - sum(token.log_prob for token in found.subtracted))
            assert total == pytest.approx(found.log_prob, abs=1e-5)
            assert found.log_prob == pytest.approx(by_form[found.text], abs=TOLERANCE)
            every = torch.tensor(list(by_form.values())).logsumexp(0).item()
            assert found.candidate_log_prob == pytest.approx(every, abs=TOLERANCE)
            assert found.candidate_log_prob == scorer.log_probs([context], [[word]])[0][0]
            assert found.score == 0.5 * found.candidate_log_prob + 1.0
            shown.add(word == found.text.split()[-1])
    assert shown == {True, False}  # else this test shows nothing


def test_one_form_is_the_candidate(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, casing="sentence", boundary="word")
    found = scorer.explain("well", "i")
    assert [form.text for form in found.forms] == [found.text] == ["Well I"]
    assert found.log_prob == found.candidate_log_prob == found.forms[0].log_prob
    total = (sum(token.log_prob for token in found.tokens if token.scored)
             - sum(token.log_prob for token in found.subtracted)
             + found.word_end_log_prob - found.word_begin_log_prob)
    assert total == pytest.approx(found.log_prob, abs=1e-5)


def test_an_explanation_counts_its_own_tokens(bundle: Path) -> None:
    """Other threads score all the while; nothing is shared, so each explanation computes all."""
    scorer = lmfusion.LMFusionScorer(bundle)
    over = threading.Event()

    def others(name: str) -> None:
        for i in range(100_000):
            if over.is_set():
                return
            scorer.score_texts([f"{i} the cat sat on the mat"], cache_namespace=name)

    threads = [threading.Thread(target=others, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    try:
        for i in range(40):
            found = scorer.explain(f"{i} the cat", "sat", cache_namespace=str(i))
            assert found.tokens_computed == len(found.tokens) - 1
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_stats_while_a_call_needs_the_interpreter(bundle: Path) -> None:
    """A casing function needs the interpreter's lock inside a call, while other threads ask for and
    reset stats without end. Whoever held one lock and waited for the other would hang here."""
    def casing(text: str) -> str:
        time.sleep(0)
        return text

    scorer = lmfusion.LMFusionScorer(bundle, casing=casing)
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            scorer.stats()
            scorer.reset_stats()

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for i in range(30):
            assert math.isfinite(scorer.score_texts([f"the cat {i}"])[0])
    finally:
        sys.setswitchinterval(interval)
        over.set()
        for thread in threads:
            thread.join()


def test_log_sum_exp_of_what_cannot_be(bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, homophone_aggregation="logsumexp")
    assert scorer.aggregate_homophone_scores([-math.inf, -math.inf]) == -math.inf
    assert scorer.aggregate_homophone_scores([-math.inf, -2.0]) == -2.0
    assert _core.log_sum_exp([-math.inf] * 3) == -math.inf
    assert _core.log_sum_exp([-1000.0, -1000.0]) == pytest.approx(-1000 + math.log(2))


class Impossible:
    """A scorer after which no text may end."""

    def score_endings(self, texts: list[str], endings: list[str], *,
                      cache_namespace: str = "") -> list[list[float]]:
        return [[-math.inf] * len(endings) for _ in texts]


def test_a_state_that_cannot_end_has_no_nan() -> None:
    states = lmfusion.StateScorer(Impossible(), endings=[".", "?"])  # type: ignore[arg-type]
    assert states.finish(states.start("the")) == -math.inf


@pytest.mark.parametrize(("context", "word", "wanted"), [
    ("", "a", "a"), ("a", "", "a"), ("a", "b", "a b"), ("a ", "b", "a b"), ("a", " b", "a b"),
    ("a ", " b", "a  b"), ("日本", "語", "日本語"), ("a\n", "b", "a\nb"),
    ("a", "\u00a0b", "a\u00a0b"), ("it", "'s", "it's"), ("tea", ".", "tea."),
    ("저는", "책", "저는 책")])
def test_states_join_as_the_scorer_does(bundle: Path, context: str, word: str,
                                        wanted: str) -> None:
    assert lmfusion.State(context).after(word).text == wanted
    assert lmfusion.LMFusionScorer(bundle).explain(context, word).text == wanted


def test_an_explanation_of_a_long_text_adds_up(oracle: Oracle, bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, max_context_length=20)
    context, word = "the cat sat on the mat " * 4, "and another cat sat on the other mat"
    found = scorer.explain(context, word)
    scored = [token for token in found.tokens if token.scored]
    assert len(scored) == len(oracle.ids(context + word)) - len(oracle.ids(context.rstrip()))
    total = (sum(token.log_prob for token in scored)
             - sum(token.log_prob for token in found.subtracted))
    assert total == pytest.approx(found.log_prob, abs=1e-4)
    assert found.log_prob == scorer.log_probs([context], [[word]])[0][0]


SENTENCES = ["the cat sat on the mat", "naïve  o'clock,\n1,234 tables ", "", "cat", " the"]


def test_tokens_of_texts(oracle: Oracle, bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    totals = scorer.score_texts(SENTENCES)
    for text, row, total in zip(SENTENCES, scorer.token_log_probs(SENTENCES), totals, strict=True):
        ids = oracle.ids(text)
        assert [piece for piece, _ in row] == oracle.tokenizer.convert_ids_to_tokens(ids[1:])
        wanted = oracle.tokens_log_prob(ids) if len(ids) > 1 else []
        assert [log_prob for _, log_prob in row] == pytest.approx(wanted, abs=1e-4)
        assert sum(log_prob for _, log_prob in row) == pytest.approx(total, abs=1e-4)
    in_bits = scorer.token_log_probs(["the cat"], base=2)[0]
    assert in_bits[0][1] == pytest.approx(
        scorer.token_log_probs(["the cat"])[0][0][1] / math.log(2))
    long = lmfusion.LMFusionScorer(bundle, max_context_length=20)
    text = "the cat sat on the mat " * 4
    assert len(long.token_log_probs([text])[0]) == len(oracle.ids(text)) - 1


def test_words_of_texts(oracle: Oracle, bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    for text, row in zip(SENTENCES, scorer.word_log_probs(SENTENCES), strict=True):
        assert [word for word, _ in row] == text.split()
        assert sum(log_prob for _, log_prob in row) == pytest.approx(
            oracle.text(text), abs=TOLERANCE)
    ((the, cat, sat),) = scorer.word_log_probs(["the cat sat"])
    for (word, log_prob), context in ((the, ""), (cat, "the"), (sat, "the cat")):
        assert log_prob == pytest.approx(oracle.word(context, word), abs=TOLERANCE)
    assert scorer.word_log_probs(["the cat sat"], base=10)[0][1][1] == pytest.approx(
        cat[1] / math.log(10))


def test_bases_and_perplexity(oracle: Oracle, bundle: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle)
    (nats,) = scorer.score_texts(["the cat"])
    assert scorer.score_texts(["the cat"], base=2) == [pytest.approx(nats / math.log(2))]
    for score in (lambda **base: scorer.log_probs(["the", "a"], [["cat", "dog"], []], **base),
                  lambda **base: scorer.score_endings(["the cat", "a"], [".", ""], **base)):
        for row, in_tens in zip(score(), score(base=10), strict=True):
            assert in_tens == pytest.approx([log_prob / math.log(10) for log_prob in row])
    late = scorer.log_probs(["the"], [["cat"]], deadline=0, base=2)
    assert late == [[None]]
    late = scorer.log_probs(["the"], [["cat"]], deadline=0, fallback=lambda *_: -1.0, base=2)
    assert late == [[pytest.approx(-1 / math.log(2))]]
    for base in (0, 1, -2.0, math.nan):
        with pytest.raises(ValueError, match="base"):
            scorer.score_texts(["the cat"], base=base)
    found = scorer.perplexity(["the cat sat", ""])
    log_probs = oracle.tokens_log_prob(oracle.ids("the cat sat"))
    assert found[0] == pytest.approx(math.exp(-sum(log_probs) / len(log_probs)), rel=1e-4)
    assert math.isnan(found[1])


def test_a_start_token_by_its_id(oracle: Oracle, bundle: Path) -> None:
    text = "the cat"
    other = Oracle(oracle.model, oracle.tokenizer, 2)

    def ids(text: str) -> list[int]:
        return oracle.tokenizer(text, add_special_tokens=False)["input_ids"]

    for tokenizer in (None, ids):
        scorer = lmfusion.LMFusionScorer(bundle, bos_id=2, tokenizer=tokenizer)
        assert scorer.score_texts([text]) == [pytest.approx(other.text(text), abs=TOLERANCE)]
    with pytest.raises(ValueError, match="bos_id = 1000000 is not within the vocabulary"):
        lmfusion.LMFusionScorer(bundle, bos_id=10**6)
    with pytest.raises(ValueError, match="both given"):
        lmfusion.LMFusionScorer(bundle, bos_id=2, bos="none")
    assert lmfusion.LMFusionScorer(bundle, bos_id=0).options["bos_id"] == 0


def test_the_tokenizer_of_a_scorer(oracle: Oracle, bundle: Path) -> None:
    tokenizer = lmfusion.LMFusionScorer(bundle).tokenizer  # outlives the scorer
    ids = tokenizer.encode("the cat sat")
    assert ids == oracle.tokenizer("the cat sat", add_special_tokens=False)["input_ids"]
    assert [tokenizer.piece(i) for i in ids] == oracle.tokenizer.convert_ids_to_tokens(ids)
    assert tokenizer.vocabulary_size == len(oracle.tokenizer)
    own = lmfusion.LMFusionScorer(bundle, tokenizer=lambda text: [1, 2])
    assert own.tokenizer.encode("the cat") == [1, 2]
