"""pyctcdecode, the package itself, with lmfusion in it, against plain Hugging Face."""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import emissions as simulated
import lmfusion
import pytest
from oracle import Oracle

pyctcdecode = pytest.importorskip(
    "pyctcdecode", reason="pip install --no-deps pyctcdecode==0.5.0 pygtrie to test its adapter")
from lmfusion.adapters.pyctcdecode import PyctcdecodeLM, load_decoder  # noqa: E402
from lmfusion.adapters.pyctcdecode_floors import FloorDecoder  # noqa: E402

TOLERANCE = 2e-3  # nats a text of some tokens; float32 noise of two sums of differences


@pytest.fixture(autouse=True)
def no_model_lives_on() -> Iterator[None]:
    """pyctcdecode keeps every decoder's model, its cache of 1 GiB with it, until it is told."""
    yield
    pyctcdecode.BeamSearchDecoderCTC.clear_class_models()


def decoder(lm: PyctcdecodeLM) -> pyctcdecode.BeamSearchDecoderCTC:
    alphabet = pyctcdecode.Alphabet.build_alphabet(["", " ", *simulated.UNITS[2:]])
    return pyctcdecode.BeamSearchDecoderCTC(alphabet, lm)


def ending(oracle: Oracle, text: str, marks: str = ".?!") -> float:
    return math.log(sum(math.exp(oracle.text(text + mark) - oracle.text(text)) for mark in marks))


class Recorded(PyctcdecodeLM):
    """Keeps what pyctcdecode asked."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.words: list[tuple[str, str, bool]] = []  # text before, word, is it the last?
        self.partial_words: set[str] = set()

    def score(self, prev_state, word, is_last_word=False):
        self.words.append((prev_state.text, word, is_last_word))
        return super().score(prev_state, word, is_last_word)

    def score_partial_token(self, partial_token):
        self.partial_words.add(partial_token)
        return super().score_partial_token(partial_token)


def test_pyctcdecode_states_and_weights(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    lm = PyctcdecodeLM(scorer, unigrams=["the", "cat"], unk_score_offset=-7.0)
    first, state = lm.score(lm.get_start_state(), "the")
    second, state = lm.score(state, "cat")
    last, end = lm.score(state, "", is_last_word=True)
    assert end == state and state.text == "the cat"
    assert first + second == pytest.approx(0.5 * oracle.text("the cat") + 2.0, abs=TOLERANCE)
    assert last == pytest.approx(0.5 * ending(oracle, "the cat"), abs=TOLERANCE)
    both, _ = lm.score(lm.score(lm.get_start_state(), "the")[1], "cat", is_last_word=True)
    assert both == pytest.approx(second + last, abs=1e-6)
    unknown, _ = lm.score(state, "zz")
    assert unknown == pytest.approx(0.5 * oracle.word("the cat", "zz") + 1.0 - 7.0, abs=TOLERANCE)
    assert lm.score_partial_token("ca") == 0 and lm.score_partial_token("") == 0
    assert lm.score_partial_token("zz") == -7.0
    assert lm.score_partial_token("z" * 12) == -14.0
    scorer.weight = 1.0  # applied inside score, at once
    assert lm.score(lm.get_start_state(), "the")[0] == pytest.approx(
        oracle.text("the") + 1.0, abs=TOLERANCE)


def test_pyctcdecode_decodes_with_the_exact_score(scorer: lmfusion.LMFusionScorer,
                                                  oracle: Oracle) -> None:
    log_probs = simulated.emissions("the cat sat on", seed=3, noise=0.5)
    beams = decoder(PyctcdecodeLM(scorer)).decode_beams(log_probs, beam_width=20)
    # A beam's language-model part, and none is merged for sharing its last words only.
    for text, state, _, logit_score, lm_score in beams[:5]:
        words = len(text.split())
        wanted = 0.5 * (oracle.text(text) + ending(oracle, text)) + words
        assert lm_score - logit_score == pytest.approx(wanted, abs=10 * TOLERANCE)
        assert state.text == text
    assert len({text for text, *_ in beams}) == len(beams) > 1


def test_an_empty_last_word_ends_the_text(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    lm = Recorded(scorer)
    heard = simulated.emissions("the cat ", seed=3, noise=0.1)  # ends in a space: no word is open
    text, state, _, logit_score, lm_score = decoder(lm).decode_beams(heard, beam_width=8)[0]
    assert ("the cat", "", True) in lm.words
    assert text.strip() == state.text == "the cat"
    wanted = 0.5 * (oracle.text("the cat") + ending(oracle, "the cat")) + 2
    assert lm_score - logit_score == pytest.approx(wanted, abs=2 * TOLERANCE)


def test_partial_words_that_begin_no_word_are_avoided(scorer: lmfusion.LMFusionScorer) -> None:
    heard = simulated.emissions("the cat sat", seed=6, noise=2.0)
    words = ["the", "cat", "sat", "cut", "set"]
    lm = Recorded(scorer, unigrams=words, unk_score_offset=-40.0)
    found = decoder(lm).decode(heard, beam_width=32)
    free = decoder(PyctcdecodeLM(scorer)).decode(heard, beam_width=32)
    assert {"t", "th", "the"} <= lm.partial_words
    assert set(found.split()) <= set(words) and not set(free.split()) <= set(words)


def test_reset_params_tunes_the_decoder(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    lm = PyctcdecodeLM(scorer, unigrams=["the", "cat"])
    search = decoder(lm)
    heard = simulated.emissions("the cat", seed=3, noise=0.1)

    def language_part() -> float:
        *_, logit_score, lm_score = search.decode_beams(heard, beam_width=8)[0]
        return lm_score - logit_score

    log_prob, end = oracle.text("the cat"), ending(oracle, "the cat")
    assert language_part() == pytest.approx(0.5 * (log_prob + end) + 2, abs=TOLERANCE)
    search.reset_params(alpha=0.25, beta=3)
    assert language_part() == pytest.approx(0.25 * (log_prob + end) + 6, abs=TOLERANCE)
    search.reset_params(lm_score_boundary=False)
    assert language_part() == pytest.approx(0.25 * log_prob + 6, abs=TOLERANCE)
    search.reset_params(alpha=0.0, beta=0.0, unk_score_offset=-3.0, lm_score_boundary=True)
    assert language_part() == pytest.approx(0.0, abs=1e-6)
    assert lm.score_partial_token("zz") == lm.score(lm.get_start_state(), "zz")[0] == -3.0
    assert scorer.weight == 0.5 and scorer.word_insertion_bonus == 1.0  # others may use it
    for wrong in ({"alpha": math.nan}, {"beta": True}, {"score_boundary": 1}, {"gamma": 1.0},
                  {"alpha": 0.5, "beta": "1"}):
        with pytest.raises(ValueError, match=list(wrong)[-1]):
            lm.reset_params(**wrong)
    assert lm.alpha == 0.0


def test_a_decoder_is_saved_and_loaded(bundle: Path, tmp_path: Path) -> None:
    scorer = lmfusion.LMFusionScorer(bundle, weight=0.5, casing="sentence", max_context_length=40)
    lm = PyctcdecodeLM(scorer, unigrams=["the", "cat", "sat"], unk_score_offset=-7.0,
                       endings=["."])
    search = decoder(lm)
    search.reset_params(beta=2.5)
    heard = simulated.emissions("the cat sat", seed=3, noise=1.0)
    (tmp_path / "decoder").mkdir()
    search.save_to_dir(str(tmp_path / "decoder"))
    (tmp_path / "decoder").rename(tmp_path / "moved")
    loaded = load_decoder(tmp_path / "moved")
    wanted, found = search.decode_beams(heard), loaded.decode_beams(heard)
    assert [beam[0] for beam in found] == [beam[0] for beam in wanted]
    assert [beam[-1] for beam in found] == pytest.approx([beam[-1] for beam in wanted])
    again = PyctcdecodeLM.load_from_dir(tmp_path / "moved" / "language_model", boundary="word")
    assert (again.alpha, again.beta, again.unk_score_offset) == (None, 2.5, -7.0)
    assert again.scorer.options == {**scorer.options, "boundary": "word"}
    with pytest.raises(ValueError, match="not of an lmfusion adapter"):
        PyctcdecodeLM.load_from_dir(tmp_path)
    function = PyctcdecodeLM(lmfusion.LMFusionScorer(bundle, casing=str.upper))
    with pytest.raises(ValueError, match="casing is a function"):
        function.save_to_dir(tmp_path / "function")
    assert not (tmp_path / "function").exists()


def test_no_history_is_pruned(scorer: lmfusion.LMFusionScorer) -> None:
    class Bigram(PyctcdecodeLM):
        order = 2

    heard = simulated.emissions("the cat sat on the mat", seed=3, noise=1.0)
    options = {"unigrams": ["the", "cat", "cut", "sat", "set", "on", "mat"],
               "unk_score_offset": -100.0}

    def texts(lm: PyctcdecodeLM, prune: bool) -> list[str]:
        beams = decoder(lm).decode_beams(heard, beam_width=100, beam_prune_logp=-60.0,
                                         token_min_logp=-30.0, prune_history=prune)
        return [beam[0] for beam in beams]

    every = texts(PyctcdecodeLM(scorer, **options), False)
    assert texts(PyctcdecodeLM(scorer, **options), True) == every and len(every) >= 4
    assert len(texts(Bigram(scorer, **options), True)) < len(every)  # what pruning would lose


def test_memory_is_bounded_over_a_long_utterance(bundle: Path) -> None:
    description = lmfusion.LMFusionScorer(bundle).description
    slot = 4 * (2 * description["layers"] * description["kv_heads"] * description["head_dim"]
                + description["hidden_size"]) + 150  # bytes a token
    said = " ".join(["the cat sat on the mat and you"] * 6)
    heard = simulated.emissions(said, seed=5, noise=0.5)

    def decoded(**options: int) -> tuple[str, lmfusion.LMFusionScorer]:
        scorer = lmfusion.LMFusionScorer(bundle, weight=0.1, **options)
        return decoder(PyctcdecodeLM(scorer)).decode(heard, beam_width=4), scorer

    text, whole = decoded()
    limit = 2 * len(said) * slot
    bounded_text, bounded = decoded(kv_cache_bytes=limit)
    assert whole.stats().cache_bytes > limit
    assert bounded.stats().evictions > 0 and bounded.stats().cache_bytes <= limit
    assert bounded_text == text
    gc.collect()  # the adapters and their decoders are gone, and no state outlives them
    assert not [state for state in gc.get_objects() if type(state) is lmfusion.State]


WORDS = ["the", "cat", "sat", "on", "mat", "a", "sand"]


@pytest.mark.parametrize(("options", "limits", "hotwords"), [
    ({}, {"beam_width": 15}, None),
    ({}, {"beam_width": 4}, ["mat", "the sand"]),
    ({}, {"beam_width": 15, "beam_prune_logp": -3.0}, ["cat"]),
    ({"unigrams": WORDS}, {"beam_width": 12, "beam_prune_logp": -100.0}, None),
    ({"unigrams": WORDS, "alpha": 3.0, "beta": -2.0}, {"beam_width": 12}, ["the cat"]),
    ({"endings": ()}, {"beam_width": 6, "beam_prune_logp": -math.inf}, None),
    ({"endings": ("", "."), "alpha": 2.0}, {"beam_width": 8}, None),
    ({"alpha": 0.0}, {"beam_width": 8}, ["mat"]),
    ({"alpha": -0.2}, {"beam_width": 8, "beam_prune_logp": -3.0}, None),
], ids=str)
def test_floors_leave_the_same_beams(bundle: Path, options: dict[str, Any],
                                     limits: dict[str, Any], hotwords: list[str] | None) -> None:
    """pyctcdecode's own search is the oracle: the same texts, frames and scores, in its order."""
    alphabet = pyctcdecode.Alphabet.build_alphabet(["", " ", *simulated.UNITS[2:]])
    found = []
    for kind in (pyctcdecode.BeamSearchDecoderCTC, FloorDecoder):
        lm = PyctcdecodeLM(lmfusion.LMFusionScorer(bundle, weight=1.5, word_insertion_bonus=4.0),
                           **options)
        found.append([kind(alphabet, lm).decode_beams(
            simulated.emissions(text, seed=seed, noise=1.5), hotwords=hotwords, **limits)
            for seed, text in enumerate(("the cat sat", "sand the mat"))])
    assert found[0] == found[1]
    assert all(found[0])


def test_floors_save_work(bundle: Path) -> None:
    alphabet = pyctcdecode.Alphabet.build_alphabet(["", " ", *simulated.UNITS[2:]])
    counts = []
    for kind in (pyctcdecode.BeamSearchDecoderCTC, FloorDecoder):
        scorer = lmfusion.LMFusionScorer(bundle, weight=2.0, word_insertion_bonus=4.0)
        made = kind(alphabet, PyctcdecodeLM(scorer))
        texts = [made.decode(simulated.emissions(text, seed=seed, noise=2.0), beam_width=10)
                 for seed, text in enumerate(("the cat sat on a mat", "you sand the hand"))]
        counts.append((texts, scorer.stats()))
    (texts, plain), (same, floors) = counts
    assert texts == same
    assert floors.tokens_computed < plain.tokens_computed
    assert floors.calls < plain.calls
    assert copy.copy(made)._limits == (1, -math.inf)  # a call leaves nothing behind
