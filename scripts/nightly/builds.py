"""Build folders beside build/, each made when a stage first needs it."""

from __future__ import annotations

import os
import sys
import threading
from collections import defaultdict
from pathlib import Path

from nightly.outcome import ROOT, Work

ENVIRONMENT = {"CCACHE_BASEDIR": os.environ.get("CCACHE_BASEDIR", str(ROOT)),
               "CCACHE_NOHASHDIR": "1"}
ONE_AT_A_TIME: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)  # by build folder


def build(work: Work, folder: str, *settings: str, targets: tuple[str, ...] = (),
          source: Path = ROOT) -> Path | None:
    """Configures and builds; None, and a finding, where that fails."""
    work.status = f"building {Path(folder).name}"
    path = ROOT / folder
    with ONE_AT_A_TIME[path]:
        if not (path / "build.ninja").exists() and not work.must(
                "cmake", "-S", source, "-B", path, "-G", "Ninja",
                f"-DPython3_EXECUTABLE={sys.executable}", *settings, environment=ENVIRONMENT):
            return None
        return path if build_again(work, path, *targets) else None


def preset(work: Work, name: str) -> Path | None:
    """A preset of CMakePresets.json in its own folder."""
    work.status = f"building {name}"
    if not work.must("cmake", "--preset", name, f"-DPython3_EXECUTABLE={sys.executable}",
                     environment=ENVIRONMENT):
        return None
    return (ROOT / f"build-{name}") if build_again(work, ROOT / f"build-{name}") else None


def build_again(work: Work, folder: Path, *targets: str, quiet: bool = False) -> bool:
    """quiet: a build that fails is no finding."""
    command = ["cmake", "--build", str(folder), "-j", str(work.cores),
               *(["--target", *targets] if targets else [])]
    if quiet:
        return work.run(*command, environment=ENVIRONMENT) == 0
    return work.must(*command, environment=ENVIRONMENT)
