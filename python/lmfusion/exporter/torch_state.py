"""What the caller did to torch, put aside: an export gives the same file whatever that was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def callers_state_aside() -> Iterator[None]:
    """Within it torch is as it is at start; afterwards it is as the caller had left it.

    Autocast, inference and grad mode, default type and device, matmul precision, deterministic
    mode. The last three but the device belong to the process: other threads see them meanwhile.
    """
    dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with (torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False),
          torch.inference_mode(False), torch.enable_grad(), torch.device("cpu")):
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
        torch.use_deterministic_algorithms(False)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.set_float32_matmul_precision(precision)
            torch.set_default_dtype(dtype)
