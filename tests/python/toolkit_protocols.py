"""What toolkits that are too heavy to install ask of a language model, as published.

Their parameters have the toolkits' own names, since some are passed by name; the adapters are
checked against these classes (`assert_signatures`) and called as the toolkits call them.
"""

from __future__ import annotations

import inspect
from typing import Any, Protocol

from torch import Tensor


class ESPnetBatchPartialScorer(Protocol):
    """espnet.nets.scorer_interface.BatchPartialScorerInterface, what beam searches call of it."""

    def init_state(self, x: Tensor) -> Any: ...

    def batch_init_state(self, x: Tensor) -> Any: ...

    def select_state(self, state: Any, i: int, new_id: int | None = None) -> Any: ...

    def final_score(self, state: Any) -> float: ...

    # y: [length] -> ([vocabulary], state); what searches without partial scorers call
    def score(self, y: Tensor, state: Any, x: Tensor) -> tuple[Tensor, Any]: ...

    def batch_score(self, ys: Tensor, states: list[Any],
                    xs: Tensor) -> tuple[Tensor, list[Any]]: ...

    # y: [length]; next_tokens: [units] -> ([units], state)
    def score_partial(self, y: Tensor, next_tokens: Tensor, state: Any,
                      x: Tensor) -> tuple[Tensor, Any]: ...

    # ys: [hypotheses, length], padded with eos; next_tokens: [hypotheses, units], or None for all
    # units -> ([hypotheses, vocabulary], states)
    def batch_score_partial(self, ys: Tensor, next_tokens: Tensor, states: list[Any],
                            xs: Tensor) -> tuple[Tensor, Any]: ...


class IcefallLmScorer(Protocol):
    """icefall.lm_wrapper.LmScorer, what modified_beam_search's shallow fusion uses of it."""

    lm_type: str
    lm_scale: float

    # x: [hypotheses, longest] int64, padded; x_lens: [hypotheses] -> ([hypotheses, vocabulary], ..)
    def score_token(self, x: Tensor, x_lens: Tensor, state: Any = None) -> tuple[Tensor, Any]: ...


class NeMoFusionModel(Protocol):
    """nemo.collections.asr.parts.submodules.ngram_lm.NGramGPULanguageModel, for batched beams."""

    def to(self, device: Any) -> Any: ...

    def compatible_with_cuda_graphs(self) -> bool: ...

    def get_init_states(self, batch_size: int, bos: bool = True) -> Tensor: ...  # [batch] int64

    # [batch] -> (scores [batch, vocabulary], handles [batch, vocabulary] int64)
    def advance(self, states: Tensor, eos_id: int | None = None) -> tuple[Tensor, Tensor]: ...

    def get_final(self, states: Tensor) -> Tensor: ...  # [batch] -> [batch]


def assert_signatures(adapter: object, protocol: type) -> None:
    """Every method of `protocol` is there, its parameters by name, order and default."""
    for name, method in vars(protocol).items():
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        wanted = list(inspect.signature(method).parameters.values())[1:]
        found = list(inspect.signature(getattr(adapter, name)).parameters.values())
        assert ([(parameter.name, parameter.default) for parameter in found]
                == [(parameter.name, parameter.default) for parameter in wanted]), name
    for name in protocol.__annotations__:
        assert hasattr(adapter, name), name
