"""n-best lists of the toolkits' own classes, as their packages give them."""

from __future__ import annotations

import numpy
import pytest
import torch
from lmfusion import nbest
from test_nbest import GOOD, IDS, XX, FewerX


def test_torchaudio_hypotheses() -> None:
    decoder = pytest.importorskip("torchaudio.models.decoder")
    lists = [[decoder.CTCHypothesis(torch.tensor([1]), [word], score, torch.tensor([0]))
              for word, score in (XX, GOOD)]]
    (ranked,) = nbest.rescore(lists, FewerX(), weight=1.0)
    assert [one.words for one in ranked] == [["good"], ["xx"]]
    with pytest.raises(ValueError, match="text="):
        nbest.rescore([decoder.CTCHypothesis(torch.tensor([1, 2]), [], -1.0, torch.tensor([0]))],
                      FewerX())
    silence = [decoder.CTCHypothesis(torch.tensor([1]), [], -1.0, torch.tensor([0]))]
    assert [one.hypotheses[0].text for one in nbest.read(silence)] == [""]


def test_torchaudio_cuda_hypotheses() -> None:
    decoder = pytest.importorskip("torchaudio.models.decoder")
    lists = [decoder.CUCTCHypothesis([1, 2], ["▁go", "od", "▁x"], -1.0)]
    assert [one.hypotheses[0].text for one in nbest.read(lists)] == ["good x"]


def test_flashlight_results() -> None:
    decoder = pytest.importorskip("flashlight.lib.text.decoder")
    results = [decoder.DecodeResult(1), decoder.DecodeResult(1)]
    for result, (word, score) in zip(results, ((1, -1.0), (2, -1.5))):
        result.words, result.emittingModelScore, result.score = [word], score, -9.0
    ranked = nbest.rescore(results, FewerX(), weight=1.0, **IDS)
    assert [one.words[0] for one in ranked] == [2, 1]
    with pytest.raises(ValueError, match="text="):
        nbest.rescore(results, FewerX())


def test_pyctcdecode_decodes() -> None:
    pyctcdecode = pytest.importorskip("pyctcdecode")
    decoder = pyctcdecode.build_ctcdecoder(["", " ", "a", "x"])
    frames = numpy.full((3, 4), 0.05)
    frames[0, 3] = frames[1, 0] = 0.85
    frames[2, 2:] = 0.45
    beams = decoder.decode_beams(numpy.log(frames), beam_width=20)
    scores = {beam[0]: beam[-2] for beam in beams}
    (utterance,) = nbest.read(beams)
    assert {one.text: one.score for one in utterance.hypotheses} == pytest.approx(scores)
    ranked = nbest.rescore(beams, FewerX(), weight=1.0)
    assert [beam[0].count("x") for beam in ranked] == sorted(beam[0].count("x") for beam in ranked)
    batch = decoder.decode_beams_batch(None, [numpy.log(frames)] * 2, beam_width=20)
    first, second = nbest.rescore(batch, FewerX(), weight=1.0)
    assert first == second == [(beam[0], *beam[2:]) for beam in ranked]


def test_wav2vec2_processor_with_n_best() -> None:
    module = pytest.importorskip(
        "transformers.models.wav2vec2_with_lm.processing_wav2vec2_with_lm")
    output = module.Wav2Vec2DecoderWithLMOutput(
        text=[["xx", "good"], ["x"]], logit_score=[[-1.0, -1.5], [-2.0]],
        lm_score=[[-9.0, -8.0], [-2.0]])
    ranked = nbest.rescore(output, FewerX(), weight=1.0)
    assert type(ranked) is type(output)
    assert ranked.text == [["good", "xx"], ["x"]] and ranked.logit_score[0] == [-1.5, -1.0]
    assert ranked.lm_score[0] == [-8.0, -9.0]


def test_tables_of_pandas_and_pyarrow() -> None:
    columns = {"uid": ["b", "a", "b", "a"], "asr": ["xx", "x", "good", "good"],
               "ctc": [-1.0, -1.0, -1.5, -2.0], "other": [0, 1, 2, 3]}
    names = {"utterance": "uid", "text": "asr", "score": "ctc"}
    pandas = pytest.importorskip("pandas")
    frame = nbest.rescore(pandas.DataFrame(columns), FewerX(), weight=1.0, columns=names)
    assert frame["other"].tolist() == [2, 3, 0, 1] and frame["uid"].tolist() == columns["uid"]
    frame = pandas.DataFrame(columns).rename(columns={"uid": "utt", "asr": "text", "ctc": "score"})
    assert nbest.rescore(frame, FewerX(), weight=1.0)["other"].tolist() == [2, 3, 0, 1]
    pyarrow = pytest.importorskip("pyarrow")
    table = nbest.rescore(pyarrow.table(columns), FewerX(), weight=1.0, columns=names)
    assert table["other"].to_pylist() == [2, 3, 0, 1]
    with pytest.raises(ValueError, match="which are the text and the score"):
        nbest.rescore(pandas.DataFrame({"a": [1]}), FewerX())
    with pytest.raises(ValueError, match="the table has uid, asr"):
        nbest.rescore(pyarrow.table(columns), FewerX(), columns={"text": "nothing"})
