"""The class that lm-eval calls: its requests become token paths, and the tree shares prefixes.

Tokens, start tokens and truncation are those of lm-eval's own "hf", so that results are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm  # type: ignore[import-untyped]

from lmfusion.lm_eval.greedy import Greedy
from lmfusion.pretrained import source_folder
from lmfusion.scorer import LMFusionScorer

PATHS_A_CALL = 256
Request = tuple[Any, list[int], list[int]]  # texts, tokens of the context, of the continuation


@register_model("lmfusion")
class LMFusion(TemplateLM):
    """log p of continuations and of whole texts; nothing is generated.

    Args:
        pretrained: a Hugging Face folder, a .gguf file, a name on the hub, or a model file.
        max_length: tokens of a path at most, older ones are dropped; default: the model's.
        add_bos_token: whether the tokenizer's texts begin with its BOS; None: as it has it.
        prefix_token_id: what begins a text that has no context; default: as in "hf" the
            tokenizer's BOS, else its EOS, which need not be the start token that lmfusion measured.
            A model file does not hold the tokenizer's: there it is the start token.
        device: "cpu" takes the place of a CUDA device that is not there, as in "hf", since
            lm-eval's command asks for "cuda:0" by itself.
        batch_size, max_batch_size: of lm-eval's command; batches are `max_batch_tokens`.
        options: of `LMFusionScorer`: compute=int8, kv_cache_bytes=..., and so on.

    Raises:
        ValueError: the model keeps no start token and no end token, or an option cannot be right.
    """

    def __init__(self, pretrained: str, *, max_length: int | None = None,
                 add_bos_token: bool | None = None, prefix_token_id: int | None = None,
                 device: str | None = None,
                 batch_size: int | str | None = None, max_batch_size: int | None = None,
                 lora: str | None = None, revision: str | None = None, **options: Any) -> None:
        super().__init__()
        del batch_size, max_batch_size
        self.scorer = LMFusionScorer.from_pretrained(
            pretrained, lora=lora, revision=revision, device=_present(device), **options)
        self._pretrained = str(pretrained)
        description = self.scorer.description
        self._bos, self._eos = _named_tokens(pretrained, revision, description)
        begins = [token for token in (prefix_token_id, self._bos, self._eos) if token is not None]
        if not begins:
            raise ValueError("the model has neither a start nor an end token, one of which begins "
                             "a text without context; give prefix_token_id")
        self._begins = begins[0]
        self._adds_bos = (bool(description["tokenizer_adds_bos"]) if add_bos_token is None
                          else bool(add_bos_token))
        self.max_length = int(max_length or description["max_positions"] or 2048)

    @property
    def eot_token_id(self) -> int:
        """The end of a text."""
        return self._begins if self._eos is None else self._eos

    @property
    def prefix_token_id(self) -> int:
        """What begins a text that has no context."""
        return self._begins

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's cache of requests."""
        return self._pretrained.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None,
                   **_: Any) -> list[int]:
        """Token ids, with the start token where the tokenizer adds one."""
        with_bos = self._adds_bos if add_special_tokens is None else (
            add_special_tokens and self._adds_bos)
        ids = self.scorer.tokenizer.encode(string)
        return [self._bos, *ids] if with_bos and self._bos is not None else ids

    def _loglikelihood_tokens(self, requests: list[Request], disable_tqdm: bool = False,
                              override_bs: int | None = None, **_: Any
                              ) -> list[tuple[float, bool]]:
        del override_bs
        found, paths = self._scored(requests, disable_tqdm)
        greedy = Greedy(self.scorer, paths)
        for path, log_probs in zip(paths, found):
            greedy.note(path, log_probs)
        return [(sum(log_probs), greedy.holds(path, log_probs))
                for path, log_probs in zip(paths, found)]

    def _scored(self, requests: list[Request], disable_tqdm: bool
                ) -> tuple[list[list[float]], list[list[int]]]:
        """([requests][tokens of the continuation] of log p, the paths)."""
        paths = [(context + continuation)[-(self.max_length + 1):]
                 for _, context, continuation in requests]
        begins = [len(path) - len(continuation)
                  for path, (_, _, continuation) in zip(paths, requests)]
        for begin in begins:
            if begin < 1:
                raise ValueError("a continuation is empty of context or longer than max_length = "
                                 f"{self.max_length}")
        found: list[list[float]] = [[] for _ in paths]
        # Neighbours in this order share the longest prefixes, whatever the cache can hold.
        order = sorted(range(len(paths)), key=paths.__getitem__)
        for at in tqdm(range(0, len(order), PATHS_A_CALL), disable=disable_tqdm,
                       desc="Scoring"):
            some = order[at:at + PATHS_A_CALL]
            rows = self.scorer.score_token_paths([paths[i] for i in some],
                                                 [begins[i] for i in some])
            for i, row in zip(some, rows):
                found[i] = row
        return found, paths

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False
                              ) -> list[float]:
        """log p of whole texts, in windows of `max_length` with one token of context each."""
        windows: list[Request] = []
        counts = []
        for request in requests:
            (text,) = request.args
            of_text = [(None, *utils.make_disjoint_window(window))
                       for window in utils.get_rolling_token_windows(
                           token_list=self.tok_encode(text), prefix_token=self.prefix_token_id,
                           max_seq_len=self.max_length, context_len=1)]
            windows += of_text
            counts.append(len(of_text))
        rows = iter(self._scored(windows, disable_tqdm)[0])
        totals = [sum(sum(next(rows)) for _ in range(count)) for count in counts]
        for request, total in zip(requests, totals):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Not there: lmfusion scores."""
        raise NotImplementedError("lmfusion scores and does not generate: tasks with output_type "
                                  "generate_until need another model, such as --model hf")


def _named_tokens(pretrained: str, revision: str | None,
                  description: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """BOS and EOS of the original tokenizer, where it is there; else start and end token."""
    path = Path(pretrained)
    if path.is_file() and path.suffix != ".gguf":
        bos, eos = description["bos_token_id"], description["eos_token_id"]  # -1: none
        return (bos if bos >= 0 else None), (eos if eos >= 0 else None)
    from lmfusion.exporter.sources import load_tokenizer
    tokenizer = load_tokenizer(source_folder(path, revision))
    return tokenizer.bos_token_id, tokenizer.eos_token_id


def _present(device: str | None) -> str:
    import torch
    if device is None or (device.startswith("cuda") and not torch.cuda.is_available()):
        return "cpu"
    return device
