"""What a caller's function or a model does wrong reaches the caller, and changes nothing for later:
the next call is right, and every token of the cache's budget can still be used."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmfusion
import pytest
import torch
from devices import MakeScorer
from lmfusion.exporter import export
from oracle import Oracle, check, requests

MODES = ["tree", "grouped", "uncached"]
TOKENS = 90  # that the cache holds


class Failing:
    """A function that raises when it is called for the n-th time from `arm(n)` on."""

    def __init__(self, function: Callable[[str], object]) -> None:
        self.function, self.left, self.failed = function, math.inf, False

    def arm(self, calls: float) -> None:
        self.left, self.failed = calls, False

    def __call__(self, text: str) -> object:
        self.left -= 1
        if self.left < 0:
            self.left, self.failed = math.inf, True
            raise LookupError("of the caller")
        return self.function(text)


def limit_of(bundle: Path) -> int:
    scorer = lmfusion.LMFusionScorer(bundle)
    scorer.score_texts(["the cat"])
    return TOKENS * scorer.stats().cache_bytes // scorer.stats().cached_tokens


def expect_whole(scorer: lmfusion.LMFusionScorer, oracle: Oracle, seed: int) -> None:
    """All slots can be had, so none is pinned or lost; scores are those of plain Hugging Face."""
    whole = " ".join(["x y"] * (TOKENS // 6))
    assert scorer.score_texts([whole]) == pytest.approx([oracle.text(whole)], abs=1e-4 * TOKENS)
    contexts, words = requests(seed, 4)
    check(oracle, contexts, words, scorer.log_probs(contexts, words))
    stats = scorer.stats()
    assert stats.cache_bytes <= stats.cache_bytes_limit


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ["casing", "tokenizer"])
def test_a_function_of_the_caller_may_fail_at_each_of_its_calls(
        oracle: Oracle, bundle: Path, make_scorer: MakeScorer, what: str, mode: str,
        record_property: pytest.RecordProperty) -> None:
    def ids(text: str) -> list[int]:
        return oracle.tokenizer(text, add_special_tokens=False)["input_ids"]

    function = Failing({"casing": str, "tokenizer": ids}[what])
    scorer = make_scorer(bundle, mode=mode, kv_cache_bytes=limit_of(bundle), **{what: function})
    contexts, words = ["the cat", "i'm", ""], [["sat", "on"], ["the"], ["a cat", "x"]]
    calls: list[Callable[[], object]] = [
        lambda: scorer.score_continuations(contexts, words),
        lambda: scorer.log_probs(contexts, words, floor=-9.0),
        lambda: scorer.score_texts(["the cat sat", "the mat"], eos=True),
        lambda: scorer.score_endings(["the cat sat"]),
        lambda: scorer.explain("the cat", "sat"),
        lambda: scorer.best([["the cat", "the mat"], ["x"]])]
    if mode == "tree":
        calls.append(lambda: scorer.prime(contexts, vocabulary=["cat", "mat"]))
    faults = 0
    for call in calls:
        for count in range(50):
            function.arm(count)
            try:
                call()
            except LookupError as error:
                assert str(error).strip("'") == "of the caller"
                assert function.failed
            else:
                assert not function.failed
                break
            function.arm(math.inf)
            faults += 1
        function.arm(math.inf)
        expect_whole(scorer, oracle, seed=5)
    record_property("faults", faults)
    assert faults > 10


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Longer ones cannot be written, as on a full disk (Python ignores the signal)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_full_disk_leaves_the_model_file_that_was_there(oracle: Oracle, tmp_path: Path,
                                                          share: float) -> None:
    path = tmp_path / "model.lmf"
    path.write_bytes(b"what was there")
    size = sum(tensor.nbytes for tensor in oracle.model.state_dict().values())
    with files_up_to(int(share * size)), pytest.raises(OSError, match="no room for a model file"):
        export(oracle.model, oracle.tokenizer, path)
    assert path.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_model_that_gives_no_number_is_one_error(tmp_path: Path, value: float) -> None:
    class Broken(torch.nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.value = value

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            logits = torch.nn.functional.one_hot((ids + 1) % 9, 9).to(torch.float32)
            return torch.where((ids == 7).unsqueeze(-1), torch.full_like(logits, self.value),
                               logits)

    path = tmp_path / "broken.pt"
    torch.jit.script(Broken(value)).save(str(path))
    scorer = lmfusion.LMFusionScorer(path)
    wanted = torch.tensor([[0.0] * 8 + [1.0]]).log_softmax(-1)[0]
    for _ in range(3):
        with pytest.raises(lmfusion.NumericalError):
            scorer.score_token_paths([[1, 2, 3], [1, 7, 3]], [1, 1])
        assert scorer.score_token_paths([[1, 2, 4]], [1]) == [
            pytest.approx([wanted[8].item(), wanted[0].item()])]
