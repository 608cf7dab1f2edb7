"""The devices that tests run on.

"emulated" runs the CUDA code path on the host: the same plans, buffers, padding, rewritten graph
and kernel bodies, thread block by thread block. Tests of "cuda" need a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import lmfusion
import pytest
import torch

HAS_GPU = torch.cuda.is_available()
DEVICES = ["emulated", pytest.param("cuda", marks=pytest.mark.skipif(
    not HAS_GPU, reason="no CUDA device on this machine: the CUDA kernels were not run"))]
CPU_AND_DEVICES = ["cpu", *DEVICES]

MakeScorer = Callable[..., lmfusion.LMFusionScorer]  # LMFusionScorer with a device filled in
