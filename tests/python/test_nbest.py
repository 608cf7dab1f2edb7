"""Every n-best shape in memory: the right texts, the right scores, the shape given back.

The classes are the toolkits' own where they can be installed beside the library, and otherwise
small stand-ins with the attributes that the toolkits document.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy
import pytest
import torch
from lmfusion import nbest
from lmfusion.nbest.json_files import unknown
from lmfusion.nbest.lists import FORMS, SHAPES
from lmfusion.nbest.reading import FILES


class FewerX:
    """Nats of a text: -10 for every x. What it was asked is kept."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def score_texts(self, texts: Sequence[str]) -> list[float]:
        self.calls.append(list(texts))
        return [-10.0 * text.count("x") for text in texts]


# --- stand-ins, with the documented names ---


class EspnetHypothesis(NamedTuple):  # espnet.nets.beam_search.Hypothesis
    yseq: torch.Tensor
    score: float | torch.Tensor = 0
    scores: Mapping[str, float] = MappingProxyType({})
    states: Mapping[str, Any] = MappingProxyType({})


@dataclass
class NemoHypothesis:  # nemo.collections.asr.parts.utils.rnnt_utils.Hypothesis
    score: float | torch.Tensor
    y_sequence: list[int] | torch.Tensor
    text: str | None = None
    timestamp: list[int] = field(default_factory=list)


@dataclass
class NBestHypotheses:
    n_best_hypotheses: list[NemoHypothesis]


@dataclass
class OutputBeam:  # pyctcdecode after 0.5
    text: str
    last_lm_state: Any
    text_frames: list[Any]
    logit_score: float
    lm_score: float


@dataclass
class DecodingResult:  # whisper.decoding
    tokens: list[int]
    text: str
    avg_logprob: float = math.nan
    no_speech_prob: float = math.nan


@dataclass
class Segment:  # faster_whisper.transcribe
    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    avg_logprob: float


@dataclass
class IcefallHypothesis:
    ys: list[int]
    log_prob: torch.Tensor


class HypothesisList:  # icefall
    def __init__(self, data: dict[str, IcefallHypothesis]) -> None:
        self._data = data

    @property
    def data(self) -> dict[str, IcefallHypothesis]:
        return self._data


def espnet_result(number: int, text: str, score: float) -> dict[str, Any]:
    return {"name": f"target1[{number}]", "text": "THE REFERENCE", "token": "T H E",
            "tokenid": "1 2", "rec_text": text, "rec_token": "x", "rec_tokenid": "3",
            "score": score}


def segment(text: str, average: float | None, **others: Any) -> dict[str, Any]:
    return {"start": 0.0, "end": 1.0, "text": text, **others,
            **({} if average is None else {"avg_logprob": average})}


FRAMES = [("w", (0, 3))]
UNITS = {1: "xx", 2: "good"}
IDS: dict[str, Any] = {"text": lambda one: UNITS[(one.ys if hasattr(one, "ys") else one.words)[-1]]}
XX, GOOD = ("xx", -1.0), ("good", -1.5)  # every document below holds these two
# name -> (document, options of read); the best first by the recogniser is "xx".
DOCUMENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "pairs": ([XX, GOOD], {}),
    "pairs after JSON": ([list(XX), list(GOOD)], {}),
    "pairs with the score first": ([XX[::-1], GOOD[::-1]], {}),
    "pairs with numpy's and torch's numbers": (
        [("xx", numpy.float32(-1.0)), ("good", torch.tensor(-1.5))], {}),
    "pairs to base 10": ([("xx", -1.0 / math.log(10)), ("good", -1.5 / math.log(10))],
                         {"log_base": 10}),
    "pyctcdecode decode_beams": ([("xx", object(), FRAMES, -1.0, -9.0),
                                  ("good", object(), FRAMES, -1.5, -8.0)], {}),
    "pyctcdecode decode_beams_batch": ([("xx", FRAMES, -1.0, -9.0),
                                        ("good", [], -1.5, -8.0)], {}),
    "pyctcdecode OutputBeam": ([OutputBeam("xx", None, FRAMES, -1.0, -9.0),
                                OutputBeam("good", None, FRAMES, -1.5, -8.0)], {}),
    "ESPnet 2 tuples": ([("xx", ["x", "x"], [1, 1], EspnetHypothesis(torch.tensor([1]), -1.0)),
                         ("good", ["g"], [2],
                          EspnetHypothesis(torch.tensor([2]), torch.tensor(-1.5)))], {}),
    "ESPnet 2 tuples after JSON": (
        [["xx", ["x", "x"], [1, 1], {"yseq": [1], "score": -1.0, "scores": {}}],
         ["good", ["g"], [2], {"yseq": [2], "score": -1.5, "scores": {}}]], {}),
    "ESPnet result.json": ({"utts": {"utt-1": {"utt2spk": "s", "output": [
        espnet_result(1, *XX), espnet_result(2, *GOOD)]}}}, {}),
    "NeMo hypotheses": ([NemoHypothesis(-1.0, [1], "xx"),
                         NemoHypothesis(torch.tensor(-1.5), [2], "good")], {}),
    "NeMo list of lists": ([[NemoHypothesis(-1.0, [1], "xx"), NemoHypothesis(-1.5, [2], "good")]],
                           {}),
    "NeMo NBestHypotheses": (NBestHypotheses([NemoHypothesis(-1.0, [1], "xx"),
                                              NemoHypothesis(-1.5, [2], "good")]), {}),
    "NeMo manifest line": ({"audio_filepath": "a.wav", "text": "the reference", "pred_text": "xx",
                            "beams": [list(XX), list(GOOD)]}, {}),
    "Whisper decode()": ([DecodingResult([1, 2, 3], " xx", -0.25),
                          DecodingResult([4], "good ", -0.75)], {}),
    "Whisper transcribe()": ([
        {"text": " xx", "language": "en", "segments": [  # two segments of one window
            segment(" x", -0.25, tokens=[1], seek=0), segment("x", -0.25, tokens=[2, 3], seek=0)]},
        {"text": " good", "language": "en", "segments": [  # a window each
            segment(" go", -0.25, tokens=[1], seek=0),
            segment("od", -0.25, tokens=[2, 3, 4], seek=3000)]}], {}),
    "faster-whisper segments": ([
        [Segment(1, 0, 0.0, 1.0, " xx", [1, 2, 3], -0.25)],
        [Segment(1, 0, 0.0, 1.0, " good", [4, 5], -0.5)]], {}),
    "WhisperX segments": ([{"segments": [segment(" xx", -0.5, words=[{"word": "xx", "score": 1}])],
                            "language": "en"},
                           {"segments": [segment(" good", -0.75)], "language": "en"}], {}),
    "WhisperX segments with token_count": (
        [{"segments": [segment(" xx", -0.5)], "language": "en"},
         {"segments": [segment(" good", -0.375)], "language": "en"}],
        {"token_count": lambda text: {"xx": 1, "good": 3}[text.strip()]}),
    "sherpa-onnx results": ([
        {"text": "xx", "tokens": ["x", "x"], "timestamps": [0.0, 0.1], "ys_probs": [-0.25, -0.75],
         "lm_probs": [-7.0, -7.0], "context_scores": [], "segment": 0},
        {"text": "good", "tokens": ["good"], "timestamps": [0.0], "ys_probs": [-1.5],
         "lm_probs": [], "context_scores": [], "segment": 0}], {}),
    "icefall HypothesisList": (HypothesisList({"1": IcefallHypothesis([0, 1], torch.tensor(-1.0)),
                                               "2": IcefallHypothesis([0, 2],
                                                                      torch.tensor(-1.5))}), IDS),
    "icefall dictionary": ({"1": IcefallHypothesis([0, 1], torch.tensor([-1.0])[0]),
                            "2": IcefallHypothesis([0, 2], torch.tensor(-1.5))}, IDS),
    "records, recognised text beside a reference": (
        [{"text": "the reference", "rec_text": "xx", "score": -1.0},
         {"text": "the reference", "rec_text": "good", "score": -1.5}], {}),
    "records of words": ([{"hyp": ["xx"], "log_prob": -1.0}, {"hyp": ["good"], "log_prob": -1.5}],
                         {}),
    "Vosk alternatives": ({"alternatives": [{"confidence": -1.0, "text": "xx"},
                                            {"confidence": -1.5, "text": "good"}]}, {}),
    "mapping with nbest": ({"utt": "u", "nbest": [XX, GOOD], "text": "the reference"}, {}),
    "mapping of ids": ({"utt-1": [XX, GOOD]}, {}),
    "mapping of columns": ({"utt": ["u", "u"], "text": ["xx", "good"], "score": [-1.0, -1.5]}, {}),
    "rows": ([{"utt": "u", "text": "xx", "score": -1.0}, {"utt": "u", "text": "good",
                                                          "score": -1.5}], {}),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_text_and_score_of_every_shape(name: str) -> None:
    document, options = DOCUMENTS[name]
    (utterance,) = nbest.read(document, **options)
    assert [one.text for one in utterance.hypotheses] == ["xx", "good"]
    assert [one.score for one in utterance.hypotheses] == pytest.approx([-1.0, -1.5])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_shape_comes_back_ranked(name: str) -> None:
    document, options = DOCUMENTS[name]
    before, scorer = repr(document), FewerX()
    parts: list[list[nbest.Ranked]] = []
    ranked = nbest.rescore(document, scorer, weight=1.0, parts=parts, **options)
    assert repr(document) == before  # what was given does not change
    expected_type = dict if name == "icefall HypothesisList" else type(document)
    assert type(ranked) is expected_type
    assert scorer.calls == [["xx", "good"]]
    (utterance,) = nbest.read(ranked, **options)
    assert [one.text for one in utterance.hypotheses] == ["good", "xx"]
    assert [(row.text, row.index) for row in parts[0]] == [("good", 1), ("xx", 0)]
    for row in parts[0]:
        assert row.total == row.score + row.log_prob
        assert row.log_prob == -10.0 * row.text.count("x") and row.words == 1
    (unchanged,) = nbest.read(nbest.rescore(document, scorer, weight=0.0, **options), **options)
    assert [one.text for one in unchanged.hypotheses] == ["xx", "good"]


def test_references_are_left_alone() -> None:
    document, _ = DOCUMENTS["ESPnet result.json"]
    ranked = nbest.rescore(document, FewerX(), weight=1.0)
    assert ranked["utts"]["utt-1"]["output"] == document["utts"]["utt-1"]["output"][::-1]
    assert ranked["utts"]["utt-1"]["utt2spk"] == "s"
    line, _ = DOCUMENTS["NeMo manifest line"]
    assert nbest.rescore(line, FewerX(), weight=1.0) == {
        **line, "pred_text": "good", "beams": [list(GOOD), list(XX)]}


def test_utterances_keep_their_places() -> None:
    manifest = [{"audio_filepath": f"{i}.wav", "text": "reference", "pred_text": text}
                for i, text in enumerate(["xx", "good", "x"])]
    assert nbest.rescore(manifest, FewerX()) == manifest
    utterances = [("b", [XX, GOOD]), ("a", []), ("c", [GOOD])]
    lists = [hypotheses for _, hypotheses in utterances]
    assert nbest.rescore(lists, FewerX(), weight=1.0) == [[GOOD, XX], [], [GOOD]]
    by_name = nbest.rescore(dict(utterances), FewerX(), weight=1.0)
    assert list(by_name.items()) == [("b", [GOOD, XX]), ("a", []), ("c", [GOOD])]
    nemo = [NBestHypotheses([NemoHypothesis(-1.0, [1], "xx"), NemoHypothesis(-1.5, [2], "good")]),
            NBestHypotheses([])]
    ranked = nbest.rescore(nemo, FewerX(), weight=1.0)
    assert [[one.text for one in each.n_best_hypotheses] for each in ranked] == [["good", "xx"], []]
    rows = [{"utt": "b", "text": "xx", "score": -1.0}, {"utt": "a", "text": "x", "score": 0.0},
            {"utt": "b", "text": "good", "score": -1.5}]
    assert nbest.rescore(rows, FewerX(), weight=1.0) == [rows[2], rows[1], rows[0]]


def test_icefall_results_have_one_hypothesis_an_utterance() -> None:
    results = {"greedy_search": [("cut-1", ["the", "reference"], ["xx", "y"]),
                                 ("cut-2", ["ref"], ["good"])]}
    assert nbest.rescore(results, FewerX()) == results
    assert [(one.name, one.hypotheses[0].text) for one in nbest.read(results)] == [
        ("cut-1", "xx y"), ("cut-2", "good")]


def test_texts_alone_are_ranked_by_the_model() -> None:
    assert nbest.rescore(["xx", "good", "x"], FewerX()) == ["good", "x", "xx"]
    assert nbest.rescore([["xx", "good"], ["x"]], FewerX()) == [["good", "xx"], ["x"]]
    assert nbest.rescore([], FewerX()) == []
    assert nbest.rank([["xx", "good"]], FewerX())[0][1].log_prob == -20.0


@pytest.mark.parametrize("value", [math.nan, None, math.inf])
def test_a_score_that_is_missing_or_nan_is_refused_or_last(value: float | None) -> None:
    broken = [[("c", -1.0)], [("a", -3.0), ("broken", value), ("b", -2.0)]]
    with pytest.raises(ValueError, match=r"utterance 1, hypothesis 1 .*missing=\"last\""):
        nbest.rescore(broken, FewerX())
    ranked = nbest.rescore(broken, FewerX(), missing="last")
    assert [text for text, _ in ranked[1]] == ["b", "a", "broken"]
    ranked = nbest.rescore(broken, FewerX(), missing="last", word_insertion_bonus=5.0)
    assert ranked[1][-1][0] == "broken"
    with pytest.raises(ValueError, match="missing = 'first'"):
        nbest.read(broken, missing="first")


def test_pruned_hypotheses_stay_last() -> None:
    lists = [("pruned", -math.inf), ("x", -1.0)]
    assert nbest.rescore(lists, FewerX(), weight=1.0)[1][0] == "pruned"
    (rows,) = nbest.rank([lists], FewerX(), acoustic_weight=0.0, weight=1.0)
    assert [row.total for row in rows] == [0.0, -10.0]  # 0 * -inf is no NaN


def test_whisperx_segments_without_scores_are_refused() -> None:
    aligned = [{"text": one, "segments": [segment(one, None, words=[{"word": one, "score": 0.5}])]}
               for one in ("one", "two")]
    with pytest.raises(ValueError, match="avg_logprob.*no score"):
        nbest.rescore(aligned, FewerX())
    assert nbest.rescore(aligned, FewerX(), missing="last") == aligned
    with pytest.raises(ValueError, match="no score"):
        nbest.rescore([{"text": "", "segments": []}], FewerX())


def test_averages_are_taken_for_what_they_are() -> None:
    """A long hypothesis with the better average has the worse sum, in decode and transcribe."""
    long, short = [1] * 8, [1]
    objects = [DecodingResult(long, "long one", -0.5), DecodingResult(short, "short", -0.6)]
    dictionaries = [{"text": each.text, "segments": [segment(each.text, each.avg_logprob,
                                                             tokens=each.tokens, seek=0)]}
                    for each in objects]
    for document in (objects, dictionaries):
        (rows,) = nbest.rank([document], FewerX())
        assert [(row.text, row.score) for row in rows] == [("short", -1.2), ("long one", -4.5)]


@pytest.mark.parametrize(("document", "message"), [
    ({"what": 1}, "no n-best list of a known shape"),
    (3, "no n-best list"),
    ([{"confidence": 0.5}], "no n-best list"),
    ([3, 4], "no n-best list"),
    ({"text": "one", "score": -1.0}, "leaves nothing to choose from"),  # not a list of them
    ({"lm_scale_0.5": [["one", "two"], ["three"]]}, "no n-best list"),  # words, not hypotheses
    ([XX, {"text": "good", "score": -1.5}], "hypothesis 1 is a dict where the list begins"),
    ([Segment(1, 0, 0.0, 1.0, "one", [1], -0.1)], "no n-best list"),  # stretches of one text
    ([segment("one", -0.1), segment("two", -0.1)], "no n-best list"),
    ([("xx", True)], "hypothesis 1 is a bool"),
    ([{"text": "one", "score": "-1.0"}], "'-1.0', is not a number"),
    ([{"text": "one"}], "no score"),
    ([NemoHypothesis(-1.0, [1], None)], "has no text, only ids perhaps; give text="),
    ([(None, ["x"], [1], EspnetHypothesis(torch.tensor([1]), -1.0))], "no text"),
    ({"utts": {"a": {}}}, 'has no "output"'),
    ([{"text": "x", "ys_probs": [-1.0], "segment": 0},
      {"text": "x", "ys_probs": [-1.0], "segment": 1}], "segments of one stream"),
    ({"columns": ["a"], "text": ["b"]}, "which are the text and the score"),
])
def test_what_is_not_recognised_is_refused(document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nbest.rescore(document, FewerX())


@pytest.mark.parametrize("document", [
    [("bad", "-1.0"), ("good", "-2.5")], [["-1.5e1", "bad"], ["-2", "good"]],
    [[["bad", "-1.0"], ["good", "-2.5"]]], [["bad", "nan"], ["good", "-inf"]]])
def test_scores_that_are_texts_are_no_hypotheses(document: Any) -> None:
    with pytest.raises(ValueError, match="a score is a number"):
        nbest.rank(document, FewerX())


def test_numbers_among_texts_are_texts() -> None:
    document = [["six", "0.5"], ["x below", "-1"], ["xx", "x"]]
    assert nbest.rescore(document, FewerX()) == [["0.5", "six"], ["-1", "x below"], ["x", "xx"]]


def test_refusals_name_the_shapes() -> None:
    message = unknown(3, "this")
    for shape in SHAPES:
        assert shape.name in message


def test_the_documentation_has_every_shape() -> None:
    text = (Path(__file__).parents[2] / "docs" / "nbest.md").read_text()
    for shape in (*FORMS, *SHAPES, *FILES):
        assert f"| {shape.name} |" in text, shape.name


def test_json_round_trips_read_alike() -> None:
    for name in ("pairs", "ESPnet result.json", "NeMo manifest line", "Whisper transcribe()",
                 "sherpa-onnx results", "Vosk alternatives", "mapping with nbest", "rows"):
        document, options = DOCUMENTS[name]
        again = json.loads(json.dumps(document))
        (one,), (other,) = nbest.read(document, **options), nbest.read(again, **options)
        assert [(h.text, h.score) for h in one.hypotheses] == [
            (h.text, h.score) for h in other.hypotheses], name
