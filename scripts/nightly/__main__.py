"""The command: runs stages beside each other, shows how far they are, writes the page."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from nightly.outcome import ROOT, Outcome, Work
from nightly.page import Run, write_page
from nightly.schedule import Schedule, with_room
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
    print(f"seed {given.seed}; logs in {given.out}", flush=True)
    signal.signal(signal.SIGTERM, interrupted)
    run = Night(chosen, given).run_all()
    if not given.stages:
        write_page(run, ROOT / "docs" / "reliability")
    print((given.out / "report.md").read_text())
    return 1 if run.findings else 0


def interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class Night:
    """One run of stages. The page is written again whenever one has ended, so nothing that was
    found is lost with the rest."""

    def __init__(self, stages: list[Stage], given: argparse.Namespace) -> None:
        self.given = given
        self.begin = time.monotonic()
        self.end = self.begin + given.minutes * 60
        jobs = max(1, min(given.jobs, len(stages)))
        room = with_room(stages, given.minutes * 60 * jobs)
        self.run = Run.begin(minutes=given.minutes, jobs=jobs, seed=given.seed)
        self.run.outcomes = {stage.name: Outcome(skipped=(
            "was not begun" if stage in room else f"takes {stage.least:.0f} s at least, which "
            f"--minutes {given.minutes:g} does not leave")) for stage in stages}
        self.schedule = Schedule(room, self.end, jobs)
        self.works: list[Work] = []  # that run now
        self.lock = threading.Lock()

    def run_all(self) -> Run:
        for stage in self.schedule.stages:
            if stage.must_build:
                print(f"{stage.name}: {stage.building:.0f} s for a first build")
        columns = (TextColumn("{task.description:<14}"), BarColumn(), TimeElapsedColumn(),
                   TextColumn("{task.fields[status]}"))
        with Progress(*columns) as progress, ThreadPoolExecutor(self.schedule.jobs) as pool:
            for _ in range(self.schedule.jobs):
                pool.submit(self.work, progress)
            try:
                pool.shutdown(wait=True)
            except KeyboardInterrupt:
                self.give_up()
        self.write()
        return self.run

    def give_up(self) -> None:
        """Nothing more begins, and what runs is ended; the page says so."""
        with self.schedule.lock:
            self.schedule.pending.clear()
        with self.lock:
            for work in self.works:
                work.stop()

    def write(self) -> None:
        with self.lock:
            self.run.end()
            write_page(self.run, self.given.out / "report")

    def work(self, progress: Progress) -> None:
        """One worker: stage after stage until none is left."""
        while (given := self.schedule.next(time.monotonic())) is not None:
            stage, seconds = given
            self.run.outcomes[stage.name] = self.run_one(stage, seconds, progress)
            self.schedule.done(stage)
            self.write()

    def run_one(self, stage: Stage, seconds: float, progress: Progress) -> Outcome:
        """One stage; what it throws is a finding. It is ended where it takes five times its time,
        a finding too, and where all of the time is over."""
        begin = time.monotonic()
        if begin >= self.end:
            return Outcome(skipped="the time was over")
        folder = self.given.out / stage.name
        folder.mkdir(parents=True, exist_ok=True)
        end = min(self.end, begin + 5 * (stage.least + seconds) + 60)
        work = Work(seconds, folder, self.given.seed, end, self.end, self.run.jobs)
        work.log.unlink(missing_ok=True)
        task = progress.add_task(stage.name, total=stage.least + seconds, status="")
        ended = threading.Event()

        def show() -> None:
            while not ended.wait(1):
                progress.update(task, completed=time.monotonic() - begin, status=work.status)

        shower = threading.Thread(target=show)
        shower.start()
        with self.lock:
            self.works.append(work)
        try:
            stage.run(work)
        except Exception as error:
            print(traceback.format_exc())
            work.find(f"{type(error).__name__}: {error}")
        finally:
            ended.set()
            shower.join()
            with self.lock:
                self.works.remove(work)
        work.outcome.seconds = time.monotonic() - begin
        found = len(work.outcome.findings)
        progress.update(task, completed=stage.least + seconds,
                        status=work.outcome.skipped or f"{found} findings")
        if not sys.stdout.isatty():
            print(f"{stage.name}: {work.outcome.seconds:.0f} s "
                  f"(planned {stage.least + seconds:.0f}), {found} findings", flush=True)
        return work.outcome


if __name__ == "__main__":
    sys.exit(main())
