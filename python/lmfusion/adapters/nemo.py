"""NeMo: a fusion model with int64 state handles; its n-best lists go to `adapters.nbest`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lmfusion.adapters.pieces import Pieces, WordEndScorer
from lmfusion.scorer import LMFusionScorer


class NeMoLM:
    """The interface of NeMo's batched n-gram models: `get_init_states`, `advance`, `get_final`.

    Decoders also call `to` and ask `compatible_with_cuda_graphs`. A handle stands for a prefix of
    units; handles of the same prefix are equal. They stay valid until `reset`, which forgets all
    (call it between utterances). Words are scored when they are complete (Note [Word ends] in
    pieces.py), in nats.

    Args:
        scorer: the scorer.
        pieces: the tokenizer's units as text, without blank.
        endings: how a text ends; () scores no end.
        open_words: score words while they are open too (Note [Open words]): for a search without a
            lexicon, as NeMo's are.
    """

    def __init__(self, scorer: LMFusionScorer, pieces: Pieces, *,
                 endings: Sequence[str] = (".", "?", "!"), open_words: bool = False) -> None:
        self._scorer = WordEndScorer(scorer, pieces, endings, open_words=open_words)
        self._vocabulary = len(pieces)
        self._device: torch.device | str = "cpu"
        self.reset()

    def to(self, device: torch.device | str) -> NeMoLM:
        """Where initial handles are from now on; the scorer stays where it is. Returns itself."""
        self._device = device
        return self

    def compatible_with_cuda_graphs(self) -> bool:
        """No: handles are looked up on the host."""
        return False

    def reset(self) -> None:
        """Forgets all handles."""
        # Handle 0 is the empty prefix; row * vocabulary + unit + 1 is the prefix of the row and
        # one unit more. A row is made when a handle is advanced.
        self._rows: list[tuple[int, ...]] = []
        self._row_of: dict[int, int] = {}

    def get_init_states(self, batch_size: int, bos: bool = True) -> torch.Tensor:
        """[batch] of the handle of the empty prefix."""
        del bos
        return torch.zeros(batch_size, dtype=torch.int64, device=self._device)

    def advance(self, states: torch.Tensor,
                eos_id: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """[batch] -> scores [batch, vocabulary], next handles [batch, vocabulary]."""
        handles = states.flatten().tolist()
        rows = self._scorer.rows([self._prefix(handle) for handle in handles], eos_id)
        first = torch.tensor([self._row(handle) for handle in handles], dtype=torch.int64,
                             device=states.device)
        units = torch.arange(1, self._vocabulary + 1, device=states.device)
        return (torch.tensor(rows, dtype=torch.float32, device=states.device),
                first[:, None] * self._vocabulary + units)

    def get_final(self, states: torch.Tensor) -> torch.Tensor:
        """[batch] of log p(last word) + log p(the text ends)."""
        prefixes = [self._prefix(handle) for handle in states.flatten().tolist()]
        ends = self._scorer.text_ends(prefixes)
        return torch.tensor(ends, dtype=torch.float32, device=states.device).view(states.shape)

    def _prefix(self, handle: int) -> tuple[int, ...]:
        if handle == 0:
            return ()
        row, unit = divmod(handle - 1, self._vocabulary)
        if not 0 <= row < len(self._rows):
            raise ValueError(f"handle {handle} is not one of this model's since its last reset()")
        return (*self._rows[row], unit)

    def _row(self, handle: int) -> int:
        row = self._row_of.setdefault(handle, len(self._rows))
        if row == len(self._rows):
            self._rows.append(self._prefix(handle))
        return row
