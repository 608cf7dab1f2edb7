"""The command: runs stages beside each other, shows how far they are, writes the page."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from nightly.outcome import ROOT, Outcome, Work
from nightly.page import Run, write_page
from nightly.stages import STAGES, Stage


def main() -> int:
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(prog="./run nightly", description=__doc__, epilog="stages: " +
                                     "; ".join(f"{each.name}: {each.what}" for each in STAGES))
    parser.add_argument("stages", nargs="*", metavar="STAGE", choices=[[], *names],
                        help="only these; then docs/reliability.md stays as it is")
    parser.add_argument("--minutes", type=float, default=120, help="in all (default 120)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1),
                        help="stages at a time (default 2)")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10**6,
                        help="the first seed of what is random (default: by the clock)")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "out" / "nightly",
                        help="folder of logs and reports")
    given = parser.parse_args()
    chosen = [stage for stage in STAGES if not given.stages or stage.name in given.stages]
    run = Run.begin(minutes=given.minutes, jobs=given.jobs, seed=given.seed)
    print(f"seed {given.seed}; logs in {given.out}", flush=True)
    run.outcomes = run_all(chosen, given)
    run.end()
    write_page(run, given.out / "report")
    if not given.stages:
        write_page(run, ROOT / "docs" / "reliability")
    print((given.out / "report.md").read_text())
    return 1 if run.findings else 0


def run_all(stages: list[Stage], given: argparse.Namespace) -> dict[str, Outcome]:
    """Every stage's outcome, by its name, in the order of the list. A stage that has no room in the
    time given is skipped, and says how long it takes."""
    total = given.minutes * 60 * min(given.jobs, len(stages))
    end = time.monotonic() + given.minutes * 60
    outcomes = {stage.name: Outcome(skipped=f"takes {stage.least:.0f} s at least, which "
                                    f"--minutes {given.minutes:g} does not leave")
                for stage in stages}
    room = with_room(stages, total)
    for stage in room:
        print_least(stage)
    seconds = shares(room, total)
    columns = (TextColumn("{task.description:<14}"), BarColumn(), TimeElapsedColumn(),
               TextColumn("{task.fields[status]}"))
    with Progress(*columns) as progress, ThreadPoolExecutor(given.jobs) as pool:
        def do(stage: Stage) -> Outcome:
            return run_one(stage, seconds[stage.name], end, given, progress)
        outcomes |= {stage.name: outcome for stage, outcome in zip(room, pool.map(do, room))}
    return outcomes


def print_least(stage: Stage) -> None:
    """What a stage takes at least, where that is long."""
    if stage.least >= 60:
        print(f"{stage.name}: {stage.least:.0f} s at least"
              + (f", {stage.building:.0f} of them for a first build" if stage.must_build else ""))


def with_room(stages: list[Stage], total: float) -> list[Stage]:
    """Those that three quarters of the time hold, the first of the list before the others."""
    room: list[Stage] = []
    for stage in stages:
        if len(stages) == 1 or sum(each.least for each in room) + stage.least <= 0.75 * total:
            room.append(stage)
    return room


def shares(stages: list[Stage], total: float) -> dict[str, float]:
    """Seconds for what goes on as long as it may, by stage: what the rest leaves of `total`."""
    left = max(total - sum(stage.least for stage in stages), 0.1 * total)
    sum_of_shares = sum(stage.share for stage in stages) or 1
    return {stage.name: left * stage.share / sum_of_shares for stage in stages}


def run_one(stage: Stage, seconds: float, end: float, given: argparse.Namespace,
            progress: Progress) -> Outcome:
    """One stage; what it throws is a finding. What is not done by `end` is left."""
    if time.monotonic() >= end:
        return Outcome(skipped="the time was over")
    folder = given.out / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    work = Work(seconds, folder, given.seed, end)
    work.log.unlink(missing_ok=True)
    task = progress.add_task(stage.name, total=stage.least + seconds, status="")
    begin = time.monotonic()
    ended = threading.Event()

    def show() -> None:
        while not ended.wait(1):
            progress.update(task, completed=time.monotonic() - begin, status=work.status)

    shower = threading.Thread(target=show)
    shower.start()
    try:
        stage.run(work)
    except Exception as error:
        work.find(f"{type(error).__name__}: {error}")
    finally:
        ended.set()
        shower.join()
    work.outcome.seconds = time.monotonic() - begin
    found = len(work.outcome.findings)
    progress.update(task, completed=stage.least + seconds,
                    status=work.outcome.skipped or f"{found} findings")
    if not sys.stdout.isatty():
        print(f"{stage.name}: {work.outcome.seconds:.0f} s, {found} findings", flush=True)
    return work.outcome


if __name__ == "__main__":
    sys.exit(main())
