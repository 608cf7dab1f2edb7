"""The nightly command ends with its time, goes on after a stage that dies, and loses no finding."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from nightly.__main__ import Night
from nightly.fuzzing import FILES, READERS, TEXTS
from nightly.outcome import ROOT, Work
from nightly.schedule import Schedule, with_room
from nightly.stages import STAGES, Stage
from test_docs_commands import shell_lines


def nothing(work: Work) -> None:
    pass


def run_by_clock(stages: list[Stage], seconds: float, slower: float,
                 jobs: int = 2) -> dict[str, tuple[float, float]]:
    """When each stage ends, and what it was given beside its own, by a clock of the test's: what
    has a length of its own takes `slower` times as long."""
    schedule = Schedule(stages, seconds, jobs, begin=0.0)
    workers: list[tuple[float, Stage | None]] = [(0.0, None)] * jobs  # when free, after what
    ran = {}
    while True:
        workers.sort(key=lambda one: one[0])
        now, stage = workers.pop(0)
        if stage is not None:
            schedule.done(stage)
        given = schedule.next(now)
        if given is None:
            return ran
        stage, more = given
        workers.append((now + slower * stage.least + more, stage))
        ran[stage.name] = workers[-1][0], more


@pytest.mark.parametrize("slower", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("seed", range(5))
def test_stages_end_within_the_time_given(seed: int, slower: float) -> None:
    draw = random.Random(seed)
    stages = [Stage(str(i), "", nothing, share=draw.choice([0, 0, 1, 5, 20]),
                    fixed=draw.randrange(5, 300)) for i in range(14)]
    room = with_room(stages, 2 * 4200.0)
    ran = run_by_clock(room, 4200.0, slower)
    assert sorted(ran) == sorted(stage.name for stage in room)
    assert max(end for end, _ in ran.values()) <= 4200
    if any(stage.share for stage in room):
        spent = sum(slower * stage.least + ran[stage.name][1] for stage in room)
        assert spent > 0.75 * 2 * 4200


def test_all_stages_have_room_in_two_hours() -> None:
    assert with_room(STAGES, 2 * 7200.0) == STAGES


def test_each_fuzzer_has_ten_minutes_of_two_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an earlier night's builds are there, and the stages before it take what is planned."""
    monkeypatch.setattr(Stage, "must_build", False)
    programs = (ROOT / "tests" / "fuzz").glob("*_fuzzer.cpp")
    assert sorted(FILES + TEXTS) == sorted(
        [*(program.name.removesuffix("_fuzzer.cpp") for program in programs), *READERS])
    ran = run_by_clock(STAGES, 7200.0, slower=1.0)
    assert ran["fuzz_files"][1] / len(FILES) >= 600
    assert ran["fuzz_texts"][1] / len(TEXTS) >= 600


def night(stages: list[Stage], folder: Path, minutes: float = 0.05) -> dict:
    given = argparse.Namespace(minutes=minutes, jobs=2, seed=1, out=folder, stages=[])
    Night(stages, given).run_all()
    return json.loads((folder / "report.json").read_text())


def test_a_stage_that_dies_is_a_finding_and_the_rest_goes_on(tmp_path: Path) -> None:
    def dies(work: Work) -> None:
        work.outcome.count("calls", 3)
        raise LookupError("of the stage")

    def ends_badly(work: Work) -> None:
        work.must("sh", "-c", "echo what was wrong; exit 3")

    def right(work: Work) -> None:
        if work.must("true"):
            work.outcome.count("calls", 4)

    report = night([Stage("dies", "", dies, fixed=0.1), Stage("bad", "", ends_badly, fixed=0.1),
                    Stage("right", "", right, fixed=0.1)], tmp_path)
    outcomes = report["outcomes"]
    assert report["findings"] == 2
    assert outcomes["dies"]["findings"][0].startswith("LookupError: of the stage")
    assert outcomes["dies"]["figures"] == {"calls": 3}
    assert "sh ended with status 3" in outcomes["bad"]["findings"][0]
    assert outcomes["right"]["figures"] == {"calls": 4}
    kept = [path.read_text() for path in (tmp_path / "findings").iterdir()]
    assert len(kept) == 2
    assert any("what was wrong" in each for each in kept)


@pytest.mark.parametrize("name", ["arm64", "amx", "install"])
def test_a_stage_that_installs_packages_is_skipped_without_root(
        name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightly.stages.os.geteuid", lambda: 1000)
    monkeypatch.setattr("nightly.stages.platform.machine", lambda: "x86_64")
    stage = next(stage for stage in STAGES if stage.name == name)
    outcome = night([stage], tmp_path)["outcomes"][name]
    assert outcome["skipped"].startswith("not root"), outcome
    assert not outcome["figures"]


def test_the_emulated_cpu_is_skipped_where_programs_are_not_its_own(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nightly.stages.platform.machine", lambda: "aarch64")
    stage = next(stage for stage in STAGES if stage.name == "amx")
    assert "x86-64" in night([stage], tmp_path)["outcomes"]["amx"]["skipped"]


def test_findings_on_the_page_are_no_commands(tmp_path: Path) -> None:
    """`test_docs_commands` runs those of every page, this one too."""
    def ends_badly(work: Work) -> None:
        work.must(sys.executable, "-c", "raise SystemExit(3)")
        work.outcome.notes.append("python was there")

    night([Stage("bad", "", ends_badly, fixed=0.1)], tmp_path)
    page = (tmp_path / "report.md").read_text()
    assert "\npython ended with status 3" in page
    assert "\npython was there" in page
    assert list(shell_lines(page)) == []


def test_what_runs_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def hangs(work: Work) -> None:
        work.must("sh", "-c", f"sleep 600 & echo $! > {pid}; echo 1 test FAILED; wait")

    begin = time.monotonic()
    outcomes = night([Stage("hangs", "", hangs, fixed=0.1), Stage("right", "", nothing, fixed=0.1)],
                     tmp_path)["outcomes"]
    assert time.monotonic() - begin < 60
    assert "1 test FAILED" in outcomes["hangs"]["findings"][0]
    state = Path(f"/proc/{pid.read_text().strip()}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_stage_without_room_says_so(tmp_path: Path) -> None:
    outcomes = night([Stage("right", "", nothing, fixed=0.1),
                      Stage("long", "", nothing, fixed=1000)], tmp_path)["outcomes"]
    assert outcomes["long"]["skipped"].startswith("takes 1000 s at least")
    assert outcomes["right"]["skipped"] == ""
