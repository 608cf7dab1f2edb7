"""Long calls: they tell how far they are, and Ctrl-C ends them within a forward pass."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import lmfusion
import pytest
from lmfusion.lattice import Arc, Lattice

Reports = list[tuple[int, int]]

WORDS = "the of and to in a is that for it as was with be by on not he i this are or his".split()


def texts(count: int, words: int = 12) -> list[str]:
    chance = random.Random(count)
    return [" ".join(chance.choices(WORDS, k=words)) for _ in range(count)]


@pytest.fixture
def small(bundle: Path) -> lmfusion.LMFusionScorer:
    """Of small forward passes, so that every call takes several."""
    return lmfusion.LMFusionScorer(bundle, max_batch_tokens=16)


Call = Callable[[lmfusion.LMFusionScorer, Callable[[int, int], object]], object]
CALLS: dict[str, tuple[Call, int]] = {
    "score_continuations": (lambda s, p: s.score_continuations(
        texts(5), [WORDS[:4]] * 5, progress=p), 20),
    "score_continuations, deadline": (lambda s, p: s.score_continuations(
        texts(5), [WORDS[:4]] * 5, deadline=1000, progress=p), 20),
    "score_continuations, floor": (lambda s, p: s.score_continuations(
        texts(5), [WORDS[:4]] * 5, floor=-9, progress=p), 20),
    "log_probs": (lambda s, p: s.log_probs(texts(5), [WORDS[:4]] * 5, progress=p), 20),
    "score_texts": (lambda s, p: s.score_texts(texts(6), progress=p), 6),
    "token_log_probs": (lambda s, p: s.token_log_probs(texts(6), progress=p), 6),
    "word_log_probs": (lambda s, p: s.word_log_probs(texts(6, 5), progress=p), 30),
    "perplexity": (lambda s, p: s.perplexity(texts(6), progress=p), 6),
    "score_texts_batch": (lambda s, p: s.score_texts_batch(texts(6), progress=p), 6),
    "score_endings": (lambda s, p: s.score_endings(texts(6), progress=p), 18),
    "score_token_paths": (lambda s, p: s.score_token_paths(
        [[1, 2 + i, *range(3, 12)] for i in range(6)], [1] * 6, progress=p), 6),
    "best": (lambda s, p: s.best([texts(6), texts(4)], weight=1.0, progress=p), 10),
    "best, all of it": (lambda s, p: s.best(
        [texts(6), texts(4)], weight=-1.0, progress=p), 10),
    "prime": (lambda s, p: s.prime(texts(6), vocabulary=WORDS[:3], progress=p), 10),
}


@pytest.mark.parametrize("name", CALLS)
def test_progress_is_told_after_every_pass_and_at_the_end(
        small: lmfusion.LMFusionScorer, name: str) -> None:
    call, total = CALLS[name]
    if name == "score_continuations, floor":
        small.weight = 1.0
    reports: Reports = []
    call(small, lambda done, of: reports.append((done, of)))
    assert reports == sorted(reports)
    assert reports[-1] == (total, total)
    assert {of for _, of in reports} == {total}
    forwards = small.stats().forwards
    assert forwards >= 3
    assert forwards <= len(reports) <= 2 * forwards + 1


@pytest.mark.parametrize("mode", ["tree", "grouped", "uncached"])
def test_an_error_of_progress_ends_the_call_and_the_scorer_works_on(
        bundle: Path, mode: str) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, mode=mode, max_batch_tokens=16)
    asked = texts(20)
    right = lmfusion.LMFusionScorer(bundle).score_texts(asked)
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) == 3:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        scorer.score_texts(asked, progress=progress)
    assert scorer.stats().forwards == 3
    assert scorer.score_texts(asked) == pytest.approx(right, abs=1e-4)
    if mode == "tree":
        whole = lmfusion.LMFusionScorer(bundle, max_batch_tokens=16)
        whole.score_texts(asked)
        assert scorer.stats().tokens_computed == whole.stats().tokens_computed


def combined(scorer: lmfusion.LMFusionScorer) -> lmfusion.CombinedScorer:
    return lmfusion.CombinedScorer({"llm": scorer, "phrases": lmfusion.PhraseList({"the of": 1.0})},
                                   {"llm": 1.0, "phrases": 1.0})


def ranked(scorer: lmfusion.LMFusionScorer, progress: Callable[[int, int], object]) -> object:
    from lmfusion import nbest
    return nbest.rank([[(text, -1.0) for text in texts(3)]] * 2, scorer, progress=progress)


OTHERS: dict[str, Call] = {
    "best_path": lambda s, p: s.best_path(lattice(), weight=1.0, progress=p),
    "best_paths": lambda s, p: s.best_paths([lattice()] * 2, weight=1.0, endings=["."],
                                            progress=p),
    "nbest.rank": ranked,
    "combined log_probs": lambda s, p: combined(s).log_probs(texts(5), [WORDS[:4]] * 5, progress=p),
    "combined score_texts": lambda s, p: combined(s).score_texts(texts(6), progress=p),
    "combined word_log_probs": lambda s, p: combined(s).word_log_probs(texts(6, 5), progress=p),
    "combined token_log_probs": lambda s, p: lmfusion.CombinedScorer(
        {"llm": s}, {"llm": 1.0}).token_log_probs(texts(6), progress=p),
    "combined score_endings": lambda s, p: combined(s).score_endings(texts(6), progress=p),
    "combined best": lambda s, p: combined(s).best([texts(6), texts(4)], progress=p),
    "combined best_path": lambda s, p: combined(s).best_path(lattice(), progress=p),
    "combined prime": lambda s, p: combined(s).prime(texts(6), progress=p),
}


@pytest.mark.parametrize("name", [*CALLS, *OTHERS])
def test_ctrl_c_at_any_call_keeps_what_was_scored(bundle: Path, name: str) -> None:
    """The signal comes at the third report, which there is after every pass; none begins after
    it, and no token is computed twice."""
    call = CALLS[name][0] if name in CALLS else OTHERS[name]
    whole, small = (lmfusion.LMFusionScorer(bundle, weight=1.0, max_batch_tokens=16)
                    for _ in range(2))
    right = call(whole, lambda *_: None)
    reports: Reports = []

    def interrupt(done: int, total: int) -> None:
        reports.append((done, total))
        if len(reports) == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        call(small, interrupt)
    begun = small.stats()
    assert len(reports) == 3 and 1 <= begun.forwards <= 3
    assert begun.forwards < whole.stats().forwards
    assert begun.cached_tokens > 0
    again = call(small, lambda *_: None)
    assert small.stats().tokens_computed - begun.tokens_computed < whole.stats().tokens_computed
    if "best" not in name:  # a search may ask in another order, of what it knows
        assert small.stats().tokens_computed == whole.stats().tokens_computed
    if "prime" in name:  # how many tokens the call computed
        assert again == small.stats().tokens_computed - begun.tokens_computed
    elif name in CALLS and "best" not in name:
        assert flat(again) == pytest.approx(flat(right), abs=1e-3)


def flat(found: object) -> list[float]:
    """All numbers of a result."""
    if isinstance(found, (list, tuple)):
        return [number for each in found for number in flat(each)]
    return [found] if isinstance(found, float) else []


def lattice() -> Lattice:
    """243 texts of five words."""
    return Lattice([Arc(i, i + 1, word, -0.3 * k) for i in range(5)
                    for k, word in enumerate(WORDS[3 * i:3 * i + 3])], {5: (0.0, 0.0)})


@pytest.mark.parametrize("endings", [[], [".", "?"]], ids=str)
def test_a_search_of_a_lattice_tells_what_is_scored_and_what_waits(
        small: lmfusion.LMFusionScorer, endings: list[str]) -> None:
    reports: Reports = []
    found = small.best_path(lattice(), weight=1.0, endings=endings,
                            progress=lambda done, total: reports.append((done, total)))
    assert found.proven
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert all(done <= total for done, total in reports)
    assert reports[-1] == (found.work.words_scored, found.work.words_scored)
    forwards = small.stats().forwards
    assert 3 <= forwards <= len(reports) <= 2 * forwards + found.work.calls + 1
    silent = lmfusion.LMFusionScorer(small._path).best_path(lattice(), weight=1.0, endings=endings)
    assert silent.paths[0].words == found.paths[0].words

    def stop(done: int, total: int) -> None:
        if done:
            raise LookupError("enough")

    small.clear_cache()
    small.reset_stats()
    with pytest.raises(LookupError, match="enough"):
        small.best_path(lattice(), weight=1.0, endings=endings, progress=stop)
    assert 0 < small.stats().forwards < forwards
    small.best_path(lattice(), weight=1.0, endings=endings)
    assert small.stats().forwards <= forwards + 1  # what was computed was kept
    without: Reports = []
    small.best_path(lattice(), weight=0.0, progress=lambda *told: without.append(told))
    assert without == [(0, 0)]
    with pytest.raises(TypeError, match="progress: int found; a function"):
        small.best_path(lattice(), progress=3)  # type: ignore[arg-type]


def test_progress_may_ask_for_counters_but_not_for_scores(small: lmfusion.LMFusionScorer) -> None:
    with pytest.raises(lmfusion.Error, match="from within the progress function"):
        small.score_texts(texts(9), progress=lambda done, total: small.score_texts(["a"]))
    forwards = []
    small.score_texts(texts(9), progress=lambda *_: forwards.append(small.stats().forwards))
    assert forwards


@pytest.mark.parametrize("progress", [True, "tqdm", 3])
def test_progress_must_be_callable(small: lmfusion.LMFusionScorer, progress: object) -> None:
    with pytest.raises(TypeError, match="progress: .* found; a function"):
        small.score_texts(["a"], progress=progress)  # type: ignore[arg-type]


def test_a_signal_ends_the_call_after_the_pass_at_work(small: lmfusion.LMFusionScorer) -> None:
    """Raised where progress is told, so that the pass is known."""
    asked = texts(30)

    def progress(done: int, total: int) -> None:
        reports.append(done)
        if len(reports) == 2:
            thread = threading.Thread(target=signal.raise_signal, args=(signal.SIGINT,))
            thread.start()
            thread.join()  # passes of a tiny model would go by before it runs

    reports: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        small.score_texts(asked, progress=progress)
    assert len(reports) <= 3
    assert small.stats().forwards <= 3
    small.score_texts(asked)


INTERRUPTED = """
    import random, signal, sys, threading, time
    import lmfusion
    import torch

    torch.set_num_threads(1)
    scorer = lmfusion.LMFusionScorer(sys.argv[1], max_batch_tokens=16)
    words = "the of and to in a is that for it as was with be by on not he i".split()
    chance = random.Random(0)
    texts = [" ".join(chance.choices(words, k=40)) for _ in range(40)]
    right = scorer.score_texts(texts)
    while True:  # enough for a second of this process, however busy the machine is
        begin = time.process_time()
        scorer.clear_cache()
        scorer.reset_stats()
        scorer.score_texts(texts)
        took, whole = time.process_time() - begin, scorer.stats()
        if took > 1:
            break
        texts += [" ".join(chance.choices(words, k=40)) for _ in texts]
    scorer.clear_cache()
    scorer.reset_stats()

    others = []
    def other(k):
        for _ in range(20):
            found = scorer.score_texts(texts[k:k + 2])
            others.append(max(abs(a - b) for a, b in zip(found, right[k:])) < 1e-3)
    threads = [threading.Thread(target=other, args=(2 * k,)) for k in range(int(sys.argv[2]))]
    for thread in threads:
        thread.start()
    signal.signal(signal.SIGVTALRM, signal.default_int_handler)  # as Ctrl-C does
    signal.setitimer(signal.ITIMER_VIRTUAL, took / 20)  # of this process's own time
    try:
        scorer.score_texts(texts)
        raise SystemExit("no interrupt")
    except KeyboardInterrupt:
        pass
    for thread in threads:
        thread.join()
    assert len(others) == 20 * len(threads) and all(others)
    interrupted = scorer.stats()
    assert interrupted.forwards < whole.forwards / 2, (interrupted.forwards, whole.forwards)
    assert interrupted.cached_tokens > 0
    again = scorer.score_texts(texts)
    assert max(abs(a - b) for a, b in zip(again, right)) < 1e-3
    print(whole.tokens_computed, scorer.stats().tokens_computed)
"""


@pytest.mark.parametrize("threads", [0, 3])
def test_ctrl_c_ends_a_long_call_without_progress(bundle: Path, threads: int) -> None:
    """A process of its own, interrupted after a part of its work; beside scoring threads, too."""
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(INTERRUPTED), bundle, str(threads)],
                         capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    whole, in_two_calls = map(int, ran.stdout.split())
    assert in_two_calls == whole, "what was computed before the interrupt stayed in the cache"


def test_ranking_lists_tells_how_many_hypotheses_are_done(
        small: lmfusion.LMFusionScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmfusion import nbest
    from lmfusion.nbest import ranking
    lists = [[(f"text {i} {k}", -float(k)) for k in range(4)] for i in range(6)]
    told: Reports = []

    def tell(done: int, total: int) -> None:
        told.append((done, total))

    for n in (None, 1):
        told.clear()
        with_progress = nbest.rank(lists, small, n=n, progress=tell)
        assert told[-1] == (24, 24)
        assert told == sorted(told)
        assert with_progress == nbest.rank(lists, small, n=n)
    monkeypatch.setattr(ranking, "HYPOTHESES_A_CALL", 8)  # of a file: two utterances at a time
    file = tmp_path / "lists.json"
    file.write_text(json.dumps(lists))
    told.clear()
    small.clear_cache()
    nbest.rescore(file, small, output=tmp_path / "ranked.json", progress=tell)
    assert {(8, 8), (16, 16), (24, 24)} <= set(told)

    def stop(done: int, total: int) -> None:
        raise KeyError("stop")

    with pytest.raises(KeyError):
        nbest.rank(lists, small, progress=stop)
    assert len(nbest.rank(lists, small)) == len(lists)  # and works on
