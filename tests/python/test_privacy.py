"""What is said in calls stays there: it is in no error, repr, log, warning or counter, and does not
show in what another namespace's calls cost."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmfusion
import pytest
from lmfusion.lattice import Arc, Lattice
from oracle import Oracle, requests

SECRET = "abracadabra"
BAD = f"{SECRET}\ud800{SECRET}"  # a lone surrogate: no UTF-8
LONG = " ".join([SECRET] * 400)
Call = Callable[[lmfusion.LMFusionScorer, Path], Any]

WRONG: dict[str, Call] = {
    "text": lambda s, _: s.score_texts([SECRET, BAD]),
    "context": lambda s, _: s.log_probs([BAD], [[SECRET]]),
    "word": lambda s, _: s.log_probs([SECRET], [[BAD]]),
    "ending": lambda s, _: s.score_endings([SECRET], [BAD]),
    "ended text": lambda s, _: s.score_endings([BAD]),
    "explained": lambda s, _: s.explain(BAD, SECRET),
    "best": lambda s, _: s.best([[SECRET, BAD]]),
    "history": lambda s, _: s.score_texts([SECRET], context=[SECRET, BAD]),
    "prompt": lambda s, _: s.score_texts([SECRET], prompt=BAD),
    "primed": lambda s, _: s.prime([SECRET, BAD]),
    "vocabulary": lambda s, _: s.prime([SECRET], vocabulary=[BAD]),
    "namespace": lambda s, _: s.score_texts([SECRET], cache_namespace=BAD),
    "too long": lambda s, _: s.score_texts([LONG]),
    "too much": lambda s, _: s.prime([LONG + SECRET + str(i) for i in range(9)]),
    "shapes": lambda s, _: s.log_probs([SECRET, SECRET], [[SECRET]]),
    "floor": lambda s, _: s.log_probs([SECRET], [[SECRET]], floor=[[1.0, 2.0]]),
    "no floor": lambda s, _: s.log_probs([SECRET], [[SECRET]], floor=float("nan")),
    "deadline": lambda s, _: s.log_probs([SECRET], [[SECRET]], deadline=float("nan")),
    "join": lambda s, _: s.log_probs([SECRET], [[SECRET]], join="after"),
    "saved": lambda s, path: s.save_cache(path / "no" / "folder", contexts=[SECRET]),
    "loaded": lambda s, path: s.load_cache(path / "nothing", cache_namespace=SECRET),
    "progress": lambda s, _: s.score_texts([SECRET], progress=lambda done, total: 1 / 0),
    "token": lambda s, _: s.score_token_paths([[1, 10**6]], [1], cache_namespace=SECRET),
    "context with scores": lambda s, _: s.score_continuations([BAD], [[SECRET]]),
    "word with scores": lambda s, _: s.score_continuations([SECRET], [[SECRET, BAD]]),
    "more than one text": lambda s, _: s.score_continuations([SECRET], [[SECRET], [SECRET]]),
    "text by token": lambda s, _: s.token_log_probs([SECRET, BAD]),
    "text by word": lambda s, _: s.word_log_probs([SECRET, BAD]),
    "perplexity": lambda s, _: s.perplexity([SECRET, BAD]),
    "texts in chunks": lambda s, _: s.score_texts_batch([SECRET, BAD]),
    "checked": lambda s, _: s.selfcheck([SECRET], [[BAD]]),
    "lattice": lambda s, _: s.best_path(Lattice([Arc(0, 1, BAD, 0.0)], {1: (0.0, 0.0)})),
    "lattices": lambda s, _: s.best_paths(
        [Lattice([Arc(0, 1, SECRET, 0.0), Arc(1, 2, BAD, 0.0)], {2: (0.0, 0.0)})]),
    "context of a lattice": lambda s, _: s.best_path(
        Lattice([Arc(0, 1, SECRET, 0.0)], {1: (0.0, 0.0)}), context=BAD),
    "phrase": lambda s, _: lmfusion.CombinedScorer(
        {"lm": s, "names": lmfusion.PhraseList({SECRET: 1.0})},
        weights={"lm": 1.0, "names": 1.0}).score_texts([SECRET, BAD]),
    "tokens of a combination": lambda s, _: lmfusion.CombinedScorer(
        {"lm": s}, weights={"lm": 1.0}).token_log_probs([SECRET, BAD]),
    "a combination explained": lambda s, _: lmfusion.CombinedScorer(
        {"lm": s}, weights={"lm": 1.0}).explain(SECRET, BAD),
    "verified": lambda s, _: lmfusion.Verified(s, s, 1.0).best([[SECRET, BAD]]),
    "verified shapes": lambda s, _: lmfusion.Verified(s, s, 1.0).best([[SECRET]], [[1.0, 2.0]]),
    "verified texts": lambda s, _: lmfusion.Verified(s, s, 1.0).score_texts([SECRET, BAD]),
    "margin": lambda s, _: lmfusion.calibrate(s, s, [[SECRET, BAD]]),
    "weights of phrases": lambda s, _: lmfusion.PhraseList({SECRET: float("nan")}),
    "history of states": lambda s, _: lmfusion.StateScorer(s).score(
        lmfusion.State(BAD), SECRET)}


def test_every_method_with_texts_is_tried() -> None:
    """A public method that is new must be in `WRONG` or be told to take no text."""
    no_texts = {"aggregate_homophone_scores", "stats", "reset_stats", "to", "close", "clear_cache",
                "from_pretrained"}
    methods = {name for name, value in vars(lmfusion.LMFusionScorer).items()
               if callable(value) and not name.startswith("_")} - no_texts
    source = Path(__file__).read_text()
    assert sorted(name for name in methods if f"s.{name}(" not in source) == []


def small(bundle: Path, oracle: Oracle, **options: Any) -> lmfusion.LMFusionScorer:
    return lmfusion.LMFusionScorer(bundle, kv_cache_bytes=100_000, casing="sentence", **options)


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_an_error_shows_no_text(call: Call, bundle: Path, oracle: Oracle, tmp_path: Path,
                                caplog: pytest.LogCaptureFixture,
                                capfd: pytest.CaptureFixture[str]) -> None:
    scorer = small(bundle, oracle)
    caplog.set_level(logging.NOTSET)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(Exception) as raised:  # noqa: PT011 (of any type)
            call(scorer, tmp_path)
        scorer.score_texts([SECRET])
    said = [*(str(each) + repr(each) for each in chained(raised.value)), caplog.text,
            *capfd.readouterr(), *(str(each.message) for each in warned)]
    assert not any(SECRET in each for each in said), said


def chained(error: BaseException | None) -> list[BaseException]:
    """An error and those that led to it: a traceback shows them all."""
    found = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def test_nothing_that_stays_shows_a_text(bundle: Path, oracle: Oracle) -> None:
    scorer = small(bundle, oracle)
    scorer.log_probs([SECRET], [[SECRET, "cat"]], cache_namespace=SECRET)
    scorer.score_texts([f"{SECRET} {SECRET}"])
    states = lmfusion.StateScorer(scorer)
    state = states.start(SECRET)
    combined = lmfusion.CombinedScorer({"lm": scorer, "names": lmfusion.PhraseList({SECRET: 1.0})},
                                       weights={"lm": 1.0, "names": 1.0})
    verified = lmfusion.Verified(scorer, scorer, 1.0)
    lattice = Lattice([Arc(0, 1, SECRET, 0.0)], {1: (0.0, 0.0)})
    stats = scorer.stats()
    kept = [scorer, stats, str(stats), scorer.options, states, state,
            lmfusion.PhraseList({SECRET: 1.0}),
            combined, verified, verified.best([[SECRET, "cat"]]), scorer.best([[SECRET]]), lattice]
    for each in kept:
        assert SECRET not in repr(each)
    assert SECRET in state.text


def spent(scorer: lmfusion.LMFusionScorer, seed: int, namespace: str) -> dict[str, int]:
    """All that a call of the namespace counts, but for clocks."""
    contexts, words = requests(seed)
    scorer.reset_stats()
    scorer.log_probs(contexts, words, cache_namespace=namespace)
    scorer.score_texts(contexts, cache_namespace=namespace)
    whole = ("calls", "candidates", "tokens_requested", "tokens_computed", "tokens_reused",
             "forwards", "text_bytes_tokenized", "truncated_contexts")
    return {name: getattr(scorer.stats(), name) for name in whole}


def test_namespaces_do_not_show_in_each_others_counters(bundle: Path) -> None:
    shared, own = lmfusion.LMFusionScorer(bundle), lmfusion.LMFusionScorer(bundle)
    for seed in range(4):
        spent(shared, seed, "neighbour")  # the very same texts
        first = spent(own, seed, "me")
        assert spent(shared, seed, "me") == first
        assert spent(own, seed, "me") != first
    for _ in range(2):
        shared.clear_cache("me")
        own.clear_cache()
        assert spent(shared, 0, "me") == spent(own, 0, "me")
