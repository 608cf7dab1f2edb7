"""The weights of a bundle in as few bytes as lose nothing.

Note [Narrow weights]
A trace computes in float32, but few models have float32 weights: nearly all are published in
bfloat16, and GGUF files hold blocks of 32 weights with 4 or 8 bits each. A matrix of float32 that
is exactly representable in bfloat16 is stored in that type. A matrix that came out of a GGUF file
is stored as the blocks it came from. transformers renames the tensors of a GGUF file and permutes
rows of some, each architecture in its own way, and the export stacks matrices, so blocks are not
found by name: a matrix has blocks of a type if every row of it is, to the bit, a dequantized row of
some tensor of that type. What is found is dequantized once more and compared as a whole. The engine
packs what is stored as it is; the trace itself would not run on it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy

PIECE_ROWS = 4096  # compared at once: a table of embeddings is a large part of a model
BLOCK_TYPES = ("q4_0", "q4_1", "q8_0")  # of the types in GGUF files, those the engine reads


@dataclass(frozen=True)
class StoredWeights:
    """How the weights of a module are stored."""

    block_types: dict[str, str] = field(default_factory=dict)  # attribute path -> "q4_1"
    counts: dict[str, int] = field(default_factory=dict)  # type -> weights of it, tied ones once
    tied: bool = False  # the output matrix is the table of embeddings


def narrow_weights(module: torch.jit.ScriptModule, types: WeightTypes) -> StoredWeights:
    """Replaces matrices of a traced module by what they are stored as; see the note above.

    Args:
        module: its attributes are changed, the tensors in them are not. Tied ones stay tied.
        types: of the model that was traced.

    Returns:
        What the weights have become.
    """
    narrow: dict[tuple[int, torch.Size], tuple[str, torch.Tensor]] = {}
    block_types = {}
    for path in list(module.state_dict()):
        owner, _, name = path.rpartition(".")
        # One at a time: what is replaced goes, where nobody else holds it.
        weight = getattr(module.get_submodule(owner), name)
        if weight.dtype != torch.float32 or weight.dim() < 2 or weight.numel() == 0:
            continue
        key = (weight.data_ptr(), weight.shape)
        if key not in narrow:
            narrow[key] = _narrowed(weight, types.blocks)
        type_name, stored = narrow[key]
        setattr(module.get_submodule(owner), name,
                torch.nn.Parameter(stored, requires_grad=False))
        if type_name in BLOCK_TYPES:
            block_types[path] = type_name
    tied = any(node.kind() == "prim::GetAttr" and node.s("name") == "output_weight"
               for node in module.graph.nodes())
    return StoredWeights(block_types, count_weights(module, block_types), tied)


def count_weights(module: torch.nn.Module, block_types: dict[str, str]) -> dict[str, int]:
    """Weights of a module by the type of their matrix, tied ones counted once.

    What is not in a matrix (norms, biases) counts as "vectors", which nothing narrows.
    """
    counts: dict[str, int] = defaultdict(int)
    seen = set()
    for path, tensor in module.state_dict().items():
        if tensor.numel() == 0 or tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        if path in block_types:
            block = _block_bytes(block_types[path])
            counts[block_types[path]] += tensor.numel() // block * 32
        elif tensor.dim() < 2:
            counts["vectors"] += tensor.numel()
        else:
            counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return dict(sorted(counts.items()))


class GgufBlocks:
    """The rows of the block tensors of a GGUF file, found by the weights in them."""

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader, dequantize

        # Width of a row and type -> digest of a row's weights -> its blocks.
        self._rows: dict[tuple[int, str], dict[bytes, numpy.ndarray]] = defaultdict(dict)
        for tensor in GGUFReader(path).tensors:
            type_name = tensor.tensor_type.name.lower()
            if type_name not in BLOCK_TYPES or tensor.data.ndim != 2:
                continue
            weights = dequantize(tensor.data, tensor.tensor_type)
            self._rows[weights.shape[1], type_name].update(zip(_digests(weights), tensor.data))

    def find(self, weight: torch.Tensor) -> tuple[str, torch.Tensor] | None:
        """The blocks of a matrix [out, in] float32: their type, and uint8 [out, bytes of a row]."""
        import numpy
        from gguf import GGMLQuantizationType, dequantize

        digests = _digests(weight.numpy())
        for (width, type_name), rows in self._rows.items():
            if width != weight.shape[1] or not all(digest in rows for digest in digests):
                continue
            blocks = numpy.stack([rows[digest] for digest in digests])
            again = dequantize(blocks, GGMLQuantizationType[type_name.upper()])
            if again.tobytes() == weight.numpy().tobytes():
                return type_name, torch.from_numpy(blocks)
        return None


class WeightTypes:
    """What the weights of a model will be stored as."""

    def __init__(self, gguf: Path | None = None) -> None:
        self.blocks = GgufBlocks(gguf) if gguf is not None else None

    def of(self, weight: torch.Tensor) -> str:
        """The type of a matrix [out, in] float32: "float32", "bfloat16", or that of its blocks."""
        return _narrowed(weight, self.blocks)[0]


def _narrowed(weight: torch.Tensor, source: GgufBlocks | None) -> tuple[str, torch.Tensor]:
    weight = weight.detach().contiguous()
    blocks = source.find(weight) if source is not None and weight.dim() == 2 else None
    if blocks is not None:
        return blocks
    half = weight.to(torch.bfloat16)
    pieces = zip(half.split(PIECE_ROWS), weight.split(PIECE_ROWS))
    if all(torch.equal(narrow.to(torch.float32), wide) for narrow, wide in pieces):
        return "bfloat16", half
    return "float32", weight


def _digests(weights: numpy.ndarray) -> list[bytes]:
    return [hashlib.blake2b(row, digest_size=16).digest() for row in weights]


def _block_bytes(type_name: str) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    return GGML_QUANT_SIZES[GGMLQuantizationType[type_name.upper()]][1]
