"""The check before an export is kept: the engine against eager attention of the original model.

A bundle is written under a temporary name, loaded by the engine as a decoder would, and made to
score token paths that branch, repeat, are prefixes of each other, and go past sliding windows;
in batches smaller than the paths, then again with half of every path cached. The original model
scores every path in a forward pass of its own. What is compared is log p of every token, in nats.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from lmfusion import _core
from lmfusion.errors import ExportError
from lmfusion.exporter.architecture import Architecture
from lmfusion.exporter.metadata import Parity
from lmfusion.exporter.replica import set_implementations

TOLERANCE = 1e-4  # nats per token
BATCH_TOKENS = 24
BRANCHES = 4
LONGEST_PATH = 600  # tokens; windows longer than this are not walked past
SHORTEST_LONG_PATH = 48

Paths = list[list[int]]


def sample_paths(vocabulary_size: int, *, windows: Sequence[int] = (), max_positions: int = 0,
                 lines: Sequence[list[int]] = (), start: int = -1) -> Paths:
    """Token paths that share prefixes, branch, and outgrow every window that is cheap to outgrow.

    Args:
        vocabulary_size: tokens are below it.
        windows: sliding windows of the model, in tokens.
        max_positions: no path is longer; 0 = no limit.
        lines: token ids of real text, the stems of the branches.
        start: start token, -1 = none (then a random token).
    """
    generator = torch.Generator().manual_seed(20240)

    def noise(count: int) -> list[int]:
        return torch.randint(vocabulary_size, (count,), generator=generator).tolist()

    first = [start] if start >= 0 else noise(1)
    stems = [[token for token in line if token < vocabulary_size] for line in lines] or [noise(14)]
    paths: Paths = []
    for stem in (first + stem for stem in stems if len(stem) > 3):
        paths += [stem, stem[:len(stem) // 2] + noise(5), stem + noise(3)]
        paths += [stem[:-1] + noise(2) for _ in range(BRANCHES)]
    reach = [window + 24 for window in windows if window + 24 <= LONGEST_PATH]
    long = (paths[0] + noise(LONGEST_PATH))[:max([SHORTEST_LONG_PATH, *reach])]
    paths += [long, long[:-5] + noise(5), long[:len(long) // 2] + noise(2), list(paths[0])]
    limit = max_positions or LONGEST_PATH
    return [path[:limit] for path in paths]


def check_tree(bundle: Path, original: Callable[[], PreTrainedModel], architecture: Architecture,
               paths: Paths, tolerance: float) -> Parity:
    """Compares a written bundle with the model it was made of; only one of them is in memory.

    Args:
        bundle: file to load.
        original: gives a float32 replica of the exported model; run with eager attention.
        architecture: of the bundle, for the size of its cache.
        paths: token paths, each of two tokens at least.
        tolerance: nats per token.

    Raises:
        ExportError: a token differs by more than `tolerance`, or is not finite.
    """
    tokens = sum(map(len, paths))
    slot_bytes = 4 * (2 * architecture.layers * architecture.kv_heads * architecture.head_dim
                      + architecture.hidden_size + 4)
    scorer = _core.LMFusionScorer(str(bundle), kv_cache_bytes=2 * (tokens + BATCH_TOKENS)
                                  * slot_bytes, max_batch_tokens=BATCH_TOKENS)
    ones = [1] * len(paths)
    runs = {"packed, branched and chunked": scorer.score_token_paths(paths, ones)}
    scorer.clear_cache()
    scorer.score_token_paths([path[:len(path) // 2 + 1] for path in paths], ones)
    runs["with half of every path cached"] = scorer.score_token_paths(paths[::-1], ones)[::-1]
    del scorer
    model = original()
    wanted = reference_log_probabilities(model, paths)
    worst = 0.0
    for run, scores in runs.items():
        worst = max(worst, worst_difference(wanted, scores))
        _refuse_above(worst, tolerance, type(model).__name__, run)
    return Parity(worst, sum(map(len, wanted)) * len(runs), tolerance)


def check_plain(module: torch.jit.ScriptModule, original: PreTrainedModel, paths: Paths,
                tolerance: float) -> Parity:
    """Compares a plain module with its model, in padded batches of other sizes than traced.

    Padding is on the right, as the scorer pads, and on the left too where the model takes
    positions (without them, transformers itself counts padding on the left as text).

    Raises:
        ExportError: as `check_tree`, or the module does not run at another size.
    """
    wanted = reference_log_probabilities(original, paths)
    name = type(original).__name__
    worst, tokens = 0.0, 0
    takes_positions = "position_ids" in inspect.signature(original.forward).parameters
    for size in (1, 3, len(paths)):
        for left in (False, True) if takes_positions else (False,):
            for begin in range(0, len(paths), size):
                batch = paths[begin:begin + size]
                try:
                    scores = _padded_log_probabilities(module, batch, left)
                except RuntimeError as error:
                    raise ExportError(
                        f"{name} cannot be traced: its trace holds for one batch size and length "
                        f"only (a loop over tokens, as in state-space models). {error}") from error
                worst = max(worst, worst_difference(wanted[begin:begin + size], scores))
                _refuse_above(worst, tolerance, name,
                              f"padded {'left' if left else 'right'}, {len(batch)} a batch; code "
                              "that loops over tokens cannot be traced")
                tokens += sum(map(len, scores))
    return Parity(worst, tokens, tolerance)


def reference_log_probabilities(model: PreTrainedModel, paths: Paths) -> list[list[float]]:
    """log p (nats) of every token but the first of each path, one forward pass per path."""
    set_implementations(model, attention="eager", experts="eager")
    scores = []
    with torch.no_grad():
        for path in paths:
            logits = model(input_ids=torch.tensor([path]), use_cache=False).logits[0, :-1]
            scores.append(_log_probabilities(logits, path))
    return scores


def worst_difference(wanted: list[list[float]], scores: list[list[float]]) -> float:
    """Largest absolute difference of two ragged lists; infinite where one is not finite."""
    worst = 0.0
    for path, other in zip(wanted, scores, strict=True):
        difference = (torch.tensor(path, dtype=torch.float64)
                      - torch.tensor(other, dtype=torch.float64)).abs()
        largest = float(difference.max()) if len(path) else 0.0
        worst = max(worst, largest if largest == largest else float("inf"))
    return worst


def _padded_log_probabilities(module: torch.jit.ScriptModule, paths: Paths,
                              left: bool) -> list[list[float]]:
    length = max(map(len, paths))
    ids = torch.zeros(len(paths), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    starts = [length - len(path) if left else 0 for path in paths]
    for row, (path, start) in enumerate(zip(paths, starts)):
        ids[row, start:start + len(path)] = torch.tensor(path)
        mask[row, start:start + len(path)] = 1
    with torch.no_grad():
        logits = module(ids, mask)
    return [_log_probabilities(logits[row, start:start + len(path) - 1], path)
            for row, (path, start) in enumerate(zip(paths, starts))]


def _log_probabilities(logits: torch.Tensor, path: list[int]) -> list[float]:
    """Logits [len(path) - 1, vocabulary] -> log p of path[1:]."""
    chosen = logits.gather(1, torch.tensor(path[1:])[:, None])[:, 0]
    return (chosen - logits.logsumexp(dim=-1)).tolist()


def _refuse_above(worst: float, tolerance: float, name: str, run: str) -> None:
    if not worst <= tolerance:
        raise ExportError(f"{name}: the exported module differs from eager attention by "
                          f"{worst:.2e} nats per token ({run}); {tolerance:.0e} is allowed. "
                          "Nothing was written.")
