"""`lmfusion models`: what was exported into the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmfusion.cli.output import AsJson, print_json, print_table
from lmfusion.pretrained import cached_models, remove_cached


def models(remove: Annotated[list[str] | None, typer.Option(
               "--remove", metavar="NAME", help="remove it (name or source); may be repeated")]
           = None,
           cache_dir: Annotated[Path | None, typer.Option(
               "--cache-dir", metavar="FOLDER", show_default="$LMFUSION_CACHE or ~/.cache/lmfusion",
               help="where exports are kept")] = None,
           json_: AsJson = False) -> None:
    """List the model files in the cache (name, size, source, date), or remove some."""
    if remove:
        found = [model for name in remove for model in remove_cached(name, cache_dir)]
    else:
        found = cached_models(cache_dir)
    if json_:
        print_json([{"name": model.name, "path": str(model.path), "bytes": model.bytes,
                     "source": model.source, "date": model.date} for model in found])
    else:
        print_table(["name", "MB", "source", "date"],
                    [[model.name, f"{model.bytes / 1e6:.1f}", model.source, model.date]
                     for model in found], title="removed" if remove else None)
