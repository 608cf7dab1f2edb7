"""`python -m lmfusion.lm_eval --model lmfusion --model_args pretrained=FOLDER --tasks ...`"""

from lm_eval.__main__ import cli_evaluate

import lmfusion.lm_eval  # noqa: F401  (registers the model)

cli_evaluate()
