"""`lmfusion export`: a Hugging Face model becomes one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmfusion.cli.output import AsJson, note, print_json


def export(source: Annotated[str, typer.Argument(
               metavar="MODEL", help="a Hugging Face folder, a .gguf file, or a name on the hub")],
           output: Annotated[Path, typer.Option("-o", "--output", metavar="MODEL.lmf")],
           lora: Annotated[Path | None, typer.Option(
               "--lora", metavar="DIR", help="merge a LoRA adapter")] = None,
           revision: Annotated[str | None, typer.Option(
               "--revision", metavar="NAME", help="of a name on the hub")] = None,
           truecaser: Annotated[Path | None, typer.Option(
               "--truecaser", metavar="FILE",
               help="put a truecaser (`lmfusion export-truecaser`) into the file")] = None,
           uncached: Annotated[bool, typer.Option(
               "--uncached", help="the plain form, for models that tree attention cannot hold; "
                                  "scored without a cache")] = False,
           no_tokenizer: Annotated[bool, typer.Option(
               "--no-tokenizer", help="leave it out; the scorer is then given a callable")] = False,
           gguf_pre: Annotated[str | None, typer.Option(
               "--gguf-pre", metavar="NAME",
               help="how a .gguf file that does not say so splits text: llama-bpe, qwen2, smollm, "
                    "gpt-2")] = None,
           license: Annotated[str, typer.Option(
               "--license", help="the model's licence, for the description")] = "",
           json_: AsJson = False) -> None:
    """Write a causal language model with its tokenizer as one file, after checking that it scores
    as the original does; print the path.
    """
    from lmfusion.exporter import export_folder
    from lmfusion.pretrained import source_folder
    path = export_folder(
        source_folder(source, revision), output, tokenizer=not no_tokenizer, gguf_pre=gguf_pre,
        lora=lora,
        truecaser=truecaser, uncached=uncached, license=license, progress=note)
    if json_:
        print_json({"path": str(path), "bytes": path.stat().st_size})
    else:
        print(path)
