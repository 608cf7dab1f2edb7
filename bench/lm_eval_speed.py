"""lm-eval with --model lmfusion beside --model hf: few-shot prompts, four long choices.

    python bench/lm_eval_speed.py [--documents 24] [--shots 8] [--words 24] [--model FOLDER]
                                  [--batch-sizes 1 4 8 16]

A Markdown table: seconds of each (loading left out), tokens that went through the model, accuracy,
and the largest difference of a log-likelihood. "hf" gets the batch size that is the fastest on the
first documents. The default model is written as a Hugging Face folder first.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lmfusion.lm_eval import LMFusion
from sentences import SENTENCES

TASK = """task: choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{documents}", train: "{documents}"}}}}
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Which follows? {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
fewshot_config: {{sampler: first_n}}
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=24)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--words", type=int, default=24, help="of a choice, about")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 8, 16],
                        help="of hf, the best of which is taken")
    parser.add_argument("--tune", type=int, default=4, help="documents that choose it")
    parser.add_argument("--model", type=Path, help="a Hugging Face folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        model = arguments.model or default_folder(folder / "model")
        write_task(folder, arguments)
        batch_size = best_batch_size(model, folder, arguments)
        results = [run(f"hf, batch size {batch_size}", hf(model, batch_size), folder, arguments),
                   run("lmfusion", LMFusion(str(model)), folder, arguments)]
    print("| model | seconds | tokens computed | acc | acc_norm | largest difference, nats |")
    print("|---|---|---|---|---|---|")
    largest = max(abs(one - other) for one, other in zip(results[0]["scores"],
                                                         results[1]["scores"]))
    for result, difference in zip(results, ("", f"{largest:.1e}")):
        print(f"| {result['name']} | {result['seconds']:.1f} | {result['tokens']:,} | "
              f"{result['acc']:.3f} | {result['acc_norm']:.3f} | {difference} |")
    print(f"\n{results[0]['seconds'] / results[1]['seconds']:.1f} times as fast, "
          f"{results[0]['tokens'] / results[1]['tokens']:.1f} times fewer tokens")


def default_folder(folder: Path) -> Path:
    """The default model as transformers writes it."""
    from lmfusion.default_model import source_gguf
    from lmfusion.exporter.sources import load_model, load_tokenizer
    load_model(source_gguf()).save_pretrained(folder)
    load_tokenizer(source_gguf()).save_pretrained(folder)
    return folder


def write_task(folder: Path, arguments: argparse.Namespace) -> None:
    """Sentences in their own order are right, shuffled ones are wrong."""
    generator = random.Random(0)
    documents = []
    for i in range(arguments.documents):
        right = ""
        while len(right.split()) < arguments.words:
            right += " " + generator.choice(SENTENCES)
        choices = [" " + " ".join(generator.sample(right.split(), len(right.split())))
                   for _ in range(4)]
        choices[i % 4] = right
        documents.append({"question": generator.choice(SENTENCES), "choices": choices,
                          "answer": i % 4})
    file = folder / "documents.jsonl"
    file.write_text("\n".join(map(json.dumps, documents)))
    (folder / "choices.yaml").write_text(TASK.format(documents=file))


def hf(model: Path, batch_size: int) -> HFLM:
    """lm-eval's own, which counts the tokens of its forward passes."""
    lm = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=batch_size)
    lm.tokens = 0

    def count(module: Any, given: Any, named: Any) -> None:
        lm.tokens += (given[0] if given else named["input_ids"]).numel()

    lm.model.register_forward_pre_hook(count, with_kwargs=True)
    return lm


def best_batch_size(model: Path, folder: Path, arguments: argparse.Namespace) -> int:
    """The fastest on the first documents."""
    sizes = arguments.batch_sizes
    if len(sizes) == 1:
        return sizes[0]
    seconds = {}
    for size in sizes:
        seconds[size] = run("hf", hf(model, size), folder, arguments, arguments.tune)["seconds"]
        print(f"batch size {size}: {seconds[size]:.1f} s for {arguments.tune} documents",
              file=sys.stderr, flush=True)
    return min(seconds, key=seconds.__getitem__)


def run(name: str, lm: Any, folder: Path, arguments: argparse.Namespace,
        documents: int | None = None) -> dict[str, Any]:
    begin = time.monotonic()
    with torch.inference_mode():
        found = simple_evaluate(
            model=lm, tasks=["choices"], num_fewshot=arguments.shots, bootstrap_iters=0,
            limit=documents,
            task_manager=TaskManager(include_path=str(folder), include_defaults=False))
    seconds = time.monotonic() - begin
    computed = lm.tokens if isinstance(lm, HFLM) else lm.scorer.stats().tokens_computed
    result = found["results"]["choices"]
    return {"name": name, "seconds": seconds, "tokens": computed, "acc": result["acc,none"],
            "acc_norm": result["acc_norm,none"],
            "scores": [response[0][0] for sample in found["samples"]["choices"]
                       for response in sample["resps"]]}


if __name__ == "__main__":
    main()
