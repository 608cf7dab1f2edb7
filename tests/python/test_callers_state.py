"""What a caller did to torch - autocast, modes, default types and devices - never changes a score.

Speech toolkits decode under autocast and inference mode; the tests run every architecture under
whatever torch can be told by its caller, and compare with the same file where nothing was said.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import lmfusion
import pytest
import tiny_models
import torch
from lmfusion.exporter import export
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

TEXTS = ["the cat and you", "in the other house", "a " * 60 + "thing"]
TOLERANCE = 1e-5  # nats a text: another order of adding up, at most


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
        assert torch.get_float32_matmul_precision() == precision  # left as the caller set it
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


class NoFunctions(TorchFunctionMode):
    def __torch_function__(self, func: object, *_: object, **__: object) -> None:
        raise AssertionError(f"{func} was seen by the caller's mode")


class NoOperators(TorchDispatchMode):
    def __torch_dispatch__(self, func: object, *_: object, **__: object) -> None:
        raise AssertionError(f"{func} was seen by the caller's mode")


STATES: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
    "autocast to bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", dtype=torch.float16),
    "inference mode": torch.inference_mode,
    "grad mode": torch.enable_grad,
    "float64 by default": lambda: default_dtype(torch.float64),
    "bfloat16 by default": lambda: default_dtype(torch.bfloat16),
    "another device by default": lambda: torch.device("meta"),
    "lower matmul precision": lambda: matmul_precision("medium"),
    "deterministic mode": deterministic,
    "a mode of functions": NoFunctions,
    "a mode of operators": NoOperators,
}


def assert_same(got: list[float], wanted: list[float], where: str) -> None:
    worst = max(abs(a - b) for a, b in zip(got, wanted, strict=True))
    assert worst <= TOLERANCE, f"{where}: {worst} nats off"


@pytest.mark.parametrize("name", [*tiny_models.TREE_CONFIGS, *tiny_models.PLAIN_CONFIGS])
def test_scores_do_not_depend_on_the_callers_state(name: str, tmp_path: Path) -> None:
    uncached = name in tiny_models.PLAIN_CONFIGS
    config = (tiny_models.PLAIN_CONFIGS if uncached else tiny_models.TREE_CONFIGS)[name]()
    path = export(tiny_models.build(config), tiny_models.tiny_tokenizer(), tmp_path / "model.lmf",
                  uncached=uncached)
    wanted = lmfusion.LMFusionScorer(path).score_texts(TEXTS)
    model = tiny_models.build(config)
    with contextlib.ExitStack() as states:  # all that an export, which is Python, may not see
        for what, state in STATES.items():
            if "mode of" not in what and what != "grad mode":
                states.enter_context(state())
        inside = export(model, tiny_models.tiny_tokenizer(), tmp_path / "inside.lmf",
                        uncached=uncached)
    assert_same(lmfusion.LMFusionScorer(inside).score_texts(TEXTS), wanted, "exported in them all")
    for what, state in STATES.items():
        outside = lmfusion.LMFusionScorer(path)
        with state():
            scorer = lmfusion.LMFusionScorer(path)
            assert_same(scorer.score_texts(TEXTS), wanted, f"{what}, read in it")
            assert_same(outside.score_texts(TEXTS), wanted, what)
        assert_same(scorer.score_texts(TEXTS[::-1]), wanted[::-1], f"{what}, after it")


@pytest.mark.parametrize("name", ["llama", "gemma2", "bloom"])
def test_exports_do_not_depend_on_the_callers_state(name: str, tmp_path: Path) -> None:
    uncached = name in tiny_models.PLAIN_CONFIGS
    config = (tiny_models.PLAIN_CONFIGS if uncached else tiny_models.TREE_CONFIGS)[name]()
    model, tokenizer = tiny_models.build(config), tiny_models.tiny_tokenizer()
    path = export(model, tokenizer, tmp_path / "outside.lmf", uncached=uncached)
    wanted = lmfusion.LMFusionScorer(path).score_texts(TEXTS)
    for what, state in STATES.items():
        if "mode of" in what:  # an export is Python, as the model is: such modes see it
            continue
        with state():
            path = export(model, tokenizer, tmp_path / "inside.lmf", uncached=uncached)
        assert_same(lmfusion.LMFusionScorer(path).score_texts(TEXTS), wanted, what)


def test_a_thread_with_autocast_beside_one_without(tmp_path: Path) -> None:
    """Calls of several threads are packed into one pass, which one of them runs."""
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    path = export(model, tiny_models.tiny_tokenizer(), tmp_path / "model.lmf")
    texts = [f"{first} {second} {third}" for first in ("the", "you", "and")
             for second in ("cat", "in", "other") for third in ("house", "thing", "a", "san")]
    wanted = lmfusion.LMFusionScorer(path).score_texts(texts)
    scorer = lmfusion.LMFusionScorer(path)
    got: dict[str, float] = {}

    def ask(some: list[str], dtype: torch.dtype | None) -> None:
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            for text in some:
                got[text] = scorer.score_texts([text])[0]

    threads = [threading.Thread(target=ask, args=(texts[::2], torch.bfloat16)),
               threading.Thread(target=ask, args=(texts[1::2], None))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same([got[text] for text in texts], wanted, "threads")


def test_the_callers_state_is_as_it_was_after_a_call(tmp_path: Path) -> None:
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    tokenizer = tiny_models.tiny_tokenizer()
    with (torch.autocast("cpu", dtype=torch.float16), torch.inference_mode(),
          default_dtype(torch.float64), torch.device("meta"), matmul_precision("medium"),
          deterministic()):
        path = export(model, tokenizer, tmp_path / "model.lmf")
        lmfusion.LMFusionScorer(path).score_texts(TEXTS)
        assert torch.is_autocast_enabled("cpu") and torch.is_inference_mode_enabled()
        assert torch.get_autocast_dtype("cpu") == torch.float16
        assert torch.get_default_dtype() == torch.float64
        assert torch.empty(1).device.type == "meta"
    assert not torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
