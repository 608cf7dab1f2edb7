"""What `tune` finds and `rescore --settings` takes: weights and text form, as a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lmfusion.nbest.ranking import Weights
from lmfusion.tuning.text_form import TextForm


@dataclass(frozen=True)
class Settings:
    """Weights of the total (`lmfusion.nbest.ranking.Weights`) and the form of the texts."""

    weights: Weights = field(default_factory=Weights)
    form: TextForm = field(default_factory=TextForm)

    def write(self, path: Path, **facts: Any) -> None:
        """Writes them; `facts`, such as how they were found, stand beside under "measured"."""
        content = {**asdict(self.weights), "form": self.form.to_dict(), "measured": facts}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Of a file of `write`; entries that are not there have their defaults.

        Raises:
            ValueError: it is no JSON object, or an entry is not known or no number.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{path}: an object with weights expected")
        content.pop("measured", None)
        form = _known(TextForm, content.pop("form", {}), (str, int), path)
        for name, found in form.items():
            wanted = type(getattr(TextForm(), name))
            if not isinstance(found, wanted):
                raise ValueError(f"{path}: {name} = {found!r}; a "
                                 f"{'text' if wanted is str else 'number'} expected")
        return cls(Weights(**_known(Weights, content, (int, float), path)), TextForm(**form))


def _known(kind: type, given: Any, value: type | tuple[type, ...], path: Path) -> dict[str, Any]:
    names = [each.name for each in fields(kind)]
    if not isinstance(given, dict):
        raise ValueError(f"{path}: an object with {', '.join(names)} expected")
    for name, found in given.items():
        if name not in names:
            raise ValueError(f"{path}: {name!r} is no setting; known are {', '.join(names)}")
        if not isinstance(found, value) or isinstance(found, bool):
            raise ValueError(f"{path}: {name} = {found!r}; a "
                             f"{'text or number' if value == (str, int) else 'number'} expected")
    return given
