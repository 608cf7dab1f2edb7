"""The module that is traced: a causal language model over a packed batch of tree tokens.

Note [How tree attention gets into a transformers model]
Every layer of most models looks its attention function up in `AttentionInterface` by name. Under
the name registered in fusion/ that is the operator `lmfusion::rotary_attention`, or
`lmfusion::tree_attention` where a layer does to its heads what the former does not know. The model
sees one sequence, [1, tokens]; `position_ids` carry each token's depth in the tree. The plan of the
batch (who sees whom, which slot is whose) reaches the operators around the model, through a context
variable, so no model code knows of it; for the tracer the tensors are inputs all the same. No
mask function is registered under the name, for which transformers builds no mask at all.

The traced graph is flat: one list of operators, whose weights are attributes of one module.
"""

from __future__ import annotations

import warnings

import torch
from torch.jit._trace import TracerWarning
from transformers import PreTrainedModel

from lmfusion.exporter.architecture import Architecture, decoder_of
from lmfusion.exporter.fusion import fuse
from lmfusion.exporter.fusion.emission import Emission, TreeBatch
from lmfusion.exporter.fusion.parts import running
from lmfusion.exporter.fusion.plan import Plan
from lmfusion.exporter.narrow import WeightTypes
from lmfusion.exporter.output import OutputHead

TRACED_TOKENS = 5


class TreeModule(torch.nn.Module):
    """A model whose tokens attend along the paths of a token tree."""

    def __init__(self, model: PreTrainedModel, head: OutputHead, architecture: Architecture,
                 plan: Plan) -> None:
        super().__init__()
        self._decoder = (decoder_of(model),)  # no submodule: the trace shall be flat
        self._plan = plan
        self._windows = architecture.windows
        self.output_weight = head.weight
        if head.bias is not None:
            self.output_bias = head.bias
        held = {id(each) for each in (head.weight, head.bias)}
        for name, tensor in [*self._decoder[0].named_parameters(),
                             *self._decoder[0].named_buffers()]:
            if id(tensor) not in held:  # tied ones once
                held.add(id(tensor))
                if isinstance(tensor, torch.nn.Parameter):
                    self.register_parameter(name.replace(".", "__"), tensor)
                else:
                    self.register_buffer(name.replace(".", "__"), tensor)

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor,
                segments: torch.Tensor, segment_slots: torch.Tensor,
                kv: torch.Tensor) -> torch.Tensor:
        """Fills the slots of a batch: tokens [T] int64 -> hidden states [T, hidden] float32."""
        batch = TreeBatch(positions, slots, segments, segment_slots, kv, self._windows)
        with running(Emission(self._plan, batch)):
            hidden = self._decoder[0](input_ids=tokens.unsqueeze(0),
                                      position_ids=positions.unsqueeze(0), use_cache=False)[0]
        return hidden.squeeze(0)


def trace_tree_module(model: PreTrainedModel, head: OutputHead, architecture: Architecture,
                      types: WeightTypes) -> torch.jit.ScriptModule:
    """Traces a model's forward pass at one small size; the trace holds for every size.

    Args:
        model: the replica to trace, rotary frequencies fixed. It is changed and cannot be used
            for anything else afterwards.
        head: the output formula, with the replica's own matrix.
        architecture: read from the same model.
        types: how its weights will be stored.
    """
    plan = fuse(model, types.of)
    module = TreeModule(model, head, architecture, plan).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", category=TracerWarning)
        traced = torch.jit.trace(module, _traced_batch(architecture), check_trace=False)
    torch._C._jit_pass_cse(traced.graph)
    torch._C._jit_pass_dce(traced.graph)
    return traced


def _traced_batch(architecture: Architecture) -> tuple[torch.Tensor, ...]:
    """A chain of TRACED_TOKENS tokens in slots of no particular order."""
    tokens = torch.arange(TRACED_TOKENS)
    slots = torch.arange(TRACED_TOKENS, 0, -1, dtype=torch.int32)
    segments = torch.tensor([[0, TRACED_TOKENS, 0, TRACED_TOKENS, 0]], dtype=torch.int32)
    kv = torch.zeros(architecture.layers, 2, TRACED_TOKENS + 2, architecture.kv_heads,
                     architecture.head_dim)
    return tokens, tokens.clone(), slots, segments, slots.clone(), kv
