"""`lmfusion default-model`: where the default model is."""

from __future__ import annotations

from lmfusion.cli.output import AsJson, print_json


def default_model(json_: AsJson = False) -> None:
    """Print the path of SmolLM2-135M-Instruct, built at the first call."""
    from lmfusion.default_model import default_model as built
    path = built()
    print_json({"path": str(path)}) if json_ else print(path)
