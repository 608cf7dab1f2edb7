"""The Python examples as a reader runs them, `python examples/NAME.py`, with the default model."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import sys
from pathlib import Path

import emissions
import lmfusion
import pytest
from comparison import Weights

EXAMPLES = Path(__file__).parents[2] / "examples"
BENCH = EXAMPLES.parent / "bench"
# Examples that ask about the same texts, and a package they need.
DECODERS = {"pyctcdecode": ("pyctcdecode_decoder", "pyctcdecode"),
            "torchaudio": ("torchaudio_decoder", "flashlight"),
            "nbest": ("nbest_rescoring", "flashlight")}
UNIT_SEARCHES = ["espnet_fusion", "icefall_fusion", "nemo_fusion"]


def run(example: str, *arguments: str, folder: Path = EXAMPLES) -> None:
    """The script from its first line, as the main program."""
    argv, sys.argv = sys.argv, [str(folder / f"{example}.py"), *arguments]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        sys.argv = argv


def check_word_error_rates(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(example, "--sentences", "8")
    output = capsys.readouterr().out
    without, with_lm = map(float, re.findall(r"lmfusion: ([\d.]+)", output))
    assert without > 0.2 and with_lm < 0.6 * without, output
    assert "tokens_requested=" in output


@pytest.mark.parametrize("name", DECODERS)
def test_the_language_model_lowers_the_word_error_rate(
        name: str, default_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example, package = DECODERS[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; its example cannot run")
    check_word_error_rates(example, capsys)


def test_searches_over_units_share_what_they_ask(default_model: Path,
                                                 capsys: pytest.CaptureFixture[str],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = lmfusion.LMFusionScorer(default_model, casing="sentence")
    monkeypatch.setattr(lmfusion, "LMFusionScorer", lambda *_, **__: scorer)
    computed = []
    for example in UNIT_SEARCHES:
        check_word_error_rates(example, capsys)
        computed.append(scorer.stats().tokens_computed)
    assert computed[0] == computed[1] == computed[2]  # the adapters ask about the same texts


def test_the_settings_were_not_chosen_on_what_is_reported() -> None:
    held_out, tuning = emissions.held_out(), emissions.tuning()
    assert len(held_out) == len(set(held_out)) >= 24 and not set(held_out) & set(tuning)
    assert {word for text in held_out + tuning for word in text.split()} <= set(emissions.lexicon())


def test_next_words(default_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("next_words")
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:5]]
    scores = {text: float(score) for score, text in rows}
    assert scores["she parked the car"] > scores["she parked the cart"] + 1


def test_the_table_of_all_adapters(default_model: Path, tmp_path: Path,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("flashlight") is None:
        pytest.skip("flashlight is not installed; its row cannot be made")
    run("adapters", "--only", "nbest_rescoring", "--sentences", "2", "-o", str(tmp_path / "table"),
        folder=BENCH)
    (row,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert row["versions"].keys() == {"torchaudio", "flashlight-text"} and row["calls"] == 1
    assert row["wer_with"] < row["wer_without"]
    assert 0 < row["tokens_computed"] < row["tokens_uncached"]
    assert (tmp_path / "table.md").read_text().strip() == capsys.readouterr().out.strip()


def test_the_chosen_weights_are_the_best_and_not_alone() -> None:
    chosen = runpy.run_path(str(BENCH / "choose_weights.py"))["chosen"]
    errors = {Weights(weight, bonus): 0.3 for weight in (0.0, 1.0, 2.0) for bonus in (0.0, 1.0)}
    errors[Weights(0.0, 0.0)] = errors[Weights(2.0, 1.0)] = 0.1
    errors[Weights(2.0, 0.0)] = 0.2
    assert chosen(errors) == Weights(2.0, 1.0)
