"""NeMo's own batched CTC beam search, with `lmfusion.adapters.nemo` as its fusion model."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import torch
from emissions import BLANK, SPACE, UNITS
from lmfusion import LMFusionScorer
from lmfusion.adapters.nemo import NeMoLM
from lmfusion.adapters.pieces import Pieces
from trial import LISTED, Trial

LETTERS = [unit for unit in UNITS if unit != BLANK]  # NeMo's blank is the last column
PIECES = Pieces(LETTERS, space=SPACE)
WEIGHT = 0.5  # of log p; no other was tried
BEAM = 32


def without_its_init(name: str) -> ModuleType:
    """A package of NeMo's whose __init__, which imports every model there is, does not run."""
    nemo = importlib.util.find_spec("nemo")
    assert nemo is not None and nemo.origin is not None
    module = ModuleType(name)
    module.__path__ = [str(Path(nemo.origin).parent.joinpath(*name.split(".")[1:]))]
    sys.modules[name] = module
    return module


def search_class() -> type:
    """`BatchedBeamCTCComputer`, and what it imports itself."""
    without_its_init("nemo.collections.asr")
    without_its_init("nemo.collections.common")
    biasing = without_its_init("nemo.collections.asr.parts.context_biasing")
    biasing.GPUBoostingTreeModel = importlib.import_module(
        f"{biasing.__name__}.boosting_graph_batched").GPUBoostingTreeModel
    return importlib.import_module(
        "nemo.collections.asr.parts.submodules.ctc_batched_beam_decoding").BatchedBeamCTCComputer


class Recorded(NeMoLM):
    """Keeps all that it hands to the search."""

    def reset(self) -> None:
        super().reset()
        self.rows: dict[int, tuple[list[float], list[int]]] = {}  # scores and handles after each
        self.finals: dict[int, float] = {}

    def advance(self, states: torch.Tensor,
                eos_id: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        scores, following = super().advance(states, eos_id)
        self.rows.update(zip(states.tolist(), zip(scores.tolist(), following.tolist())))
        return scores, following

    def get_final(self, states: torch.Tensor) -> torch.Tensor:
        final = super().get_final(states)
        self.finals.update(zip(states.tolist(), final.tolist()))
        return final

    def handed(self, units: list[int]) -> float:
        """The sum that the search was given for these units and the end after them."""
        total, handle = 0.0, 0
        for unit in units:
            scores, following = self.rows[handle]
            total, handle = total + scores[unit], following[unit]
        return total + self.finals[handle]


def text_of(units: list[int]) -> str:
    return " ".join("".join(PIECES.split(units, "space")).split())


def main() -> None:
    computer = search_class()
    trial = Trial("nemo-toolkit", __doc__)
    weight = WEIGHT if trial.weight is None else trial.weight
    handed: list[tuple[str, float]] = []

    def decode(scorer: LMFusionScorer | None) -> list[str]:
        lm = None if scorer is None else Recorded(scorer, PIECES, open_words=True)
        search = computer(len(LETTERS), BEAM, fusion_models=lm and [lm],
                          fusion_models_alpha=lm and [weight], allow_cuda_graphs=False)
        heard = []
        for log_probs in trial.spoken:
            if lm is not None:
                lm.reset()
            blank_last = torch.roll(log_probs, -1, dims=1)[None]
            (found,) = search(blank_last, torch.tensor([len(log_probs)])).to_nbest_hyps_list(
                score_norm=False)
            lists = [torch.as_tensor(each.y_sequence).tolist() for each in found.n_best_hypotheses]
            heard.append(text_of(lists[0]))
            if lm is not None:
                handed.extend((text_of(units), lm.handed(units)) for units in lists[:LISTED])
        return heard

    trial.measure("BatchedBeamCTCComputer", decode, lambda: handed)
    trial.end()


if __name__ == "__main__":
    main()
