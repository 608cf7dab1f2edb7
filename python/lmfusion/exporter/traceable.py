"""Parts of transformers models that the tracer cannot follow, replaced by parts that it can.

The tracer unrolls Python loops over tokens (Mamba's recurrence), which fixes the length, and
cannot save Python autograd functions (Bloom's GELU). Both have an equal that it can save.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional

SCAN = "mamba_selective_scan"  # in Mamba, FalconMamba, Jamba, Zamba


@contextlib.contextmanager
def traceable_parts(model: torch.nn.Module) -> Iterator[None]:
    """Replaces what cannot be traced: modules of `model` for good, functions for the block."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "BloomGelu":
                setattr(module, name, torch.nn.GELU(approximate="tanh"))
    code = sys.modules[type(model).__module__]
    original = getattr(code, SCAN, None)
    if original is None:
        yield
        return
    setattr(code, SCAN, _selective_scan)
    try:
        yield
    finally:
        setattr(code, SCAN, original)


def _scan(decay: torch.Tensor, drive: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
    """state[t] = decay[t] * state[t-1] + drive[t], read out by `readout`.

    decay, drive [B, channels, T, states], readout [B, T, states] -> [B, channels, T]. Written to
    be compiled by torch.jit.script, which keeps the loop.
    """
    state = torch.zeros_like(drive[:, :, 0])
    outputs: list[torch.Tensor] = []
    for t in range(drive.shape[2]):
        state = decay[:, :, t] * state + drive[:, :, t]
        outputs.append((state * readout[:, t].unsqueeze(1)).sum(dim=-1))
    return torch.stack(outputs, dim=-1)


@functools.cache
def _compiled_scan() -> Callable[..., torch.Tensor]:
    return torch.jit.script(_scan)


def _selective_scan(hidden: torch.Tensor, dt: torch.Tensor, A: torch.Tensor, B: torch.Tensor,
                    C: torch.Tensor, D: torch.Tensor | None = None,
                    z: torch.Tensor | None = None, delta_bias: torch.Tensor | None = None,
                    delta_softplus: bool = False, return_last_state: bool = False,
                    **_: object) -> torch.Tensor:
    """Mamba's selective scan from the zero state, in the layout transformers calls it with.

    hidden, dt, z [B, channels, T]; A [channels, states]; B, C [B, states, T]; D [channels].
    """
    if return_last_state:
        raise ValueError("the last state is not kept: the model must run with use_cache=False")
    if delta_bias is not None:
        dt = dt + delta_bias[:, None]
    if delta_softplus:
        dt = functional.softplus(dt)
    decay = torch.exp(A[None, :, None, :] * dt.unsqueeze(-1))
    drive = dt.unsqueeze(-1) * B.transpose(1, 2).unsqueeze(1) * hidden.unsqueeze(-1)
    output = _compiled_scan()(decay, drive, C.transpose(1, 2))
    if D is not None:
        output = output + hidden * D[None, :, None]
    return output if z is None else output * functional.silu(z)
