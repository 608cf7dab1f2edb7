"""The page of a run, in Markdown for people and in JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nightly.outcome import ROOT, Outcome

# Figures of the first table: what it is called there, and its name in the stages' outcomes.
TOTALS = {
    "candidate scores compared with plain Hugging Face": "candidate scores",
    "token scores compared with a model computed by hand": "token scores",
    "allocations, model calls and writes made to fail": "faults",
    "damaged model files and snapshots opened": "damaged files",
    "inputs of fuzzers": "fuzz inputs",
    "calls of soaks": "soak calls",
    "calls of sixteen threads beside each other, each against its own right scores":
        "calls of threads",
    "mutants of the tree and the plan": "mutants",
}


@dataclass
class Run:
    """A run of stages: when, where, what came of them."""

    date: str
    commit: str
    machine: str
    minutes: float
    jobs: int
    seed: int
    started: float
    hours: float = 0.0
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @classmethod
    def begin(cls, *, minutes: float, jobs: int, seed: int) -> Run:
        started = time.time()
        return cls(time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started)), commit(), machine(),
                   minutes, jobs, seed, started)

    def end(self) -> None:
        self.hours = (time.time() - self.started) / 3600

    @property
    def findings(self) -> int:
        return sum(len(outcome.findings) for outcome in self.outcomes.values())

    def total(self, figure: str) -> float:
        return sum(outcome.figures.get(figure, 0) for outcome in self.outcomes.values())


def write_page(run: Run, stem: Path) -> None:
    """STEM.md and STEM.json."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".md").write_text(markdown(run))
    stem.with_suffix(".json").write_text(json.dumps(
        {**asdict(run), "findings": run.findings}, indent=1) + "\n")


def markdown(run: Run) -> str:
    lines = [
        "# Reliability", "",
        "What `./run nightly` did and found last: written by it, as `reliability.json` is with the",
        "same figures. `scripts/nightly/stages.py` says what its stages are.", "",
        f"{run.date}, commit {run.commit}, {run.hours:.2f} hours (`--minutes {run.minutes:g} "
        f"--jobs {run.jobs} --seed {run.seed}`), {run.machine}.", "",
        f"**{run.findings} findings.**", "", "| | |", "|---|---:|"]
    lines += [f"| {text} | {run.total(figure):,.0f} |" for text, figure in TOTALS.items()
              if run.total(figure)]
    lines += ["", "| Stage | Seconds | Figures | Findings |", "|---|---:|---|---:|"]
    for name, outcome in run.outcomes.items():
        figures = outcome.skipped or ", ".join(
            f"{figure} {number(value)}" for figure, value in outcome.figures.items())
        lines.append(f"| {name} | {outcome.seconds:,.0f} | {figures} | {len(outcome.findings)} |")
    for name, outcome in run.outcomes.items():
        for finding in outcome.findings:
            lines += ["", f"Found by {name}:", "", *as_text(finding.splitlines())]
    for name, outcome in run.outcomes.items():
        if outcome.notes:
            lines += ["", f"Of {name}:", "", *as_text(outcome.notes)]
    return "\n".join(lines) + "\n"


def as_text(lines: Sequence[str]) -> list[str]:
    """What programs printed: an indented block would be one of commands, which a test runs."""
    return ["```text", *lines, "```"]


def number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.3g}"


def commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    return done.stdout.strip() or "unknown"


def machine() -> str:
    """Processor, cores, system, Python."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines()
                 if line.startswith("model name")]
        model = names[0] if names else model
    return (f"{model}, {os.cpu_count()} cores, {platform.system()}, "
            f"Python {platform.python_version()}")
