"""`lmfusion export`: a Hugging Face model becomes one file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "export", help="write a Hugging Face model as one file",
        description="Writes a causal language model with its tokenizer as one file, after "
                    "checking that it scores as the original does.")
    parser.add_argument("source", type=Path, metavar="HF_FOLDER_OR_GGUF")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL.lmf")
    parser.add_argument("--lora", type=Path, metavar="DIR", help="merge a LoRA adapter")
    parser.add_argument("--truecaser", type=Path, metavar="FILE",
                        help="put a truecaser (`lmfusion export-truecaser`) into the file")
    parser.add_argument("--uncached", action="store_true",
                        help="the plain form, for models that tree attention cannot hold; "
                             "scored without a cache")
    parser.add_argument("--no-tokenizer", action="store_true",
                        help="leave it out; the scorer is then given a callable")
    parser.add_argument("--license", default="", help="the model's licence, for the description")
    parser.set_defaults(run=run, extra="export")


def run(arguments: argparse.Namespace) -> None:
    """Exports and prints the path."""
    from lmfusion.export import export_folder
    path = export_folder(
        arguments.source, arguments.output, tokenizer=not arguments.no_tokenizer,
        lora=arguments.lora, truecaser=arguments.truecaser, uncached=arguments.uncached,
        license=arguments.license,
        progress=lambda line: print(f"lmfusion: {line}", file=sys.stderr, flush=True))
    print(path)
