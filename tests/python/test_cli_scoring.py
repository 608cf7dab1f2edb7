"""The commands that score: what they print against plain Hugging Face."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import lmfusion
import pytest
from lmfusion import _core
from lmfusion.cli import COMMANDS, main
from lmfusion.exporter.truecaser import export_truecaser
from oracle import Oracle

ROOT = Path(__file__).parents[2]
TEXTS = ["the cat sat", "naïve cats"]
TOLERANCE = 1e-3


def lines(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_score_per_token_and_perplexity(bundle: Path, oracle: Oracle,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--model", str(bundle), "--json", "--per-token", "--perplexity",
                 *TEXTS]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for text, row in zip(TEXTS, found, strict=True):
        wanted = oracle.tokens_log_prob(oracle.ids(text))
        assert [log_prob for _, log_prob in row["tokens"]] == pytest.approx(wanted, abs=1e-4)
        assert row["log_prob"] == pytest.approx(sum(wanted), abs=TOLERANCE)
        assert row["perplexity"] == pytest.approx(math.exp(-sum(wanted) / len(wanted)), rel=1e-3)


def test_score_per_word_in_another_base(bundle: Path, oracle: Oracle,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--model", str(bundle), "--per-word", "--base", "10", "the cat"]) == 0
    header, *rows = lines(capsys)
    assert header == ["text", "log_prob", "word"] and [row[2] for row in rows] == ["the", "cat"]
    assert float(rows[1][1]) == pytest.approx(oracle.word("the", "cat") / math.log(10),
                                              abs=TOLERANCE)


def test_score_takes_the_options_that_texts_are_read_and_computed_by(
        bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truecaser = export_truecaser(tmp_path / "words.truecaser", {
        "uni_dist": {"Cat": 9, "sat": 5}, "backward_bi_dist": {}, "forward_bi_dist": {},
        "trigram_dist": {}, "word_casing_lookup": {"cat": {"Cat"}, "sat": {"sat"}}})
    for options in ({"boundary": "word"}, {"compute": "bfloat16"}, {"join": "none"},
                    {"casing": "truecase", "truecaser": str(truecaser)},
                    {"casing": "truecase-compat", "truecaser": str(truecaser)}):
        named = [part for name, value in options.items()
                 for part in (f"--{name}", value)]
        assert main(["score", "--model", str(bundle), *named, "--json", *TEXTS]) == 0
        found = [json.loads(line)["log_prob"] for line in capsys.readouterr().out.splitlines()]
        scorer = lmfusion.LMFusionScorer(bundle, **options)  # type: ignore[arg-type]
        assert found == pytest.approx(scorer.score_texts(TEXTS), abs=1e-3)
    assert main(["score", "--model", str(bundle), "--casing", "truecase", "a"]) != 0
    assert "the option truecaser" in capsys.readouterr().err


def test_score_refuses_what_does_not_go_together(bundle: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--eos", "--per-token"], ["--per-word", "--per-token"]):
        assert main(["score", "--model", str(bundle), *options, "a"]) == 2
        assert "--per-token" in capsys.readouterr().err


def test_continue_ranks_candidates(bundle: Path, oracle: Oracle,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sat", "cat", "on"]
    assert main(["continue", "--model", str(bundle), "--weight", "2", "--word-insertion-bonus",
                 "1", "the", *words]) == 0
    _, *rows = lines(capsys)
    wanted = sorted(((oracle.word("the", word), word) for word in words), reverse=True)
    assert [row[2] for row in rows] == [word for _, word in wanted]
    assert [float(row[0]) for row in rows] == pytest.approx([p for p, _ in wanted], abs=TOLERANCE)
    assert [float(row[1]) for row in rows] == pytest.approx([2 * p + 1 for p, _ in wanted],
                                                            abs=TOLERANCE)


def test_explain_draws_every_token(bundle: Path, oracle: Oracle, tmp_path: Path,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "new" / "page.html"
    assert main(["explain", "--model", str(bundle), "--json", "--html", str(page), "the <cat>",
                 "sat"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["log_prob"] == pytest.approx(oracle.word("the <cat>", "sat"), abs=TOLERANCE)
    html = page.read_text(encoding="utf-8")
    assert "the &lt;cat&gt;" in html and "the <cat>" not in html
    assert html.count('class="token') == len(facts["tokens"]) == len(oracle.ids("the <cat> sat"))
    for token in facts["tokens"]:
        assert token["log_prob"] is None or f"{token['log_prob']:.3f}" in html
    assert "http" not in html  # nothing is loaded from elsewhere


def test_bench_compares_the_modes(bundle: Path, tmp_path: Path,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    requests = tmp_path / "requests.jsonl"
    requests.write_text("\n".join(map(json.dumps, [
        {"utt": 0, "contexts": ["the", "the cat"], "candidate_words": [["cat", "mat"], ["sat"]]},
        {"utt": 0, "texts": ["the cat sat"]}, {"utt": 1, "texts": ["the cat sat"], "eos": True},
        {"utt": 1, "texts": ["the cat"], "endings": [".", ""]}])) + "\n")
    assert main(["bench", "--model", str(bundle), "--json", str(requests)]) == 0
    cached, uncached = json.loads(capsys.readouterr().out)["results"]
    assert (cached["mode"], uncached["mode"]) == ("tree", "uncached")
    assert uncached["largest_difference"] < 1e-3
    assert cached["tokens_computed"] < uncached["tokens_computed"]
    requests.write_text('{"utt": 0}\n')
    assert main(["bench", "--model", str(bundle), str(requests)]) == 2
    assert "line 1 is no request" in capsys.readouterr().err


def test_selfcheck(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selfcheck", "--model", str(bundle), "--json", *TEXTS]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["right"] and 0 < found["tokens"] and found["largest_difference"] < 1e-4
    # A negative tolerance cannot be met: the status says so.
    assert main(["selfcheck", "--model", str(bundle), "--tolerance", "-1", *TEXTS]) == 1
    assert "WRONG" in capsys.readouterr().out


def test_every_option_of_the_scorer_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    main(["explain", "--help"])
    shown = capsys.readouterr().out
    for name, _, _ in _core.option_fields():
        if name != "homophone_aggregation":
            assert f"--{name.replace('_', '-')}" in shown
    assert "--lora" in shown and "--revision" in shown


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lmfusion {lmfusion.__version__}\n"
    for command in COMMANDS:
        assert main([command.name, "--help"]) == 0
        assert "--json" in capsys.readouterr().out or command.name == "serve"


def test_a_port_that_there_is_not_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--port", "99999"])
    assert "'--port': Input should be less than or equal to 65535" in capsys.readouterr().err


def completed(shell: str, line: str) -> list[str]:
    """What the program offers to a shell for the last word of a line."""
    words = line.split(" ")
    typed = {"bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
             "zsh": {"_TYPER_COMPLETE_ARGS": line},
             "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}}
    done = subprocess.run(
        [sys.executable, "-m", "lmfusion"], text=True, capture_output=True, check=True,
        env={**os.environ, **typed[shell], "PYTHONPATH": str(ROOT / "python"),
             "_LMFUSION_COMPLETE": f"complete_{shell}"})
    if shell == "zsh":  # _arguments '*: :(("--model":"..." ...))'
        return re.findall(r'^"([^"]+)":', done.stdout.split("((")[1], re.MULTILINE)
    return [each.split("\t")[0] for each in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_knows_commands_and_options(shell: str) -> None:
    assert completed(shell, "lmfusion ex") == ["explain", "export", "export-truecaser"]
    assert completed(shell, "lmfusion rescore --word") == ["--word-insertion-bonus"]
    assert set(completed(shell, "lmfusion compare --")) >= {"--ref", "--output", "--json", "--help"}


def test_the_completion_script_works_in_bash(tmp_path: Path) -> None:
    """What `--install-completion` writes, called as bash calls it."""
    program = tmp_path / "lmfusion"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -m lmfusion \"$@\"\n")
    program.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "HOME": str(tmp_path),
                   "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    # It asks its parent process which shell this is.
    subprocess.run(["bash", "--norc", "-c", "lmfusion --install-completion; exit $?"],
                   env=environment, check=True, capture_output=True)
    [script] = (tmp_path / ".bash_completions").iterdir()
    done = subprocess.run(
        ["bash", "--norc", "-c", 'source "$1"; COMP_WORDS=(lmfusion tune --fo); COMP_CWORD=2; '
         '$(complete -p lmfusion | sed "s/.*-F \\([^ ]*\\).*/\\1/") lmfusion --fo tune; '
         'echo "${COMPREPLY[@]}"', "bash", script],
        env=environment, text=True, capture_output=True, check=True)
    assert done.stdout == "--folds\n"
