"""`lmfusion rescore`: whole jobs, killed jobs, shards; against plain Hugging Face and one run."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lmfusion import LMFusionScorer, nbest
from lmfusion.cli import main
from lmfusion.nbest.ranking import Weights
from lmfusion.rescoring.job import Content, Job, run, scored
from lmfusion.rescoring.journal import Journal, Shard
from lmfusion.tuning.settings import Settings
from lmfusion.tuning.text_form import TextForm
from oracle import WORDS, Oracle

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(Weights(0.7, 0.5, 1.0, 0.0, 0.5), TextForm("sentence", ".", "the cat"))
UTTERANCES = 60


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists that share beginnings, of different lengths, one of them empty."""
    generator = random.Random(11)
    path = tmp_path_factory.mktemp("rescore") / "nbest.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(UTTERANCES):
            stem = generator.choices(WORDS, k=3)
            hypotheses = [[" ".join(stem + generator.choices(WORDS, k=generator.randrange(4))),
                           -generator.random()] for _ in range(generator.randrange(1, 6))]
            file.write(json.dumps({"utt": f"u{number}", "nbest": hypotheses if number != 7 else []},
                                  ensure_ascii=False) + "\n")
    return path


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "settings.json"
    SETTINGS.write(path)
    return path


@pytest.fixture(scope="module")
def undisturbed(source: Path, settings: Path, bundle: Path,
                tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one run that nothing disturbed."""
    output = tmp_path_factory.mktemp("undisturbed") / "ranked.jsonl"
    assert main(command(source, output, settings, bundle)) == 0
    return files(output)


def command(source: Path, output: Path, settings: Path, bundle: Path, *more: str) -> list[str]:
    return ["rescore", str(source), "-o", str(output), "--settings", str(settings), "--model",
            str(bundle), "--hypotheses-a-call", "8", *more]


def files(output: Path) -> dict[str, bytes]:
    """All files beside an output, which are to be two."""
    return {path.name: path.read_bytes() for path in output.parent.iterdir()
            if path.name.startswith((output.name, "."))}


def test_the_output_is_what_hugging_face_ranks(source: Path, undisturbed: dict[str, bytes],
                                               oracle: Oracle) -> None:
    assert set(undisturbed) == {"ranked.jsonl", "ranked.jsonl.parts.tsv"}
    ranked = [json.loads(line) for line in undisturbed["ranked.jsonl"].decode().splitlines()]
    given = [json.loads(line) for line in source.read_text().splitlines()]
    assert [each["utt"] for each in ranked] == [each["utt"] for each in given]
    prompt = oracle.text("the cat")
    for before, after in zip(given[:12], ranked):
        totals = {}
        for text, score in before["nbest"]:
            read = SETTINGS.form.text(text)
            log_prob = oracle.text(f"the cat {read}") - prompt
            words = len(text.split())
            totals[text] = (score + 0.7 * log_prob) / words ** 0.5 + 0.5 * words
        found = [totals[text] for text, _ in after["nbest"]]
        assert sorted(map(tuple, before["nbest"])) == sorted(map(tuple, after["nbest"]))
        assert all(one > other - 1e-3 for one, other in itertools.pairwise(found))


def test_a_journal_cut_anywhere_is_taken_up(source: Path, settings: Path, bundle: Path,
                                            tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    output = tmp_path / "ranked.jsonl"
    assert main(command(source, output, settings, bundle, "--keep-journals")) == 0
    journal = Shard().journal(output)
    whole = journal.read_bytes()
    generator = random.Random(2)
    places = [0, 1, len(whole) - 1, whole.index(b"\n"), whole.index(b"\n") + 1,
              *(generator.randrange(len(whole)) for _ in range(15))]
    for place in places:
        for path in output.parent.iterdir():
            path.unlink()
        journal.write_bytes(whole[:place])
        assert main(command(source, output, settings, bundle)) == 0
        assert files(output) == undisturbed, place


@pytest.mark.parametrize(("kill", "status"), [(signal.SIGKILL, -signal.SIGKILL),
                                              (signal.SIGINT, 130)], ids=["killed", "Ctrl-C"])
def test_a_killed_job_ends_as_one_that_was_not(source: Path, settings: Path, bundle: Path,
                                               tmp_path: Path, undisturbed: dict[str, bytes],
                                               kill: signal.Signals, status: int) -> None:
    """Processes are killed at random places of the work, until one comes through."""
    output = tmp_path / "ranked.jsonl"
    journal = Shard().journal(output)
    generator = random.Random(time.time_ns())
    kills = 0
    for _ in range(12):
        begun = journal.stat().st_size if journal.is_file() else 0
        running = subprocess.Popen(
            [sys.executable, "-m", "lmfusion", *command(source, output, settings, bundle)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / "python")})
        more = generator.randrange(1, 700)  # bytes of the journal
        while running.poll() is None and (
                not journal.is_file() or journal.stat().st_size < begun + more):
            time.sleep(0.0005)
        if kills < 4 and running.poll() is None:
            running.send_signal(kill)
        _, errors = running.communicate()
        if running.returncode == status:
            kills += 1
            assert kill == signal.SIGKILL or b"Traceback" not in errors
            assert not output.exists()
        else:
            assert running.returncode == 0, errors.decode()
            break
    assert kills >= 1 and files(output) == undisturbed


def test_a_kill_while_the_output_is_written(source: Path, settings: Path, bundle: Path,
                                            tmp_path: Path, undisturbed: dict[str, bytes],
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "ranked.jsonl"
    whole = os.replace
    for call in range(2):
        seen = iter(range(10))

        def replace(a: Path, b: Path, call: int = call, seen: Iterator[int] = seen) -> None:
            if next(seen) == call:
                raise KeyboardInterrupt
            whole(a, b)
        monkeypatch.setattr("lmfusion.replaced_file.os.replace", replace)
        assert main(command(source, output, settings, bundle)) == 130
        assert not output.exists()
    monkeypatch.undo()
    assert main(command(source, output, settings, bundle)) == 0
    assert files(output) == undisturbed


def test_shards_give_the_same_files(source: Path, settings: Path, bundle: Path, tmp_path: Path,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    output, alone = tmp_path / "ranked.jsonl", tmp_path / "alone.jsonl"
    assert main(command(source, alone, settings, bundle)) == 0
    for number in (3, 1, 2):
        assert not output.exists()
        assert main(command(source, output, settings, bundle, "--shard", f"{number}/3")) == 0
    assert "shard 1/3 is done" in capsys.readouterr().err
    assert output.read_bytes() == alone.read_bytes()
    # The calls are others, so that log p may differ in what float32 does not hold.
    rows = [[line.split("\t") for line in path.with_name(path.name + ".parts.tsv").read_text()
             .splitlines()] for path in (output, alone)]
    for one, other in zip(*rows, strict=True):
        assert one[:3] == other[:3] and one[6] == other[6]
    for number, log_prob in [(row[3], other[3]) for row, other in zip(*rows)][1:]:
        assert float(number) == pytest.approx(float(log_prob), abs=1e-3)
    ranges = [Shard(number, 7).range(UTTERANCES) for number in range(1, 8)]
    assert [each for one in ranges for each in one] == list(range(UTTERANCES))
    for text in ("0/3", "4/3", "1", "a/b", "1/0"):
        assert main(command(source, output, settings, bundle, "--shard", text)) == 2
        assert "1 <= I <= N" in capsys.readouterr().err


def test_a_journal_of_another_job_is_refused(source: Path, settings: Path, bundle: Path,
                                             tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "ranked.jsonl"
    assert main(command(source, output, settings, bundle, "--shard", "1/2")) == 0
    other = tmp_path / "settings.json"
    Settings(SETTINGS.weights, TextForm()).write(other)
    assert main(command(source, output, other, bundle, "--shard", "1/2")) == 2
    assert "another form" in capsys.readouterr().err
    journal = Shard(1, 2).journal(output)
    before = journal.read_bytes()
    held = Journal(journal, json.loads(before.splitlines()[0]))
    assert main(command(source, output, settings, bundle, "--shard", "1/2")) == 2
    assert "another process is at work" in capsys.readouterr().err
    held.close()
    assert journal.read_bytes() == before
    # One that ended before its first call holds nothing that could be lost.
    journal.write_bytes(before.splitlines(keepends=True)[0])
    assert main(command(source, output, other, bundle, "--shard", "1/2")) == 0
    assert json.loads(journal.read_bytes().splitlines()[0])["form"] != json.loads(
        before.splitlines()[0])["form"]
    assert main(command(source, source, settings, bundle)) == 2
    assert "is what is read" in capsys.readouterr().err


def test_weights_may_change_between_a_kill_and_the_end(source: Path, bundle: Path,
                                                       tmp_path: Path) -> None:
    """log p are kept, totals are not."""
    output = tmp_path / "ranked.jsonl"
    job = Job(nbest.read(source), output, SETTINGS, "a model", keep_journals=True)
    content = Content.of(job.document)
    opened = LMFusionScorer(bundle)
    assert run(job, lambda: opened, content) == []
    other = Job(nbest.read(source), output, Settings(Weights(0.0), SETTINGS.form), "a model")
    assert run(other, lambda: pytest.fail("scored again"), content) == []
    for line in output.read_text().splitlines():
        found = [score for _, score in json.loads(line)["nbest"]]
        assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("prompt", ["", "the cat"])
def test_the_top_alone_is_the_same_with_less_work(source: Path, bundle: Path, tmp_path: Path,
                                                  prompt: str) -> None:
    wanted = Settings(Weights(0.7, -0.5, 8.0, 0.0, 0.0, 0.5), TextForm("sentence", ".", prompt))
    counts, outputs = [], []
    for top in (None, 1):
        opened = LMFusionScorer(bundle)
        job = Job(nbest.read(source), tmp_path / f"{top}.jsonl", wanted, "a model", top=top,
                  keep_journals=True)
        assert run(job, lambda opened=opened: opened, Content.of(job.document)) == []
        counts.append(opened.stats().tokens_computed)
        outputs.append([json.loads(line) for line in job.output.read_text().splitlines()])
    assert counts[1] < counts[0]
    for full, first in zip(*outputs):
        assert first["nbest"][:1] == full["nbest"][:1]
        assert sorted(first["nbest"]) == sorted(full["nbest"])
    parts = [[line.split("\t") for line in (tmp_path / f"{top}.jsonl.parts.tsv").read_text()
              .splitlines()] for top in (None, 1)]
    full_rows = {(row[0], row[6], row[2]): row for row in parts[0][1:]}
    known = [row for row in parts[1][1:] if row[3] != "nan"]
    assert len(known) < len(parts[1]) - 1  # something was left
    for row in known:
        assert float(row[3]) == pytest.approx(float(full_rows[row[0], row[6], row[2]][3]), abs=1e-3)
    other = Job(nbest.read(source), tmp_path / "1.jsonl", Settings(Weights(0.1), wanted.form),
                "a model", top=1)  # what was left out depends on the weights
    with pytest.raises(ValueError, match="another weights"):
        run(other, lambda: pytest.fail("scored again"), Content.of(other.document))
    with pytest.raises(ValueError, match="length normalisation"):
        Job(nbest.read(source), tmp_path / "x.jsonl", SETTINGS, "a model", top=1)


def test_texts_are_asked_for_by_their_beginnings(bundle: Path) -> None:
    """The order given does not cost tokens, with a cache that holds a few texts only."""
    texts = [f"{first} {second} {third}" for first in WORDS[:6] for second in WORDS[6:12]
             for third in WORDS[12:16]]
    mixed = random.Random(1).sample(texts, len(texts))
    counts = []
    for some in (texts, mixed):
        scorer = LMFusionScorer(bundle, max_batch_tokens=32)
        found = dict(zip(some, scored(scorer, TextForm(), some)))
        counts.append(scorer.stats().tokens_computed)
    assert counts[0] == counts[1]
    wanted = LMFusionScorer(bundle, mode="uncached").score_texts(texts)
    assert [found[text] for text in texts] == pytest.approx(wanted, abs=1e-3)


def test_bare_texts_are_warned_of(source: Path, settings: Path, bundle: Path, tmp_path: Path,
                                  capsys: pytest.CaptureFixture[str]) -> None:
    bare = tmp_path / "bare.trn"
    bare.write_text("the cat (a)\nthe mat (a)\n")
    output = tmp_path / "ranked.trn"
    assert main(["rescore", str(bare), "-o", str(output), "--model", str(bundle)]) == 0
    assert "lmfusion tune" in capsys.readouterr().err
    for more in (["--settings", str(settings)], ["--casing", "sentence"], ["--final", "."]):
        assert main(["rescore", str(bare), "-o", str(output), "--model", str(bundle), *more]) == 0
        assert "lmfusion tune" not in capsys.readouterr().err
    assert main(["rescore", str(bare), "-o", str(output), "--model", str(bundle), "--settings",
                 str(settings), "--weight", "1"]) == 2
    assert "leave out --weight" in capsys.readouterr().err


def test_folders_and_compressed_files(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "nbest"
    folder.mkdir()
    (folder / "a").write_text("-1 -3 1 mat\n-1.1 -2 2 the cat\n")
    (folder / "b").write_text("-2 -3 1 x\n")
    assert main(["rescore", str(folder), "-o", str(tmp_path / "ranked"), "--model", str(bundle),
                 "--word-insertion-bonus", "1000"]) == 0
    assert (tmp_path / "ranked" / "a").read_text().startswith("-1.1 ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nbest", "ranked",
                                                                 "ranked.parts.tsv"]
