"""Memory of this process, as the kernel counts it."""

from __future__ import annotations

import ctypes
from pathlib import Path


def resident_bytes(field: str) -> int:
    """"VmRSS": now; "VmHWM": at most since `forget_peak`.

    Raises:
        OSError: the kernel does not tell.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {field}")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def release_free_memory() -> None:
    """What is free within the process goes back to the system."""
    ctypes.CDLL(None).malloc_trim(0)
