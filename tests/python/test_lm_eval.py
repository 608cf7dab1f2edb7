"""lm-eval with lmfusion, against lm-eval with its own "hf" on the same tasks of our own."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch

WORDS = "the cat and you sat on a mat in the other house while it rained over there".split()
KINDS = {
    "choices": ("multiple_choice", 'doc_to_text: "{{question}}"\ndoc_to_choice: "{{choices}}"\n'
                                   'doc_to_target: "{{answer}}"', ["acc", "acc_norm"]),
    "greedy": ("loglikelihood", 'doc_to_text: "{{question}}"\ndoc_to_target: "{{ending}}"',
               ["acc", "perplexity"]),
    "rolling": ("loglikelihood_rolling", 'doc_to_text: ""\ndoc_to_target: "{{text}}"',
                ["word_perplexity", "bits_per_byte"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a tiny model."""
    folder = tmp_path_factory.mktemp("model")
    tiny_models.build(tiny_models.TREE_CONFIGS["llama"]()).save_pretrained(folder)
    tiny_models.tiny_tokenizer(adds_bos=True).save_pretrained(folder)
    return folder


def test_a_model_needs_a_token_to_begin_with(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    from lmfusion.exporter import export
    from lmfusion.lm_eval.model import LMFusion
    model = tiny_models.build(tiny_models.TREE_CONFIGS["llama"]())
    tokenizer = tiny_models.tiny_tokenizer()
    for one in (model.config, model.generation_config, tokenizer):
        one.bos_token_id = one.eos_token_id = None
    with pytest.raises(ValueError, match="neither a start nor an end token"):
        LMFusion(str(export(model, tokenizer, tmp_path / "bare.lmf")))
    model.config.eos_token_id = 2
    begun = LMFusion(str(export(model, tokenizer, tmp_path / "ends.lmf")))
    assert begun.prefix_token_id == begun.eot_token_id == 2


@pytest.fixture(scope="module")
def tasks(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks: their documents and their .yaml files."""
    tasks = tmp_path_factory.mktemp("tasks")
    generator = random.Random(3)

    def text(count: int) -> str:
        return " ".join(generator.choice(WORDS) for _ in range(count))

    documents: list[dict[str, Any]] = []
    for i in range(12):
        question = text(6) + (" " if i % 4 == 0 else "")
        documents.append({"question": question if i else "", "text": text(10 + 8 * i),
                          "choices": [" " + text(4) for _ in range(4)], "answer": i % 4,
                          "ending": " " + text(1)})
    give_some_greedy_endings(folder, documents)
    (tasks / "documents.jsonl").write_text("\n".join(map(json.dumps, documents)))
    for name, (kind, fields, metrics) in KINDS.items():
        (tasks / f"{name}.yaml").write_text(f"""task: lmfusion_{name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{tasks / 'documents.jsonl'}"}}}}
test_split: test
output_type: {kind}
{fields}
target_delimiter: ""
metric_list: [{', '.join(f'{{metric: {metric}}}' for metric in metrics)}]
""")
    return tasks


def give_some_greedy_endings(folder: Path, documents: list[dict[str, Any]]) -> None:
    """Every third document ends in what the model would write, by transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for document in documents[1::3]:
        ids = tokenizer(document["question"].rstrip(), return_tensors="pt")["input_ids"]
        for token in model(ids).logits[0, -1].argsort(descending=True):
            ending = tokenizer.decode([int(token)])
            again = tokenizer(document["question"].rstrip() + ending)["input_ids"]
            if ending and again == [*ids[0].tolist(), int(token)]:
                document["ending"] = ending  # the first that is written as one token
                break


def run(name: str, model: Any, tasks: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tasks / "cache"))
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    return simple_evaluate(model=model, tasks=[f"lmfusion_{name}"], bootstrap_iters=0,
                           task_manager=TaskManager(include_path=str(tasks),
                                                    include_defaults=False), **more)


@pytest.mark.parametrize("max_length", [200, 24])
@pytest.mark.parametrize("name", KINDS)
def test_results_equal_those_of_hf(name: str, folder: Path, tasks: Path, max_length: int,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.models.huggingface import HFLM
    from lmfusion.lm_eval import LMFusion
    hf = HFLM(pretrained=str(folder), device="cpu", dtype="float32", max_length=max_length,
              batch_size=4)
    computed = 0
    forward = hf.model.forward

    def counted(input_ids: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
        nonlocal computed
        computed += input_ids.numel()
        return forward(input_ids, *arguments, **keywords)

    monkeypatch.setattr(hf.model, "forward", counted)
    ours = LMFusion(str(folder), max_length=max_length)
    shots = 3 if name == "choices" and max_length == 200 else 0
    expected, found = (run(name, model, tasks, monkeypatch, num_fewshot=shots)
                       for model in (hf, ours))
    task = f"lmfusion_{name}"
    for metric, value in expected["results"][task].items():
        if isinstance(value, float):
            assert found["results"][task][metric] == pytest.approx(value, rel=1e-4), metric
    assert len(found["samples"][task]) == 12
    for one, other in zip(found["samples"][task], expected["samples"][task]):
        for mine, theirs in zip(one["resps"], other["resps"]):
            mine, theirs = mine[0], theirs[0]
            if name == "rolling":
                assert mine == pytest.approx(theirs, abs=0.02)
            else:
                assert mine[0] == pytest.approx(theirs[0], abs=2e-3)
                assert mine[1] == theirs[1]
    if name == "greedy":
        greedy = [sample["resps"][0][0][1] for sample in found["samples"][task]]
        assert any(greedy) and not all(greedy)
    if shots:
        assert ours.scorer.stats().tokens_computed * 3 < computed


@pytest.mark.parametrize("command", ["lmfusion.lm_eval", "lm_eval"])
def test_the_command(command: str, folder: Path, tasks: Path, tmp_path: Path) -> None:
    """Ours with a task by its name; lm-eval's own with a task file that names us."""
    task, more = "lmfusion_choices", ["--include_path", tasks]
    if command == "lm_eval":
        file = tmp_path / "own.yaml"
        file.write_text((tasks / "choices.yaml").read_text()
                        + "process_docs: !function lmfusion.lm_eval.documents\n")
        task, more = str(file), []
    done = subprocess.run(
        [sys.executable, "-m", command, "--model", "lmfusion", "--model_args",
         f"pretrained={folder},max_length=200", "--tasks", task, *more,
         "--output_path", tmp_path / "out"],
        text=True, capture_output=True, check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1",
             "PYTHONPATH": str(Path(__file__).parents[2] / "python")})
    assert done.returncode == 0, done.stderr[-2000:]
    assert "lmfusion_choices" in done.stdout and "acc_norm" in done.stdout


def test_nothing_is_generated(folder: Path) -> None:
    from lmfusion.lm_eval import LMFusion
    model = LMFusion(str(folder))
    with pytest.raises(NotImplementedError, match="does not generate"):
        model.generate_until([])


def test_a_text_without_context_begins_as_in_hf(tmp_path: Path) -> None:
    """With the tokenizer's token, also where lmfusion's own start token is another one."""
    pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lmfusion.lm_eval import LMFusion
    tokenizer = tiny_models.tiny_tokenizer()
    tokenizer.bos_token = tokenizer.convert_ids_to_tokens(5)
    tiny_models.build(tiny_models.TREE_CONFIGS["llama"]()).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    hf, ours = HFLM(pretrained=str(tmp_path), device="cpu"), LMFusion(str(tmp_path))
    assert ours.prefix_token_id == hf.prefix_token_id == 5
    assert ours.scorer.description["bos_token_id"] != 5
    assert LMFusion(str(tmp_path), prefix_token_id=3).prefix_token_id == 3
