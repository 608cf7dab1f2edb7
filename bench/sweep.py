"""What a call of lmfusion costs as one thing grows: context, candidates, beams, cache, threads.

    python bench/sweep.py build/bench/lmfusion_bench -o out/sweep

writes out/sweep.json and out/sweep.png. Every point is one run of lmfusion_bench, cold per
utterance, on requests made for it; bench/README.md has the method.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from make_requests import Shape, write_requests
from peers.report_file import write_json


@dataclass(frozen=True)
class Point:
    """One run."""

    value: float  # where it is on the axis
    shape: Shape
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """One axis; everything else stays as it is."""

    axis: str
    points: tuple[Point, ...]


# Words of the sentences are nearly always one token each.
CONTEXTS = (10, 20, 50, 100, 200, 350, 500)
CANDIDATES = (1, 2, 5, 10, 20, 50, 100)
BEAMS = (10, 30, 100, 300, 1000, 2000)
CACHE_PERCENT = (1, 2, 5, 10, 25, 50, 100)
# The last calls of an utterance: the first of them is cold and pays for the whole context.
USUAL = Shape(utterances=2, beams=20, candidates=3, last_calls=4)
LONGEST = ("--max-context-length", "1024")


def sweeps(threads: int, cache_bytes: int) -> Iterator[Sweep]:
    """`cache_bytes`: what the requests of the cache sweep fill without evictions."""
    yield Sweep("context, words", tuple(
        Point(words, Shape(**{**vars(USUAL), "context_words": words}), LONGEST)
        for words in CONTEXTS))
    yield Sweep("candidates per context", tuple(
        Point(count, Shape(**{**vars(USUAL), "candidates": count})) for count in CANDIDATES))
    yield Sweep("beams", tuple(
        Point(beams, Shape(**{**vars(USUAL), "utterances": 1, "beams": beams})) for beams in BEAMS))
    yield Sweep("cache, % of what is needed", tuple(
        Point(percent, CACHE_SHAPE, ("--kv-cache-bytes", str(cache_bytes * percent // 100)))
        for percent in CACHE_PERCENT))
    yield Sweep("threads", tuple(
        Point(count, USUAL, ("--threads", str(count))) for count in range(1, threads + 1)))
    for axis, shape in (("decoders at once", USUAL), ("decoders of one beam at once", ONE_BEAM)):
        yield Sweep(axis, tuple(
            Point(count, shape, ("--clients", str(count))) for count in (1, 2, 4, 8)))


ONE_BEAM = Shape(utterances=4, beams=1, candidates=3)  # forward passes of very few tokens
CACHE_SHAPE = Shape(utterances=1, beams=50, candidates=3)


def run(program: Path, model: Path, point: Point, common: Sequence[str]) -> dict[str, object]:
    """The report of lmfusion_bench for one point; {"error": ...} where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        requests = write_requests(point.shape, Path(folder) / "requests.jsonl")
        report = Path(folder) / "report.json"
        done = subprocess.run([program, model, requests, "--json", report, *common,
                               *point.options], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return {"error": done.stderr.strip()}
        return json.loads(report.read_text())


def measure(program: Path, model: Path, names: Sequence[str], threads: int,
            repeats: int) -> dict[str, list[dict[str, object]]]:
    common = ("--threads", str(threads), "--repeat", str(repeats))
    filled = run(program, model, Point(100, CACHE_SHAPE), (*common[:2], "--repeat", "1"))
    if "error" in filled:
        raise SystemExit(f"sweep.py: {filled['error']}")
    found = {}
    for sweep in sweeps(threads, int(filled["results"]["cache_bytes"])):
        if names and not any(sweep.axis.startswith(name) for name in names):
            continue
        rows = []
        for point in sweep.points:
            options = [*common]
            if "--threads" in point.options:
                options = options[2:]
            report = run(program, model, point, options)
            rows.append({"value": point.value, **_figures(report)})
            print(f"{sweep.axis} {point.value:g}: "
                  f"{rows[-1].get('milliseconds_per_call', rows[-1].get('error'))}",
                  file=sys.stderr, flush=True)
        found[sweep.axis] = rows
    found["machine"] = filled["machine"]
    found["versions"] = filled["versions"]
    return found


def _figures(report: dict[str, object]) -> dict[str, object]:
    if "error" in report:
        return {"error": report["error"]}
    results = report["results"]
    calls = results["calls"]
    return {"milliseconds_per_call": 1e3 * results["seconds"] / calls,
            "milliseconds_per_candidate": 1e3 * results["seconds"] / results["candidates"],
            "milliseconds_each": [1e3 * seconds / calls for seconds in results["seconds_each"]],
            "call_milliseconds": results["call_milliseconds"],
            "tokens_requested": results["tokens_requested"],
            "tokens_computed": results["tokens_computed"], "forwards": results["forwards"],
            "evictions": results["evictions"], "peak_memory_bytes": results["peak_memory_bytes"],
            "command": report["command"]}


def picture(found: dict[str, object], path: Path) -> None:
    """One panel per axis: milliseconds per call, and computed tokens per call."""
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    axes_names = [name for name, rows in found.items() if isinstance(rows, list)]
    columns = min(3, len(axes_names))
    figure, grid = pyplot.subplots(-(-len(axes_names) // columns), columns, squeeze=False,
                                   figsize=(4.5 * columns, 3.5 * -(-len(axes_names) // columns)))
    for panel in grid.flat[len(axes_names):]:
        panel.remove()
    for panel, name in zip(grid.flat, axes_names):
        rows = [row for row in found[name] if "error" not in row]
        values = [row["value"] for row in rows]
        panel.plot(values, [row["milliseconds_per_call"] for row in rows], "o-", color="tab:blue")
        panel.set_xlabel(name)
        panel.set_ylabel("ms per call", color="tab:blue")
        panel.set_ylim(bottom=0)
        if values and max(values) / min(values) > 20:
            panel.set_xscale("log")
        tokens = panel.twinx()
        tokens.plot(values, [row["tokens_computed"] for row in rows], "x--", color="tab:gray")
        tokens.set_ylabel("tokens computed", color="tab:gray")
        tokens.set_ylim(bottom=0)
    figure.suptitle(f"lmfusion, {found['machine']['cpu']}, {found['machine']['cores']} cores")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path, help="lmfusion_bench")
    parser.add_argument("-o", "--output", type=Path, required=True,
                        help="path of the reports, without .json")
    parser.add_argument("--model", type=Path, help="default: lmfusion.default_model()")
    parser.add_argument("--sweeps", nargs="+", default=[], metavar="NAME",
                        help="only those whose name starts so: context, candidates, beams, cache, "
                        "threads, decoders")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args(arguments)
    if given.model is None:
        import lmfusion
        given.model = lmfusion.default_model()
    found = measure(given.program.resolve(), given.model, given.sweeps, given.threads, given.repeat)
    write_json(found, given.output)
    picture(found, Path(f"{given.output}.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
