"""The command line: what it prints, and that mistakes are one line on stderr and status 2."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import torch
from lmfusion import LMFusionScorer
from lmfusion.cli import main
from lmfusion.exporter import export
from model_files import PARTS, read_parts, with_description, write_parts

ROOT = Path(__file__).parents[2]
TEXTS = ["abc", "caf\u00e9 au lait", "abd", ""]
TOLERANCE = 1e-3  # nats per text; four decimals are printed


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_models.tiny_tokenizer(adds_bos=True)


@pytest.fixture(scope="module")
def network():
    return tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())


@pytest.fixture(scope="module")
def model(network, tokenizer, tmp_path_factory) -> Path:
    return export(network, tokenizer, tmp_path_factory.mktemp("cli") / "tiny.lmf",
                  source="a test", license="none")


def log_probs(network, ids: list[int]) -> list[float]:
    """log p of ids[1:], by Hugging Face."""
    with torch.no_grad():
        rows = network(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
    return [float(row[token]) for row, token in zip(rows, ids[1:])]


def expect_error(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """Runs a command that must fail; returns its message."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == ""
    assert lines and lines[-1].startswith("lmfusion: ")
    assert "Traceback" not in captured.err
    return lines[-1]


def test_score_prints_hugging_faces_sums(model, network, tokenizer, capsys) -> None:
    assert main(["score", "--model", str(model), *TEXTS]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[1] for line in lines] == TEXTS
    wanted = [sum(log_probs(network, tokenizer(text)["input_ids"])) for text in TEXTS]
    assert [float(line.split("\t")[0]) for line in lines] == pytest.approx(wanted, abs=TOLERANCE)


def test_score_reads_lines_of_stdin(model) -> None:
    """A process of its own: also that `python -m lmfusion` is there."""
    lines = [f"line {i}" for i in range(70)]  # more than one call
    done = subprocess.run(
        [sys.executable, "-m", "lmfusion", "score", "--model", model], text=True, check=True,
        input="\n".join(lines) + "\n", capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")})
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == lines


def test_explain_adds_up(model, network, tokenizer, capsys) -> None:
    assert main(["explain", "--model", str(model), "--weight", "0.5", "--word-insertion-bonus",
                 "2", "ab", "cd"]) == 0
    out = capsys.readouterr().out
    context, whole = (tokenizer(text)["input_ids"] for text in ("ab", "ab cd"))
    assert whole[:len(context)] == context
    wanted = sum(log_probs(network, whole)[len(context) - 1:])
    assert f"= {wanted:.4f} nats" in out
    assert f"0.5 * log p + 2 = {0.5 * wanted + 2:.4f}; " in out


def test_prime_saves_what_a_scorer_loads(model, tmp_path, capsys) -> None:
    contexts, words = tmp_path / "contexts", tmp_path / "words"
    contexts.write_text("ab\nab cd\n")
    words.write_text("the\n\ncat\n")
    output = tmp_path / "cache"
    assert main(["prime", "--model", str(model), "-o", str(output), "--contexts", str(contexts),
                 "--words", str(words)]) == 0
    scorer = LMFusionScorer(model)
    tokens = scorer.load_cache(output)
    assert f"{output}: {tokens} tokens, {output.stat().st_size} bytes" in capsys.readouterr().out
    scorer.score_continuations(["", "ab", "ab cd"], [["the", "cat"], [" "], [" "]])
    assert tokens > 0 and scorer.stats().tokens_computed == 0
    assert "--contexts or --words" in expect_error(capsys, "prime", "--model", model, "-o", output)
    assert "nowhere" in expect_error(capsys, "prime", "--model", model, "-o", output, "--words",
                                     tmp_path / "nowhere")


def test_inspect_prints_the_description(model, capsys) -> None:
    assert main(["inspect", str(model)]) == 0
    description = json.loads(capsys.readouterr().out)
    assert description["architecture"] == "LlamaForCausalLM"
    assert description["source"] == "a test"


def test_inspect_verifies(model, tmp_path, capsys) -> None:
    assert main(["inspect", str(model), "--verify"]) == 0
    out = capsys.readouterr().out
    parts = read_parts(model)
    digest = hashlib.sha256(parts[PARTS]).hexdigest()
    assert "are right" in out and digest in out
    assert main(["inspect", str(model), "--verify", "--sha256", digest.upper()]) == 0
    capsys.readouterr()
    assert main(["inspect", str(model), "--verify", "--sha256", "0" * 64]) == 2
    assert f"is {digest}, not 0000" in capsys.readouterr().out
    assert "--verify only" in expect_error(capsys, "inspect", model, "--sha256", digest)
    bad = tmp_path / "bad.lmf"

    def change(description: dict[str, object]) -> None:
        description.update(kv_heads=0, bos_token_id=2**40)

    with_description(model, change, bad)
    assert main(["inspect", str(bad), "--verify"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("lmfusion.json: kv_heads: 0; an integer from 1 to ")
    assert lines[1] == ("lmfusion.json: bos_token_id: 1099511627776; an integer from -1 to 279 "
                        "expected")
    # What crc32 cannot tell, SHA-256 does: the table is of another file.
    table = json.loads(parts[PARTS])
    table["parts"]["version"]["sha256"] = "0" * 64
    write_parts({**parts, PARTS: json.dumps(table).encode()}, bad)
    assert main(["inspect", str(bad), "--verify"]) == 2
    assert capsys.readouterr().out == ("version: it has another SHA-256 than when it was exported"
                                       "\n")


def test_inspect_of_other_files(tmp_path, capsys) -> None:
    text = tmp_path / "text.lmf"
    text.write_text("no archive")
    assert "not a model file" in expect_error(capsys, "inspect", text)
    plain = tmp_path / "plain.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(plain))
    assert "no lmfusion.json" in expect_error(capsys, "inspect", plain)
    assert "missing.lmf" in expect_error(capsys, "inspect", tmp_path / "missing.lmf")


def test_export_a_folder(network, tokenizer, tmp_path, capsys) -> None:
    network.save_pretrained(tmp_path / "folder")
    tokenizer.save_pretrained(tmp_path / "folder")
    output = tmp_path / "model.lmf"
    assert main(["export", str(tmp_path / "folder"), "-o", str(output), "--license", "mine"]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert main(["inspect", str(output)]) == 0
    assert json.loads(capsys.readouterr().out)["license"] == "mine"


def test_export_mistakes(tmp_path, capsys) -> None:
    output = tmp_path / "model.lmf"
    assert "nowhere" in expect_error(capsys, "export", tmp_path / "nowhere", "-o", output)
    (tmp_path / "empty").mkdir()
    expect_error(capsys, "export", tmp_path / "empty", "-o", output)
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"not a GGUF file")
    expect_error(capsys, "export", bad, "-o", output)
    assert not output.exists()


def test_scoring_mistakes(model, tmp_path, capsys) -> None:
    assert "missing.lmf" in expect_error(capsys, "score", "--model", tmp_path / "missing.lmf", "a")
    broken = tmp_path / "broken.lmf"
    broken.write_bytes(b"PK but no archive")
    assert "broken.lmf" in expect_error(capsys, "score", "--model", broken, "a")
    assert "sideways" in expect_error(capsys, "score", "--model", model, "--casing", "sideways",
                                      "a")
    expect_error(capsys, "explain", "--model", model, "--bos", "no such token", "a", "b")


def test_a_missing_package_is_named(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setitem(sys.modules, "lmfusion.demo.main_job", None)
    message = expect_error(capsys, "demo", "--out", tmp_path)
    assert "lmfusion[demo]" in message


def test_usage_mistakes_end_with_status_2(capsys) -> None:
    for arguments in ([], ["dance"], ["export", "folder"], ["explain", "one"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
    capsys.readouterr()


def test_a_missing_file_is_named_first(tmp_path, capsys) -> None:
    missing = tmp_path / "nosuch.jsonl"
    assert main(["rescore", str(missing), "-o", str(tmp_path / "out.jsonl")]) == 2
    assert capsys.readouterr().err == f"lmfusion: {missing}: No such file or directory\n"
