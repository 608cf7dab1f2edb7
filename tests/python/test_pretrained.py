"""`LMFusionScorer.from_pretrained`: folders, .gguf files, names; exported once, opened at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import torch
from lmfusion import LMFusionScorer, ModelFileError
from lmfusion.cli import main
from lmfusion.pretrained import cached_models, model_file
from oracle import Oracle

TEXTS = ["the cat sat", "the cats", "naïve"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(oracle: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained") / "tiny"
    oracle.model.save_pretrained(folder)
    oracle.tokenizer.save_pretrained(folder)
    return folder


def check(scorer: LMFusionScorer, oracle: Oracle) -> None:
    assert scorer.score_texts(TEXTS) == pytest.approx([oracle.text(text) for text in TEXTS],
                                                      abs=1e-3)


def test_a_folder_is_exported_once(folder: Path, oracle: Oracle, tmp_path: Path,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    cache, source = tmp_path / "cache", tmp_path / "tiny"
    shutil.copytree(folder, source)
    lines: list[str] = []
    path = model_file(source, cache_dir=cache, progress=lines.append)
    assert any("exporting" in line for line in lines)
    check(LMFusionScorer.from_pretrained(source, cache_dir=cache), oracle)
    # From here on nothing may be exported, nor the weights be read, unless they have changed.
    monkeypatch.setattr("lmfusion.exporter.export_folder", None)
    assert model_file(source, cache_dir=cache) == path
    weights = source / "model.safetensors"
    os.utime(weights, ns=(1, 1))  # read again, found the same
    assert model_file(source, cache_dir=cache) == path
    shutil.copytree(source, tmp_path / "elsewhere" / "tiny")
    assert model_file(tmp_path / "elsewhere" / "tiny", cache_dir=cache) == path
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(TypeError):  # another content: the export that is None
        model_file(source, cache_dir=cache)


def test_another_version_is_another_export(folder: Path, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_file(folder, cache_dir=tmp_path)
    monkeypatch.setattr("importlib.metadata.version", lambda package: "0.0")
    other = model_file(folder, cache_dir=tmp_path)
    assert other != path and other.is_file()


def test_a_lora_adapter_is_merged(folder: Path, oracle: Oracle, tmp_path: Path) -> None:
    import peft
    model = tiny_models.build(oracle.model.config)
    model.load_state_dict(oracle.model.state_dict())
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj"],
                                                         lora_alpha=8))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(1))
    adapted.save_pretrained(tmp_path / "adapter")
    merged = Oracle(adapted.merge_and_unload(), oracle.tokenizer, oracle.start)
    scorer = LMFusionScorer.from_pretrained(folder, lora=tmp_path / "adapter",
                                            cache_dir=tmp_path / "cache")
    check(scorer, merged)
    assert scorer.score_texts(TEXTS) != pytest.approx([oracle.text(text) for text in TEXTS],
                                                      abs=1e-2)
    with pytest.raises(FileNotFoundError, match="LoRA"):
        model_file(folder, lora=tmp_path / "nowhere", cache_dir=tmp_path / "cache")


def test_a_gguf_file(oracle: Oracle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights; a tiny file has no vocabulary, so the tokenizer is the oracle's."""
    from peers.gguf_file import write_gguf
    source = write_gguf(oracle.model, tmp_path / "tiny.gguf")
    monkeypatch.setattr("lmfusion.exporter.load_tokenizer", lambda *_: oracle.tokenizer)
    # The file does not say what its start token is.
    scorer = LMFusionScorer.from_pretrained(source, cache_dir=tmp_path / "cache",
                                            bos_id=oracle.start)
    check(scorer, oracle)
    monkeypatch.setattr("lmfusion.exporter.export_folder", None)
    assert model_file(source, cache_dir=tmp_path / "cache").stem.startswith("tiny-")


def test_processes_export_one_after_the_other(folder: Path, tmp_path: Path) -> None:
    program = ("import sys; from lmfusion.pretrained import model_file; "
               "print(model_file(sys.argv[1], cache_dir=sys.argv[2]))")
    running = [subprocess.Popen([sys.executable, "-c", program, folder, tmp_path], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env={**os.environ, "PYTHONPATH": str(ROOT / "python")})
               for _ in range(2)]
    ended = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], ended
    assert len({out for out, _ in ended}) == 1
    assert sum(err.count("exporting") for _, err in ended) == 1


def test_a_name_is_taken_from_the_hubs_cache(folder: Path, oracle: Oracle, tmp_path: Path,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    hub = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="hf download some/tiny --local-dir"):
        model_file("some/tiny", cache_dir=tmp_path / "cache")
    snapshot = hub / "models--some--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(folder, snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    check(LMFusionScorer.from_pretrained("some/tiny", cache_dir=tmp_path / "cache"), oracle)
    with pytest.raises(FileNotFoundError, match="cannot be downloaded"):
        model_file("some/tiny", revision="other", cache_dir=tmp_path / "cache")


def test_what_cannot_be(folder: Path, bundle: Path, tmp_path: Path) -> None:
    assert model_file(bundle) == bundle
    with pytest.raises(ValueError, match="lora needs the original model"):
        model_file(bundle, lora=folder)
    with pytest.raises(ValueError, match="revision = 'main' is for a name on the hub"):
        model_file(folder, revision="main", cache_dir=tmp_path)
    for name in ("nowhere.lmf", "nowhere.gguf", "/no/such/folder"):
        with pytest.raises(FileNotFoundError, match="neither a file nor a folder"):
            model_file(name, cache_dir=tmp_path)
    for given in ("gpt2", folder):
        with pytest.raises(ModelFileError, match="from_pretrained"):
            LMFusionScorer(given)


def test_the_command_lists_and_removes(folder: Path, tmp_path: Path,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    path = model_file(folder, cache_dir=tmp_path)
    assert main(["models", "--cache-dir", str(tmp_path)]) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split("\t") == ["name", "MB", "source", "date"]
    assert line.split("\t")[0] == path.stem and line.split("\t")[2] == str(folder)
    assert main(["models", "--cache-dir", str(tmp_path), "--remove", "another"]) == 2
    assert "another" in capsys.readouterr().err and path.is_file()
    assert main(["models", "--cache-dir", str(tmp_path), "--remove", path.stem]) == 0
    assert not path.exists() and cached_models(tmp_path) == []


def test_commands_take_a_folder(folder: Path, oracle: Oracle, tmp_path: Path,
                                monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LMFUSION_CACHE", str(tmp_path))
    assert main(["score", "--model", str(folder), "the cat"]) == 0
    log_prob = float(capsys.readouterr().out.split("\t")[0])
    assert log_prob == pytest.approx(oracle.text("the cat"), abs=1e-3)
    assert main(["inspect", str(folder)]) == 0
    assert '"architecture": "LlamaForCausalLM"' in capsys.readouterr().out
