"""The model "lmfusion" of lm-eval (EleutherAI's lm-evaluation-harness): docs/lm_eval.md.

Importing this package registers it. lm-eval has no entry points for models of other packages; its
command imports what a task file names, so `lm_eval --model lmfusion --tasks FILE.yaml` works where
FILE.yaml has `process_docs: !function lmfusion.lm_eval.documents`. For tasks by name it is run as
`python -m lmfusion.lm_eval` with the arguments of `lm_eval`.
"""

from typing import Any

from lmfusion.lm_eval.model import LMFusion

__all__ = ["LMFusion", "documents"]


def documents(dataset: Any) -> Any:
    """The documents of a task as they are; a task file that names this function registers us."""
    return dataset
