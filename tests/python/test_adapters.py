"""Every adapter, against sums of log p of whole texts by plain Hugging Face.

flashlight-text and torchaudio run for real (pyctcdecode: test_pyctcdecode.py). ESPnet, icefall and
NeMo are too heavy for these tests: the adapters are called as the toolkits do and checked against
their published signatures (toolkit_protocols.py). tests/real_decoders runs what PyPI has of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import emissions as simulated
import lmfusion
import pytest
import torch
from lmfusion.adapters.nbest import rank, rescore
from lmfusion.adapters.pieces import Pieces
from oracle import Oracle
from toolkit_protocols import (
    ESPnetBatchPartialScorer,
    IcefallLmScorer,
    NeMoFusionModel,
    assert_signatures,
)

TOLERANCE = 2e-3  # nats a text of some tokens; float32 noise of two sums of differences


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; pip install it to test its adapter")


def ending(oracle: Oracle, text: str, marks: str = ".?!") -> float:
    return math.log(sum(math.exp(oracle.text(text + mark) - oracle.text(text)) for mark in marks))


# --- flashlight-text, torchaudio ---


def test_flashlight_states_are_interned(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    needs("flashlight")
    from lmfusion.adapters.flashlight import FlashlightLM
    lm = FlashlightLM(scorer, ["the", "cat", "<unk>"])
    root = lm.start(False)
    the, first = lm.score(root, 0)
    cat, second = lm.score(the, 1)
    assert first + second == pytest.approx(oracle.text("the cat"), abs=TOLERANCE)
    calls = scorer.stats().calls
    again, same = lm.score(the, 1)
    assert again.compare(cat) == 0 and same == second and scorer.stats().calls == calls
    assert lm.finish(cat)[1] == pytest.approx(ending(oracle, "the cat"), abs=TOLERANCE)
    unknown, nothing = lm.score(cat, 2)
    assert nothing == 0.0
    assert lm.score(unknown, 0)[1] == pytest.approx(oracle.word("the cat", "the"), abs=TOLERANCE)
    with pytest.raises(ValueError, match="dictionary"):
        lm.score(root, 7)
    lm.start(False)
    with pytest.raises(KeyError):  # states of the last utterance are forgotten
        lm.score(the, 0)


def test_torchaudio_decodes_with_the_exact_score(scorer: lmfusion.LMFusionScorer, oracle: Oracle,
                                                 tmp_path: Path) -> None:
    needs("torchaudio")
    needs("flashlight")
    from lmfusion.adapters.flashlight import FlashlightLM
    from torchaudio.models.decoder import ctc_decoder
    words = ["the", "cat", "cut", "sat", "set", "<unk>"]
    (tmp_path / "words").write_text("\n".join(words) + "\n")
    (tmp_path / "lexicon").write_text("".join(f"{w} {' '.join(w)} |\n" for w in words[:-1]))
    log_probs = torch.from_numpy(simulated.emissions("the cat sat", seed=1, noise=1.0))[None]

    def decoded(lm: object, **options: float) -> dict[str, float]:
        decoder = ctc_decoder(str(tmp_path / "lexicon"), simulated.UNITS, lm=lm, nbest=20,
                              lm_dict=str(tmp_path / "words"), beam_size=200, beam_threshold=1e9,
                              blank_token=simulated.BLANK, sil_token=simulated.SPACE, **options)
        found: dict[str, float] = {}
        for hypothesis in decoder(log_probs)[0]:
            text = " ".join(hypothesis.words)
            found[text] = max(hypothesis.score, found.get(text, -math.inf))
        return found

    by_sound = decoded(None)
    with_lm = decoded(FlashlightLM(scorer, words), lm_weight=0.5)
    calls = scorer.stats().calls
    ctc_decoder(str(tmp_path / "lexicon"), simulated.UNITS, lm=FlashlightLM(scorer, words),
                lm_dict=str(tmp_path / "words"), blank_token=simulated.BLANK,
                sil_token=simulated.SPACE)
    assert scorer.stats().calls == calls + 1  # all words of the dictionary at once
    common = by_sound.keys() & with_lm.keys()
    assert len(common) >= 3
    for text in common:
        wanted = 0.5 * (oracle.text(text) + ending(oracle, text))
        assert with_lm[text] - by_sound[text] == pytest.approx(wanted, abs=0.02), text


# --- units that are not words: ESPnet, icefall, NeMo ---

UNITS = ["<blank>", "▁the", "▁c", "at", "s", "▁sat", "▁", "<eos>"]
PIECES = Pieces(UNITS, special={0, 7})
EOS = 7
PREFIXES = [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 5), (1, 6), (0, 1, 0, 2)]


def row(oracle: Oracle, prefix: tuple[int, ...]) -> list[float]:
    """What every next unit is worth, from texts alone."""
    text = "".join("" if index in (0, 7) else UNITS[index] for index in prefix)
    before, _, word = text.replace("▁", " ").rpartition(" ")
    before = before.strip()
    log_prob = oracle.word(before, word) if word else 0.0
    values = [log_prob if unit.startswith("▁") else 0.0 for unit in UNITS]
    values[EOS] = log_prob + ending(oracle, f"{before} {word}".strip())
    return values


def test_units_telescope_to_the_text(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    from lmfusion.adapters.pieces import WordEndScorer
    units = WordEndScorer(scorer, PIECES)
    path = [1, 2, 3, 4, 5, EOS]  # "the cats sat"
    rows = units.rows([path[:size] for size in range(len(path))], EOS)
    total = sum(values[unit] for values, unit in zip(rows, path))
    assert total == pytest.approx(oracle.text("the cats sat") + ending(oracle, "the cats sat"),
                                  abs=TOLERANCE)


@pytest.mark.parametrize("path", [(1, 2, 3, 4, 5, EOS), (2, 0, 3, 6, 6, 5, 4, EOS), (EOS,)])
def test_open_words_are_scored_a_unit_late(path: tuple[int, ...], scorer: lmfusion.LMFusionScorer,
                                           oracle: Oracle) -> None:
    from lmfusion.adapters.pieces import WordEndScorer
    units = WordEndScorer(scorer, PIECES, open_words=True)
    prefixes = [path[:size] for size in range(len(path))]
    rows = units.rows(prefixes, EOS)
    total = 0.0
    for prefix, values, unit in zip(prefixes, rows, path):
        assert len(set(values[:EOS])) == 1  # the same for all units but the end
        total += values[unit]
        heard = prefix[:-1] if unit == EOS else prefix
        text = " ".join("".join(PIECES.split(heard)).split())
        if unit != EOS:  # all that was heard before this unit
            assert total == pytest.approx(oracle.text(text), abs=TOLERANCE)
    text = " ".join("".join(PIECES.split(path[:-1])).split())
    whole = oracle.text(text) + ending(oracle, text)
    assert total == pytest.approx(whole, abs=TOLERANCE)
    assert units.text_ends(prefixes) == pytest.approx([row[EOS] for row in rows], abs=1e-6)


def test_open_words_reach_every_adapter(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    from lmfusion.adapters.espnet import ESPnetScorer
    from lmfusion.adapters.icefall import IcefallLM
    from lmfusion.adapters.nemo import NeMoLM
    wanted = oracle.text("the cats") - oracle.text("the cat")  # what the last unit changed
    prefix = torch.tensor([1, 2, 3, 4])
    with_start = torch.cat([torch.tensor([EOS]), prefix])[None]
    espnet = ESPnetScorer(scorer, PIECES, EOS, open_words=True)
    scores = [espnet.score(with_start[0], None, None)[0],
              IcefallLM(scorer, PIECES, sos_id=EOS, eos_id=EOS, open_words=True).score_token(
                  with_start, torch.tensor([5]))[0][0]]
    lm = NeMoLM(scorer, PIECES, open_words=True)
    states = lm.get_init_states(1)
    for unit in prefix:
        states = lm.advance(states)[1][:, unit]
    scores.append(lm.advance(states)[0][0])
    for row in scores:
        torch.testing.assert_close(row[:EOS], torch.full((EOS,), wanted), atol=TOLERANCE, rtol=0)


def test_espnet_signature(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    from lmfusion.adapters.espnet import ESPnetScorer
    lm = ESPnetScorer(scorer, PIECES, eos=EOS)
    assert_signatures(lm, ESPnetBatchPartialScorer)
    x = torch.zeros(5, 4)
    hypotheses = [(1, 2, 3), (1, 2, 6), (2, 3, 5)]
    ys = torch.tensor([[EOS, *prefix] for prefix in hypotheses])
    calls = scorer.stats().calls
    full, states = lm.batch_score_partial(ys, None, [lm.batch_init_state(x)] * 3, x.expand(3, 5, 4))
    assert scorer.stats().calls - calls <= 3  # words, words and their ends: not one a hypothesis
    wanted = torch.tensor([row(oracle, prefix) for prefix in hypotheses])
    torch.testing.assert_close(full, wanted, atol=TOLERANCE, rtol=0)
    assert full.shape == (3, len(UNITS)) and lm.select_state(states, 1, 2) is None
    ids = torch.tensor([[1, 7], [5, 3], [2, 6]])
    partial, _ = lm.batch_score_partial(ys, ids, states, x)
    for i, kept in enumerate(ids.tolist()):
        torch.testing.assert_close(partial[i, kept], wanted[i, kept], atol=TOLERANCE, rtol=0)
        others = [unit for unit in range(len(UNITS)) if unit not in kept]
        assert partial[i, others].abs().max() == 0
    endings = scorer.stats().calls
    no_end, _ = lm.batch_score_partial(ys, torch.tensor([[1, 2]] * 3), states, x)
    torch.testing.assert_close(no_end[:, 1:3], wanted[:, 1:3], atol=TOLERANCE, rtol=0)
    assert scorer.stats().calls == endings + 1  # nobody asked for the end
    one, _ = lm.score_partial(ys[1], ids[1], None, x)
    torch.testing.assert_close(one, wanted[1, ids[1]], atol=TOLERANCE, rtol=0)
    # Searches without partial scorers: transducers, time-synchronous.
    whole, state = lm.score(ys[2], None, x)
    assert state is None
    torch.testing.assert_close(whole, wanted[2], atol=TOLERANCE, rtol=0)
    batch, states = lm.batch_score(ys, [None] * 3, None)
    torch.testing.assert_close(batch, wanted, atol=TOLERANCE, rtol=0)
    assert states == [None] * 3
    # A batch of hypotheses of several lengths is padded with eos.
    padded = torch.tensor([[EOS, 1, EOS, EOS], [EOS, 1, 2, 3]])
    torch.testing.assert_close(
        lm.batch_score_partial(padded, None, [None] * 2, x)[0],
        torch.tensor([row(oracle, (1,)), row(oracle, (1, 2, 3))]), atol=TOLERANCE, rtol=0)


def test_espnets_search_takes_it_for_a_partial_scorer(
        scorer: lmfusion.LMFusionScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    class BatchPartialScorerInterface:
        pass

    module = ModuleType("espnet.nets.scorer_interface")
    module.BatchPartialScorerInterface = BatchPartialScorerInterface
    for name in ("espnet", "espnet.nets"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "lmfusion.adapters.espnet", raising=False)
    espnet = importlib.import_module("lmfusion.adapters.espnet")
    assert isinstance(espnet.ESPnetScorer(scorer, PIECES, eos=EOS), BatchPartialScorerInterface)
    monkeypatch.delitem(sys.modules, "lmfusion.adapters.espnet")  # not for other tests


def test_icefall_signature(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    from lmfusion.adapters.icefall import IcefallLM
    lm = IcefallLM(scorer, PIECES, lm_scale=0.4, sos_id=EOS, eos_id=EOS)
    assert_signatures(lm, IcefallLmScorer)
    assert (lm.lm_scale, lm.lm_type, lm.sos_id) == (0.4, "transformer", EOS)
    padded = torch.zeros(len(PREFIXES), 6, dtype=torch.int64)
    for i, prefix in enumerate(PREFIXES):
        padded[i, :len(prefix) + 1] = torch.tensor([EOS, *prefix])
    lengths = torch.tensor([len(prefix) + 1 for prefix in PREFIXES])
    scores, state = lm.score_token(padded, lengths)
    assert state is None
    torch.testing.assert_close(scores, torch.tensor([row(oracle, prefix) for prefix in PREFIXES]),
                               atol=TOLERANCE, rtol=0)


def test_nemo_handles(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    from lmfusion.adapters.nemo import NeMoLM
    lm = NeMoLM(scorer, PIECES)
    assert_signatures(lm, NeMoFusionModel)
    assert lm.to(torch.device("meta")).get_init_states(3).device.type == "meta"
    assert lm.to("cpu") is lm and not lm.compatible_with_cuda_graphs()
    states = lm.get_init_states(batch_size=3, bos=True)
    assert states.dtype == torch.int64 and states.shape == (3,)
    paths = [(1, 2, 3), (1, 2, 6), (1, 5, 4)]
    for step in range(3):
        scores, following = lm.advance(states, eos_id=EOS)
        wanted = torch.tensor([row(oracle, path[:step]) for path in paths])
        torch.testing.assert_close(scores, wanted, atol=TOLERANCE, rtol=0)
        assert following.dtype == torch.int64 and following.shape == (3, len(UNITS))
        assert len(set(following[0].tolist())) == len(UNITS)
        states = following[torch.arange(3), torch.tensor([path[step] for path in paths])]
        if step < 1:
            assert states.unique().numel() == 1  # the same prefix, the same handle
    ends = torch.tensor([row(oracle, path)[EOS] for path in paths])
    torch.testing.assert_close(lm.get_final(states), ends, atol=TOLERANCE, rtol=0)
    assert lm.advance(states)[0][:, EOS].abs().max() == 0
    lm.reset()
    with pytest.raises(ValueError, match="reset"):
        lm.advance(states)


# --- n-best lists ---

TEXTS = ["the cat", "you and the cat", "a"]
SCORES = [-3.0, -1.0, -2.5]


def best_first(oracle: Oracle, scores: list[float] | None = None) -> list[str]:
    totals = {text: (score + 0.5 * oracle.text(text) + 2.0 * len(text.split()))
              for text, score in zip(TEXTS, scores or [0.0] * 3)}
    return sorted(TEXTS, key=lambda text: -totals[text])


OPTIONS = {"weight": 0.5, "word_insertion_bonus": 2.0}


def test_rank_gives_every_part(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    (ranked,) = rank([list(zip(TEXTS, SCORES))], scorer, **OPTIONS)
    assert [one.text for one in ranked] == best_first(oracle, SCORES)
    for one in ranked:
        assert one.log_prob == pytest.approx(oracle.text(one.text), abs=TOLERANCE)
        assert one.total == pytest.approx(one.score + 0.5 * one.log_prob
                                          + 2.0 * len(one.text.split()), abs=1e-6)
    assert scorer.stats().calls == 1


def test_rescore_keeps_the_shape(scorer: lmfusion.LMFusionScorer, oracle: Oracle) -> None:
    plain = rescore(list(TEXTS), scorer, **OPTIONS)
    assert plain == best_first(oracle)
    wanted = best_first(oracle, SCORES)
    assert [text for text, _ in rescore(list(zip(TEXTS, SCORES)), scorer, **OPTIONS)] == wanted

    espnet = {"utts": {"u1": {"output": [{"rec_text": text, "score": score, "token": "x"}
                                         for text, score in zip(TEXTS, SCORES)]}}}
    found = rescore(espnet, scorer, **OPTIONS)
    assert [one["rec_text"] for one in found["utts"]["u1"]["output"]] == wanted
    assert [one["rec_text"] for one in espnet["utts"]["u1"]["output"]] == TEXTS  # not changed

    nemo = SimpleNamespace(n_best_hypotheses=[
        SimpleNamespace(text=text, score=torch.tensor(score), y_sequence=torch.tensor([1, 2]))
        for text, score in zip(TEXTS, SCORES)])
    assert [one.text for one in rescore(nemo, scorer, **OPTIONS).n_best_hypotheses] == wanted
    assert [[one.text for one in each.n_best_hypotheses]
            for each in rescore([nemo, nemo], scorer, **OPTIONS)] == [wanted, wanted]

    whisper = [{"text": f" {text}", "language": "en", "segments": [
        {"avg_logprob": score / 4, "tokens": [1]}, {"avg_logprob": score / 6, "tokens": [3, 4]}]}
        for text, score in zip(TEXTS, SCORES)]  # score/4 * (1 + 1) + score/6 * (2 + 1) = score
    assert [one["text"].strip() for one in rescore(whisper, scorer, **OPTIONS)] == wanted

    manifest = [{"nbest": [{"pred_text": text, "am_score": score}
                           for text, score in zip(TEXTS, SCORES)]}, {"nbest": []}]
    found = rescore(manifest, scorer, **OPTIONS)
    assert [one["pred_text"] for one in found[0]["nbest"]] == wanted and found[1]["nbest"] == []
    found = rescore({"hypotheses": list(zip(TEXTS, SCORES))}, scorer, **OPTIONS)
    assert [text for text, _ in found["hypotheses"]] == wanted
    assert rescore([], scorer) == []
    for wrong in ({"what": 1}, [{"score": 1.0}]):
        with pytest.raises(ValueError, match="n-best|no text"):
            rescore(wrong, scorer)
