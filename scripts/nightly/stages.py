"""What a night does. A line of `STAGES` is a stage; each can be run alone."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nightly.builds import build, preset
from nightly.coverage import coverage
from nightly.fuzzing import FILES, TEXTS, fuzz
from nightly.mutation import mutate
from nightly.outcome import ROOT, Work
from nightly.tidy import tidy

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
PYTHON_TESTS = Path("tests") / "python"


@dataclass(frozen=True)
class Stage:
    """A stage takes its `fixed` seconds, a first build's, and its share of the time that is left
    when every stage had those."""

    name: str
    what: str
    run: Callable[[Work], None]
    share: float = 0.0
    fixed: float = 10.0
    folder: str = ""  # of a build of its own
    building: float = 0.0  # seconds of two cores, without ccache

    @property
    def must_build(self) -> bool:
        return bool(self.folder) and not any(
            (ROOT / self.folder / name).exists() for name in ("build.ninja", "complete"))

    @property
    def least(self) -> float:
        return self.fixed + (self.building if self.must_build else 0.0)


def program(name: str) -> Path:
    """A C++ test of the release build."""
    return ROOT / "build" / "tests" / "cpp" / name


def goes_on(work: Work) -> dict[str, str]:
    """What a test reads that goes on for as long as it may, on the cores that are this stage's."""
    return {"LMFUSION_TEST_SECONDS": str(round(work.seconds)),
            "LMFUSION_TEST_WORKERS": str(work.cores)}


def twin(work: Work) -> None:
    work.tests("cache_random_test", [program("cache_random_test")], environment=goes_on(work))


def differential(work: Work) -> None:
    work.tests("differential", [*PYTEST, "-s", PYTHON_TESTS / "test_differential.py"],
               environment=goes_on(work))


def bits(work: Work) -> None:
    """With kernels of other CPUs; a set that this one lacks counts as the next below, so those of a
    CPU with tile registers are left out on others."""
    of_tiles = ("amx", "avx512_bf16") if "amx_tile" in Path("/proc/cpuinfo").read_text() else ()
    for instructions in (*of_tiles, "avx512", "avx2_vnni", "avx2", "portable"):
        work.tests(f"bits_{instructions}", [*PYTEST, PYTHON_TESTS / "test_same_bits.py"],
                   environment={"LMFUSION_CPU": instructions})


def faults(work: Work) -> None:
    work.tests("cache_faults", [program("cache_faults_test")])
    work.tests("text_faults", [program("text_faults_test")])
    work.tests("tree", [program("token_tree_test")])
    work.tests("snapshots", [program("warm_start_test")])
    work.tests("callers", [*PYTEST, PYTHON_TESTS / "test_faults.py"])


def interrupts(work: Work) -> None:
    work.tests("interrupts", [*PYTEST, PYTHON_TESTS / "test_interrupts.py"],
               environment=goes_on(work))


def files(work: Work) -> None:
    for name in ("model_files", "model_bombs", "snapshot_files"):
        work.tests(name, [*PYTEST, PYTHON_TESTS / f"test_{name}.py"])


def soak(work: Work) -> None:
    work.tests("soak", [*PYTEST, "-s", PYTHON_TESTS / "test_soak.py"],
               environment=goes_on(work))


def threads(work: Work) -> None:
    """Also what tests of other names do from several threads."""
    work.tests("many_calls", [program("many_calls_test")],
               environment={"LMFUSION_TEST_CALLS": "10000"})
    work.tests("cache_threads", [program("cache_threads_test")])
    work.tests("fork", [program("fork_test")])
    work.tests("many_threads", [*PYTEST, PYTHON_TESTS / "test_many_threads.py"],
               environment={"LMFUSION_TEST_THREAD_CALLS": "200"})
    work.tests("threads", [*PYTEST, "-k", "(thread or fork) and not many_threads", PYTHON_TESTS])


VALGRIND = ["token_tree_test", "batch_plan_test", "path_scorer_test", "warm_start_test",
            "text_stage_test", "text_paths_test", "tokenizer_test", "casing_test",
            "model_file_test", "cache_threads_test", "cache_random_test", "cache_faults_test"]


def valgrind(work: Work) -> None:
    """Programs that would take minutes are left out. An operator new of a test, which fails when it
    is told to, stays in its place (`somalloc`)."""
    if not work.has("valgrind"):
        return
    folder = build(work, "build-plain", "-DLMFUSION_TORCH=OFF",
                   "-DCMAKE_BUILD_TYPE=RelWithDebInfo", targets=tuple(VALGRIND))
    for name in VALGRIND if folder else ():
        work.status = name
        if work.must("valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full",
                     "--errors-for-leak-kinds=definite",
                     "--soname-synonyms=somalloc=nouserintercepts",
                     f"--suppressions={ROOT}/tests/valgrind.supp",
                     f"{folder}/tests/cpp/{name}"):
            work.outcome.count("programs", 1)


def sanitizers(work: Work, name: str) -> None:
    folder = preset(work, name)
    if folder is not None:
        work.status = "ctest"
        if work.must("ctest", "--preset", name, "--output-on-failure"):
            work.outcome.count("programs", len(list((folder / "tests" / "cpp").glob("*_test"))))


def arm64(work: Work) -> None:
    """Its script installs the cross compiler and qemu, as root."""
    if os.geteuid() != 0:
        work.outcome.skipped = "not root, which scripts/arm64.sh needs for its packages"
        return
    if work.must(str(ROOT / "scripts" / "arm64.sh")):
        tests = (ROOT / "build-arm64" / "tests" / "cpp").glob("*_test")
        work.outcome.count("programs", len(list(tests)))


def amx(work: Work) -> None:
    """Its script installs what makes a disc, as root, and builds the emulator."""
    if platform.machine() != "x86_64":
        work.outcome.skipped = "no x86-64 machine, whose programs the emulated one runs"
    elif os.geteuid() != 0:
        work.outcome.skipped = "not root, which scripts/amx.sh needs for its packages"
    elif work.must(ROOT / "scripts" / "amx.sh"):
        tests = (ROOT / "build-amx" / "machine" / "guest" / "tests").glob("*_test")
        work.outcome.count("programs", len(list(tests)))


def tokenizers(work: Work) -> None:
    work.tests("tokenizers", [*PYTEST, "-s", PYTHON_TESTS / "test_tokenizer_differential.py"],
               environment=goes_on(work))


def decoders(work: Work) -> None:
    """Each toolkit in an environment of its own, from PyPI; what cannot be installed is noted."""
    scripts = ROOT / "tests" / "real_decoders"
    environment = scripts / "environment.sh"
    names = sorted(each.stem for each in scripts.glob("*.sh") if each != environment)
    missing = []
    for name in names:
        work.status = name
        if work.run(environment, name, "--install"):
            missing.append(name)
        elif work.must(scripts / f"{name}.sh"):
            work.outcome.count("toolkits", 1)
    if missing == names:
        work.outcome.skipped = "PyPI's packages could not be installed; the log says why"
    elif missing:
        work.outcome.notes.append(f"could not be installed: {', '.join(missing)}")


def install(work: Work) -> None:
    """A Debian in build/clean, which the next night uses again."""
    if os.geteuid() != 0:
        work.outcome.skipped = "not root, which debootstrap needs"
    elif work.has("debootstrap") and work.must(ROOT / "scripts" / "clean_install.sh"):
        work.outcome.count("installations", 1)


# In the order of what there is time for. The shares give, in two hours of two cores: ten minutes to
# each fuzzer, all mutants, 10^6 scores to the differential and 10^8 to the twin.
STAGES = [
    Stage("differential", "random calls of every architecture against plain Hugging Face",
          differential, share=12, fixed=30),
    Stage("twin", "random calls against a model computed by hand, C++ alone", twin, share=9),
    Stage("bits", "the same bits, with the kernels of every instruction set of this CPU", bits,
          fixed=300),
    Stage("faults", "allocations, model calls and writes that fail", faults, fixed=60),
    Stage("interrupts", "SIGINT at any time of any call", interrupts, share=1.5, fixed=40),
    Stage("files", "damaged model files and snapshots", files, fixed=120),
    Stage("tokenizers", "random tokenizers and texts against the originals", tokenizers, share=2,
          fixed=20),
    Stage("threads", "tests that call from several threads", threads, fixed=120),
    Stage("soak", "many calls of four threads on a small cache, and the memory they take", soak,
          share=3, fixed=20),
    Stage("fuzz_files", "libFuzzer over every kind of file that is opened",
          lambda work: fuzz(work, FILES), share=30, fixed=20, folder="build-fuzz", building=240),
    Stage("fuzz_texts", "libFuzzer over text, requests, n-best lists and lattices",
          lambda work: fuzz(work, TEXTS), share=24, fixed=20, folder="build-fuzz", building=240),
    Stage("addresses", "address and undefined-behaviour sanitizers over the rooms without torch",
          lambda work: sanitizers(work, "sanitize"), fixed=120, folder="build-sanitize",
          building=400),
    Stage("races", "thread sanitizer over the rooms without torch",
          lambda work: sanitizers(work, "thread"), fixed=250, folder="build-thread", building=400),
    Stage("mutants", "wrong edits of tree, plan and cache, which a test must notice", mutate,
          share=13, fixed=90),
    Stage("coverage", "lines and branches of the rooms without torch that no C++ test runs",
          coverage, fixed=240, folder="build-coverage", building=180),
    Stage("decoders", "the searches of ESPnet, NeMo and sherpa-onnx themselves, with the adapters",
          decoders, fixed=300),
    Stage("tidy", "clang-tidy over every source", tidy, fixed=950),
    Stage("install", "pip install on a new Debian with g++ and Python alone, and a score there",
          install, fixed=400, folder="build/clean/bookworm", building=900),
    Stage("valgrind", "valgrind over tests of the rooms without torch", valgrind, fixed=300,
          folder="build-plain", building=180),
    Stage("arm64", "the rooms without torch for 64-bit Arm, under qemu", arm64, fixed=300,
          folder="build-arm64", building=500),
    Stage("amx", "kernels with the tiles of AMX, on a CPU that Bochs emulates", amx, fixed=150,
          folder="build-amx", building=250),
]
