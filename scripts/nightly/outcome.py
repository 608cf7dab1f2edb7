"""What comes of a stage: figures, and what was found."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAXIMA = ("largest", "threads")  # figures that begin so are not added up: the largest counts
LINES = 12  # of a log, that a finding shows


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a process, if it still runs, and what is left of those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass
class Outcome:
    """Figures by name, and one text for each thing that is wrong."""

    figures: dict[str, float] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what a reader should know beside
    skipped: str = ""  # why nothing could be done
    seconds: float = 0.0

    def count(self, name: str, value: float) -> None:
        """Adds to a figure, or keeps the larger of the two (`MAXIMA`)."""
        old = self.figures.get(name, 0)
        self.figures[name] = max(old, value) if name.startswith(MAXIMA) else old + value


@dataclass
class Work:
    """What a stage may take, and where it writes its logs."""

    seconds: float  # of what goes on for as long as it may
    folder: Path
    seed: int
    end: float = math.inf  # by time.monotonic(): what runs then is ended, as it took far too long
    last: float = math.inf  # when all of the night's time is over
    jobs: int = 1  # stages that run at a time
    status: str = ""  # shown beside the bar
    process: subprocess.Popen[bytes] | None = None  # that runs now
    outcome: Outcome = field(default_factory=Outcome)

    @property
    def cores(self) -> int:
        """Of this stage: the others have theirs."""
        return max(1, (os.cpu_count() or 1) // self.jobs)

    def stop(self) -> None:
        """Its time is over now."""
        self.end = self.last = time.monotonic()
        if self.process is not None:
            end_group(self.process)

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def run(self, *command: str | Path, limit: float = math.inf,
            environment: Mapping[str, str] | None = None, cwd: Path = ROOT) -> int:
        """Runs a command, its output in the log; 124 where it took longer than `limit` seconds, or
        until the stage's time was over, and was ended with all that it had started."""
        limit = max(0.0, min(limit, self.end - time.monotonic()))
        with self.log.open("ab") as log:
            log.write(f"$ {' '.join(map(str, command))}\n".encode())
            log.flush()
            self.process = process = subprocess.Popen(
                [str(each) for each in command], cwd=cwd, stdout=log, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})},
                start_new_session=True)
            try:
                return process.wait(limit if math.isfinite(limit) else None)
            except subprocess.TimeoutExpired:
                return 124
            finally:
                end_group(process)

    def must(self, *command: str | Path, limit: float = math.inf,
             environment: Mapping[str, str] | None = None) -> bool:
        """As `run`; a status other than 0 is a finding with the log's last lines."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        name, started = Path(command[0]).name, time.monotonic()
        status = self.run(*command, limit=limit, environment=environment)
        if status and time.monotonic() >= self.last and not self.log_tells_of_failures(begin):
            self.outcome.notes.append(f"the time was over before {name} ended")
        elif status == 124:
            self.find(f"{name} was ended after {time.monotonic() - started:.0f} s")
        elif status:
            self.find(f"{name} ended with status {status}")
        return status == 0

    def log_tells_of_failures(self, begin: int) -> bool:
        """Whether what was written since then looks as if something was found."""
        with self.log.open("rb") as log:
            log.seek(begin)
            return re.search(rb"FAILED|Error\b|ERROR|Falsifying|Sanitizer|failures, [1-9]",
                             log.read()) is not None

    def has(self, tool: str) -> bool:
        """Whether a program is there; if not, the stage is skipped."""
        if shutil.which(tool):
            return True
        self.outcome.skipped = f"{tool} is not installed"
        return False

    def find(self, what: str) -> None:
        """A finding, with the end of the log, all of which is kept where no later run writes."""
        log = self.log.read_text(errors="replace") if self.log.exists() else ""
        kept = self.folder.parent / "findings"
        kept.mkdir(exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        (kept / f"{self.folder.name}-{stamp}.txt").write_text(f"{what}\n\n{log}")
        self.outcome.findings.append("\n".join([what, *log.splitlines()[-LINES:]]))

    def count_report(self, report: Path) -> None:
        """Adds the tests of a JUnit or GoogleTest report, and the properties that they recorded."""
        if not report.exists():
            return
        for test in ElementTree.parse(report).getroot().iter("testcase"):
            if test.get("status") == "notrun" or test.find("skipped") is not None:
                continue
            self.outcome.count("tests", 1)
            for item in test.iter("property"):
                self.outcome.count(item.get("name", "?").replace("_", " "),
                                   float(item.get("value", "0")))

    def tests(self, name: str, command: Sequence[str | Path], *, limit: float = math.inf,
              environment: Mapping[str, str] | None = None) -> None:
        """Runs a GoogleTest program or a pytest command line, whose report counts."""
        report = self.folder / f"{name}.xml"
        report.unlink(missing_ok=True)
        self.status = name
        is_pytest = "pytest" in command
        more = [f"--junitxml={report}"] if is_pytest else []
        gtest = {} if is_pytest else {"GTEST_OUTPUT": f"xml:{report}"}
        self.must(*command, *more, limit=limit, environment={
            "LMFUSION_TEST_SEED": str(self.seed), **gtest, **(environment or {})})
        self.count_report(report)

