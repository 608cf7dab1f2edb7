"""The steps of an export, in an order that holds the weights in memory once.

Note [Once in memory]
A model of 3 billion weights takes 13 GB in float32, as long as it is traced and as long as it is
asked what its file is compared with. A trace shares the weights of the replica that is traced, and
a stack of projections takes the place of its parts one after another, if nobody else holds them. So
the model that was loaded goes before its replica is traced, the trace goes when it is written, the
file is opened, asked and closed, and only then the model is loaded once more. A model that the
caller has in memory stays where it is, and costs its own.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmfusion._core import Truecaser
from lmfusion.exporter import parity
from lmfusion.exporter.container import describe_again, write_model_file
from lmfusion.exporter.lora import merged_with_lora
from lmfusion.exporter.metadata import Metadata
from lmfusion.exporter.narrow import WeightTypes, narrow_weights
from lmfusion.exporter.probes import (
    refuse_models_that_look_ahead,
    refuse_weights_that_are_no_numbers,
)
from lmfusion.exporter.replica import float32_replica
from lmfusion.exporter.sources import refuse_encoder_decoder
from lmfusion.exporter.tokenizer_file import SAMPLE_LINES, original_ids, read_tokenizer
from lmfusion.exporter.traced import (
    Traced,
    describe_model,
    describe_trace,
    trace_plain,
    trace_tree,
)
from lmfusion.replaced_file import replaced

Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Export:
    """One export; see the note above, and `lmfusion.export` for what the fields are."""

    load: Callable[[], PreTrainedModel]  # the same weights at every call
    load_tokenizer: Callable[[], PreTrainedTokenizerBase | None]
    owned: bool  # nobody else has what `load` returns
    uncached: bool
    lora: Path | None
    truecaser: Path | None
    gguf: Path | None
    source: str
    license: str
    tolerance: float  # nats per token
    say: Progress

    def write(self, target: Path) -> Path:
        """Writes the file, checked before it is kept."""
        extra_files = _read_truecaser(self.truecaser)
        metadata, tokenizer, traced, types = self._trace(extra_files)
        _give_back()
        if not self.uncached:
            self.say("finding the narrowest types that lose nothing")
            traced = replace(traced, stored=narrow_weights(traced.module, types))
        del types
        metadata = describe_trace(metadata, traced)
        paths = _check_paths(metadata, tokenizer)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replaced(target) as temporary:
            architecture = traced.architecture
            if architecture is None:
                self.say("checking against the original model")
                found = parity.check_plain(traced.module, self._original(), paths, self.tolerance)
                metadata = replace(metadata, parity=found)
            self.say(f"writing {target}")
            write_model_file(traced.module, metadata.to_json(), extra_files, temporary)
            if architecture is not None:
                del traced  # the module was the last to hold the weights
                _give_back()
                self.say("checking against eager attention")
                found = parity.check_tree(temporary, self._original, architecture, paths,
                                          self.tolerance)
                describe_again(temporary, replace(metadata, parity=found).to_json())
        self.say(f"{target}: within {found.max_difference:.1e} nats per token")
        return target

    def _trace(self, extra_files: dict[str, str | bytes]
               ) -> tuple[Metadata, PreTrainedTokenizerBase | None, Traced, WeightTypes]:
        """What is known of the model, and its trace; its tokenizer goes to `extra_files`."""
        model = self.load()
        refuse_encoder_decoder(model.config)
        tokenizer = self.load_tokenizer()
        self.say("reading the tokenizer")
        file = read_tokenizer(tokenizer)
        if file.name:
            extra_files[file.name] = file.content
        refuse_weights_that_are_no_numbers(model)
        model = merged_with_lora(model, self.lora, owned=self.owned)
        refuse_models_that_look_ahead(float32_replica(model))
        self.say(f"describing {type(model).__name__}")
        metadata = describe_model(model, tokenizer, file, self.source, self.license)
        self.say(f"tracing {type(model).__name__}")
        types = WeightTypes(self.gguf)
        replica = float32_replica(model)
        del model
        _give_back()
        traced = trace_plain(replica) if self.uncached else trace_tree(replica, types)
        return metadata, tokenizer, traced, types

    def _original(self) -> PreTrainedModel:
        """What the trace is compared with."""
        return float32_replica(merged_with_lora(self.load(), self.lora, owned=self.owned))


def _give_back() -> None:
    """Returns to the system what nobody holds any more; malloc alone would keep much of it."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)


def _check_paths(metadata: Metadata, tokenizer: PreTrainedTokenizerBase | None) -> parity.Paths:
    lines = [] if tokenizer is None else [original_ids(tokenizer, line)
                                          for line in SAMPLE_LINES[:2]]
    return parity.sample_paths(metadata.vocabulary_size, windows=metadata.windows,
                               max_positions=metadata.max_positions, lines=lines,
                               start=metadata.bos_token_id)


def _read_truecaser(path: Path | None) -> dict[str, str | bytes]:
    if path is None:
        return {}
    content = path.read_bytes()
    Truecaser(content, compat=False)  # refuses anything else
    return {"truecaser": content}
