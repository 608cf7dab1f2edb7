"""The options of commands that score: the model, and every option of the scorer.

They are made from the table of options that the scorer itself has, so that none is missing:
`@scores()` puts them in place of a command's parameter `scorer`.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from lmfusion import _core
from lmfusion.errors import ModelFileError
from lmfusion.pretrained import model_file

if TYPE_CHECKING:
    from lmfusion import LMFusionScorer

MODEL_HELP = "a model file, a Hugging Face folder, a .gguf file, or a name on the hub"
WEIGHTS = ("weight", "word_insertion_bonus")
_PANEL = "Model and scorer"
_NOT_HERE = ("homophone_aggregation",)  # it joins scores, and no command prints such
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class ChosenScorer:
    """What the options of a command ask for."""

    model: str | None
    lora: str | None
    revision: str | None
    options: dict[str, Any]

    def path(self) -> Path:
        """The model file, exported now if it must be."""
        return model_file(self.model, lora=self.lora, revision=self.revision)

    def identity(self) -> str:
        """What log p depends on, beside texts, their form and the start token."""
        from lmfusion.memory import read_model
        try:
            weights = read_model(self.path())[0]["weights_sha256"]
        except ModelFileError:  # no description: any TorchScript model
            with self.path().open("rb") as file:
                weights = hashlib.file_digest(file, "sha256").hexdigest()
        options = {name: self.options[name] for name in (
            "compute", "boundary", "max_context_length", "casing", "truecaser", "bos_id")
            if name in self.options}
        return f"{weights} {options}"

    def open(self, **other: Any) -> LMFusionScorer:
        """The scorer; `other` options take the place of those given."""
        from lmfusion import LMFusionScorer
        return LMFusionScorer(self.path(), **{**self.options, **other})


def scores(*, without: Sequence[str] = WEIGHTS) -> Callable[[_Command], _Command]:
    """Gives a command all options of the scorer but some, as one argument `scorer`."""
    def decorate(command: _Command) -> _Command:
        fields = [field for field in _core.option_fields()
                  if field[0] not in (*without, *_NOT_HERE)]

        def with_options(**arguments: Any) -> Any:
            options = {name: _value(arguments.pop(name), default) for name, default, _ in fields}
            chosen = ChosenScorer(arguments.pop("model"), arguments.pop("lora"),
                                  arguments.pop("revision"), options)
            return command(**arguments, scorer=chosen)

        signature = inspect.signature(command, eval_str=True)
        parameters = [each for each in signature.parameters.values() if each.name != "scorer"]
        parameters += [_parameter("model", str | None, None, f"{MODEL_HELP} (default: the default "
                                  "model)", "MODEL"),
                       _parameter("lora", str | None, None, "folder of a LoRA adapter to merge",
                                  "DIR"),
                       _parameter("revision", str | None, None, "of a name on the hub", "NAME")]
        parameters += [_parameter(name, type(default), default, text.split("\n")[0], None)
                       for name, default, text in fields]
        by_keyword = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
        with_options.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=by_keyword)
        with_options.__annotations__ = {each.name: each.annotation for each in by_keyword}
        with_options.__doc__ = command.__doc__
        return with_options  # type: ignore[return-value]
    return decorate


def _parameter(name: str, kind: Any, default: Any, text: str,
               metavar: str | None) -> inspect.Parameter:
    option = typer.Option(f"--{name.replace('_', '-')}", help=text, rich_help_panel=_PANEL,
                          metavar=metavar)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default,
                             annotation=Annotated[kind, option])


def _value(given: Any, default: Any) -> Any:
    """Whole numbers of options that are a number or "auto"."""
    return int(given) if default == "auto" and str(given).lstrip("-").isdecimal() else given
