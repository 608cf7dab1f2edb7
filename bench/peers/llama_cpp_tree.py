"""llama.cpp driven by hand: each call's texts as one token tree in one decode.

A token that several texts share is computed once and belongs to several sequences of the unified
KV cache. Logits are asked for only where a scored token follows. Flash attention is off and the KV
cache is float32: without that llama.cpp is not exact. Nothing is kept between calls.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import llama_cpp
import numpy as np
import torch

from peers.calls import Call

F32 = 0  # GGML_TYPE_F32
ERROR = 4  # GGML_LOG_LEVEL_ERROR
Ids = tuple[int, ...]


@llama_cpp.llama_log_callback
def _log_errors(level: int, text: bytes, _: object) -> None:
    if level == ERROR:
        print(text.decode(errors="replace"), end="", file=sys.stderr)


class TreePerCall:
    """A GGUF file of any type; at most 256 sequences (llama.cpp's limit) in a decode."""

    def __init__(self, gguf: Path, *, threads: int, max_tokens: int = 2048) -> None:
        llama_cpp.llama_log_set(_log_errors, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(gguf).encode(), model_params)
        if not self._model:
            raise OSError(f"llama.cpp cannot read {gguf}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = max_tokens
        params.n_ubatch = min(512, max_tokens)
        self._max_sequences = min(llama_cpp.llama_max_parallel_sequences(), max_tokens)
        params.n_seq_max = self._max_sequences
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.type_k = params.type_v = F32
        params.kv_unified = True
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp made no context for {gguf}")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(self._model))
        self._max_tokens = max_tokens
        self._batch = _Batch(max_tokens, self._max_sequences)
        self.tokens_computed = 0
        self.forwards = 0

    def new_utterance(self) -> None:
        """Nothing is kept between calls."""

    def score(self, call: Call) -> list[float]:
        """[candidates] log p, nats."""
        scored: dict[Ids, int] = {}  # ids -> the first token that any path scores
        for path in call.paths:
            if len(path.ids) > path.scored_begin:
                scored[path.ids] = min(path.scored_begin, scored.get(path.ids, len(path.ids)))
        found = {}
        for piece in self._pieces(scored):
            found.update(self._decode(piece))
        return call.totals([sum(found[path.ids][path.scored_begin - scored[path.ids]:])
                            if path.ids in scored else 0.0 for path in call.paths])

    def _pieces(self, scored: dict[Ids, int]) -> Iterator[_Tree]:
        """The call's tree, in as few decodes as sequences and tokens allow."""
        tree = _Tree()
        for ids, begin in sorted(scored.items()):  # neighbours share the most
            if len(ids) - 1 > self._max_tokens:
                raise ValueError(f"a text of {len(ids)} tokens does not fit {self._max_tokens}")
            if not tree.add(ids, begin, self._max_sequences, self._max_tokens):
                yield tree
                tree = _Tree()
                tree.add(ids, begin, self._max_sequences, self._max_tokens)
        if tree.texts:
            yield tree

    def _decode(self, tree: _Tree) -> dict[Ids, list[float]]:
        """log p of the scored tokens of every text."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        outputs = tree.fill(self._batch)
        if llama_cpp.llama_decode(self._context, self._batch.struct) != 0:
            raise RuntimeError("llama_decode failed")
        self.tokens_computed += len(tree.tokens)
        self.forwards += 1
        logits = torch.from_numpy(np.ctypeslib.as_array(
            llama_cpp.llama_get_logits(self._context), (len(outputs), self._vocabulary)))
        rows = [outputs[node] for nodes in tree.texts.values() for node, _ in nodes]
        tokens = [token for nodes in tree.texts.values() for _, token in nodes]
        log_probs = iter((logits[rows, tokens] - logits.logsumexp(1)[rows]).tolist())
        return {ids: [next(log_probs) for _ in nodes] for ids, nodes in tree.texts.items()}


@dataclass
class _Tree:
    """Distinct tokens of some texts, a text at a time; parents come before children."""

    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    sequences: list[list[int]] = field(default_factory=list)  # first and last of each token
    texts: dict[Ids, list[tuple[int, int]]] = field(default_factory=dict)  # (parent, scored token)
    _last: list[int] = field(default_factory=list)  # nodes of the text added last
    _sequence_count: int = 0

    def add(self, ids: Ids, begin: int, max_sequences: int, max_tokens: int) -> bool:
        """Adds a text (in sorted order); False where it does not fit any more."""
        computed = ids[:-1]  # the last token is only scored
        shared = 0
        while (shared < min(len(computed), len(self._last))
               and self.tokens[self._last[shared]] == computed[shared]):
            shared += 1
        # A text that continues the one before it takes over its sequence.
        extends = shared == len(self._last)
        within = shared == len(computed)
        sequence = self._sequence_count - (1 if self._last and (extends or within) else 0)
        if sequence >= max_sequences or len(self.tokens) + len(computed) - shared > max_tokens:
            return False
        nodes = self._last[:shared]
        for node in nodes:
            self.sequences[node][1] = sequence
        for depth in range(shared, len(computed)):
            nodes.append(len(self.tokens))
            self.tokens.append(computed[depth])
            self.depths.append(depth)
            self.sequences.append([sequence, sequence])
        self._sequence_count = sequence + 1
        self.texts[ids] = [(nodes[at - 1], ids[at]) for at in range(begin, len(ids))]
        if not within:
            self._last = nodes
        return True

    def fill(self, batch: _Batch) -> dict[int, int]:
        """Writes the batch; node -> row of the logits."""
        wanted = {node for nodes in self.texts.values() for node, _ in nodes}
        batch.write(self.tokens, self.depths, self.sequences,
                    [node in wanted for node in range(len(self.tokens))])
        return {node: row for row, node in enumerate(sorted(wanted))}


class _Batch:
    """A llama_batch over numpy arrays."""

    def __init__(self, tokens: int, sequences: int) -> None:
        self._token = np.zeros(tokens, np.int32)
        self._position = np.zeros(tokens, np.int32)
        self._counts = np.zeros(tokens, np.int32)
        self._sequences = np.zeros((tokens, sequences), np.int32)
        self._wanted = np.zeros(tokens, np.int8)
        row_bytes = self._sequences.strides[0]
        self._rows = np.arange(tokens, dtype=np.uint64) * row_bytes + self._sequences.ctypes.data
        struct = llama_cpp.llama_batch()
        struct.embd = None
        for name, array in (("token", self._token), ("pos", self._position),
                            ("n_seq_id", self._counts), ("seq_id", self._rows),
                            ("logits", self._wanted)):
            kind = dict(struct._fields_)[name]
            setattr(struct, name, ctypes.cast(array.ctypes.data, kind))
        self.struct = struct

    def write(self, tokens: Sequence[int], depths: Sequence[int],
              sequences: Sequence[Sequence[int]], wanted: Sequence[bool]) -> None:
        count = len(tokens)
        self.struct.n_tokens = count
        self._token[:count] = tokens
        self._position[:count] = depths
        self._wanted[:count] = wanted
        for row, (first, last) in enumerate(sequences):
            self._counts[row] = last - first + 1
            self._sequences[row, :last - first + 1] = np.arange(first, last + 1)
