"""`lmfusion.json`, the description inside a bundle. docs/export.md lists its fields."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

import torch
import transformers

from lmfusion.exporter.start_token import Measured

FORMAT = 3  # kModelFormat in src/bundle/description.h


@dataclass(frozen=True)
class Parity:
    """How far the exported module is from eager attention of the original model."""

    max_difference: float  # nats per token
    tokens: int  # tokens compared
    tolerance: float  # nats per token


@dataclass(frozen=True)
class Metadata:
    """Everything the engine must know about a model; the names are those in the file."""

    kind: str  # "tree" or "plain"
    architecture: str
    layers: int
    q_heads: int
    kv_heads: int
    head_dim: int
    hidden_size: int
    windows: tuple[int, ...]  # one per layer, tokens; 0 = full attention
    attention_softcap: float  # 0 = none
    logit_softcap: float  # 0 = none
    logit_scale: float
    vocabulary_size: int  # rows of the output matrix
    max_positions: int  # longest path, start token counted; 0 = no limit
    bos_token_id: int  # -1 = none
    bos_source: str  # "tokenizer", "config", "eos", "measured" or "none"
    tokenizer_adds_bos: bool
    start_tokens: tuple[Measured, ...]  # what start_token.py measured, the best first
    eos_token_id: int  # -1 = none
    tokenizer: str  # "tokenizer.json", "tokenizer.model" or ""
    weight_types: dict[str, str]  # attribute path -> type of its blocks; see narrow.py
    weight_counts: dict[str, int]  # type -> weights stored in it, tied ones counted once
    tied_embeddings: bool  # the output matrix is the table of embeddings; false if plain
    weights_sha256: str
    source: str
    license: str
    parity: Parity
    dtype: str = "float32"
    torch: str = torch.__version__
    transformers: str = transformers.__version__

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)


def weights_sha256(module: torch.nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and buffers, in name order.

    They are hashed as they are stored: the file itself can be checked, without dequantizing.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        content = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        digest.update(memoryview(content.numpy()))
    return digest.hexdigest()
