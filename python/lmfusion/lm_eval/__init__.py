"""The model "lmfusion" of lm-eval (EleutherAI's lm-evaluation-harness): docs/lm_eval.md.

Importing this package registers it. lm-eval has no entry points for models of other packages, so
its command is run as `python -m lmfusion.lm_eval` with the arguments of `lm_eval`.
"""

from lmfusion.lm_eval.model import LMFusion

__all__ = ["LMFusion"]
