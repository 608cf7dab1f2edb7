"""The benchmark that matters for a decoder with a GPU: what a rescoring of all beams takes.

Random-weight models of published shapes are built, exported without the check against eager
attention (tests do that), and asked what a beam search asks: every step, each of 1,000 beams with
3 candidate words. Beams die and branch, so most of their text is shared, as in a decoder.

    python bench/gpu.py --device cuda --models llama-1b llama-3b gemma-4b
    python bench/gpu.py --device cpu --models tiny --beams 8 --steps 4      # does it run?

Modes: tree, uncached and huggingface score the same paths; grouped runs one batch a context and
one a word, so it is timed on the first texts of a call and scaled. Every mode gets `--seconds`.
On a GPU the table has the most memory that torch took, of which the cache's limit is a part.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import lmfusion
import torch
import transformers
from lmfusion import LMFusionScorer
from lmfusion.exporter.container import write_model_file
from lmfusion.exporter.narrow import WeightTypes, narrow_weights
from lmfusion.exporter.replica import float32_replica
from lmfusion.exporter.tokenizer_file import read_tokenizer
from lmfusion.exporter.traced import describe_model, describe_trace, trace_tree
from lmfusion.memory import memory_plan

TokenPath = tuple[int, ...]
BOS = 1


def llama(**shape: int) -> transformers.PretrainedConfig:
    return transformers.LlamaConfig(tie_word_embeddings=True, bos_token_id=BOS, eos_token_id=2,
                                    max_position_embeddings=4096, **shape)


def gemma(**shape: int) -> transformers.PretrainedConfig:
    return transformers.Gemma3TextConfig(tie_word_embeddings=True, bos_token_id=BOS,
                                         eos_token_id=2, max_position_embeddings=4096, **shape)


CONFIGS = {
    "tiny": lambda: llama(hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                          num_attention_heads=4, num_key_value_heads=2, head_dim=64,
                          vocab_size=2000),
    "llama-1b": lambda: llama(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
                              num_attention_heads=32, num_key_value_heads=8, head_dim=64,
                              vocab_size=128256),
    "llama-3b": lambda: llama(hidden_size=3072, intermediate_size=8192, num_hidden_layers=28,
                              num_attention_heads=24, num_key_value_heads=8, head_dim=128,
                              vocab_size=128256),
    "gemma-4b": lambda: gemma(hidden_size=2560, intermediate_size=10240, num_hidden_layers=34,
                              num_attention_heads=8, num_key_value_heads=4, head_dim=256,
                              vocab_size=262208, sliding_window=1024),
    "tiny-gemma": lambda: gemma(hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                                num_attention_heads=4, num_key_value_heads=2, head_dim=64,
                                vocab_size=2000, sliding_window=8),
}


@dataclass
class Request:
    """One call: every path is a beam's text with one candidate word after it."""

    paths: list[TokenPath]
    scored_begin: list[int]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.paths))


def random_model(config: transformers.PretrainedConfig) -> transformers.PreTrainedModel:
    """Weights are copies of one small random block: filling 4 billion takes seconds.

    They are representable in bfloat16, as published weights are.
    """
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.to_empty(device="cpu")
    block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.fill_(0.0 if "Gemma" in type(model).__name__ else 1.0)
                continue
            flat = parameter.view(-1)
            scale = 2.0 ** round(math.log2(parameter.shape[-1] ** -0.5))
            for begin in range(0, flat.numel(), block.numel()):
                part = flat[begin:begin + block.numel()]
                part.copy_(block[:part.numel()] * scale)
    for module in model.modules():  # buffers that to_empty left unset
        if hasattr(module, "rope_init_fn") or "RotaryEmbedding" in type(module).__name__:
            module.__init__(config)
        if "ScaledWordEmbedding" in type(module).__name__:
            module.embed_scale = torch.tensor(config.hidden_size ** 0.5)
    model.tie_weights()
    return model.eval()


def export_unchecked(model: transformers.PreTrainedModel, path: Path) -> None:
    metadata = describe_model(model, None, read_tokenizer(None), "random", "")
    traced = trace_tree(float32_replica(model), types := WeightTypes())
    traced = replace(traced, stored=narrow_weights(traced.module, types))
    write_model_file(traced.module, describe_trace(metadata, traced).to_json(), {}, path)


def decoder_requests(beams: int, candidates: int, words: int, first: int, vocabulary: int,
                     seed: int = 0) -> Iterator[Request]:
    """A beam search over random words of 1 to 3 tokens, from `first` words on, without end."""
    generator = random.Random(seed)
    lexicon = [tuple(generator.randrange(3, vocabulary)
                     for _ in range(generator.choice((1, 1, 1, 2, 2, 3)))) for _ in range(5000)]
    trunk: TokenPath = (BOS,)
    for _ in range(first):
        trunk += generator.choice(lexicon)
    alive: list[tuple[float, TokenPath, int]] = [(0.0, trunk, first)]
    for _ in itertools.count():
        grown = []
        for score, path, length in alive:
            grown += [(score + generator.expovariate(1.0), path, length, generator.choice(lexicon))
                      for _ in range(candidates if len(alive) == beams else 4 * candidates)]
        yield Request([path + word for _, path, _, word in grown],
                      [len(path) for _, path, _, _ in grown])
        grown.sort(key=lambda item: item[0], reverse=True)
        alive = [(score, path + word, length + 1) for score, path, length, word in grown[:beams]]
        if alive[0][2] >= words:  # the next sentence
            alive = [(0.0, trunk, first)]


def recorded_requests(file: Path, candidates: int, vocabulary: int) -> Iterator[Request]:
    """A recorded decoder's calls; words become ids by a table, for a model without tokenizer."""
    ids: dict[str, int] = {}

    def tokens(text: str) -> TokenPath:
        return tuple(ids.setdefault(word, 3 + len(ids) % (vocabulary - 3)) for word in text.split())

    for line in file.read_text(encoding="utf-8").splitlines():
        call = json.loads(line)
        paths, begins = [], []
        for context, words in zip(call["contexts"], call["candidate_words"], strict=True):
            prefix = (BOS, *tokens(context))
            for word in words[:candidates]:
                paths.append(prefix + tokens(word))
                begins.append(len(prefix))
        yield Request(paths, begins)


def matrix_peak(device: str) -> float:
    """FLOP/s of a large bfloat16 matrix product on this device."""
    size = 8192 if device.startswith("cuda") else 512
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    wait(device)
    begin = time.perf_counter()
    for _ in range(10):
        a @ b
    wait(device)
    return 10 * 2 * size ** 3 / (time.perf_counter() - begin)


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def huggingface(model: transformers.PreTrainedModel, request: Request, device: str,
                batch: int = 128) -> None:
    """Padded batches of whole texts, log p of the candidate's tokens: the usual code."""
    order = sorted(range(len(request.paths)), key=lambda i: len(request.paths[i]))
    for begin in range(0, len(order), batch):
        rows = [request.paths[i] for i in order[begin:begin + batch]]
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows],
                            device=device)
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            picked = logits.gather(2, ids[:, 1:, None])[..., 0].float()
            (picked - logits.float().logsumexp(-1)).cpu()


TABLE_HEAD = ("| mode | calls timed | p50, ms | p99, ms | tokens asked/s | tokens computed/s "
              "| share of peak | most memory, MB |\n|---|---|---|---|---|---|---|---|")


@dataclass
class Row:
    """What one mode took: times are of calls; `scale` makes a part of a call a whole one."""

    mode: str
    seconds: list[float]
    requested: int  # tokens of all texts
    computed: int  # tokens that went through the model
    scale: float
    flops_per_token: float
    memory: int | None = None  # bytes

    def percentile(self, q: float) -> float:
        """Milliseconds of a whole call."""
        times = sorted(self.seconds)
        return times[min(len(times) - 1, int(q * len(times)))] * self.scale * 1e3

    def line(self, peak: float) -> str:
        """Of the table; `peak`: FLOP/s."""
        if not self.seconds:
            return f"| {self.mode} | 0 | - | - | - | - | - | - |"
        total = sum(self.seconds)
        share = self.computed * self.flops_per_token / total / peak
        memory = "-" if self.memory is None else f"{self.memory / 1e6:,.0f}"
        return (f"| {self.mode} | {len(self.seconds)} | {self.percentile(0.5):,.1f} "
                f"| {self.percentile(0.99):,.1f} | {self.requested / total:,.0f} "
                f"| {self.computed / total:,.0f} | {share:.1%} | {memory} |")


def forget_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: str) -> int | None:
    return torch.cuda.max_memory_reserved(device) if device.startswith("cuda") else None


def time_scorer(scorer: LMFusionScorer, mode: str, requests: list[Request], seconds: float,
                contexts: int | None, flops: float) -> Row:
    """A first request warms up; its sizes' recordings and libraries are not timed."""
    times, requested = [], 0
    scale = 1.0
    for i, request in enumerate(requests):
        if contexts is not None and len(request.paths) > contexts:
            scale = max(scale, len(request.paths) / contexts)
            request = Request(request.paths[:contexts], request.scored_begin[:contexts])
        if i == 1:
            scorer.reset_stats()
        begin = time.perf_counter()
        scorer.score_token_paths(request.paths, request.scored_begin)
        took = time.perf_counter() - begin
        if i == 0:
            continue
        times.append(took)
        requested += request.tokens
        if sum(times) > seconds:
            break
    stats = scorer.stats()
    return Row(mode if scale == 1 else f"{mode} (first {contexts} texts, scaled)", times, requested,
               stats.tokens_computed, scale, flops)


def time_huggingface(model: transformers.PreTrainedModel, device: str, requests: list[Request],
                     seconds: float, flops: float) -> Row:
    huggingface(model, requests[0], device)
    times, requested = [], 0
    for request in requests[1:]:
        wait(device)
        begin = time.perf_counter()
        huggingface(model, request, device)
        times.append(time.perf_counter() - begin)
        requested += request.tokens
        if sum(times) > seconds:
            break
    return Row("Hugging Face, padded batches", times, requested, requested, 1.0, flops)


def requests_for(config: transformers.PretrainedConfig,
                 options: argparse.Namespace) -> list[Request]:
    """`--steps` calls: the first calls of a file, or calls of a search whose beam is full."""
    if options.requests:
        stream = recorded_requests(options.requests, options.candidates, config.vocab_size)
        return list(itertools.islice(stream, options.steps))
    stream = decoder_requests(options.beams, options.candidates, options.words[1],
                              options.words[0], config.vocab_size)
    full = options.beams * options.candidates
    grown = itertools.dropwhile(lambda request: len(request.paths) < full, stream)
    return list(itertools.islice(grown, options.steps))


def time_mode(mode: str, path: Path, model: transformers.PreTrainedModel,
              requests: list[Request], options: argparse.Namespace, flops: float) -> Row:
    forget_peak(options.torch_device)
    if mode == "huggingface":
        narrow = model.to(options.torch_device, dtype=getattr(torch, options.hf_dtype))
        row = time_huggingface(narrow, options.torch_device, requests, options.seconds, flops)
        row.memory = peak_memory(options.torch_device)
        model.to("cpu")
        return row
    began = time.perf_counter()
    scorer = LMFusionScorer(path, device=options.device, compute=options.compute,
                            kv_dtype=options.kv_dtype, mode=mode,
                            kv_cache_bytes=options.kv_cache_bytes or "auto",
                            max_batch_tokens=options.max_batch_tokens)
    if mode == "tree":
        stats = scorer.stats()
        print(f"loaded in {time.perf_counter() - began:.0f} s; weights "
              f"{stats.weight_bytes / 1e6:,.0f} MB, cache limit "
              f"{stats.cache_bytes_limit / 1e6:,.0f} MB", flush=True)
    row = time_scorer(scorer, mode, requests, options.seconds,
                      16 if mode == "grouped" else None, flops)
    if mode == "tree":
        print(scorer.stats(), flush=True)
    row.memory = peak_memory(options.torch_device)
    return row


def benchmark(name: str, options: argparse.Namespace, peak: float) -> None:
    config = CONFIGS[name]()
    began = time.perf_counter()
    model = random_model(config)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    flops = 2.0 * parameters  # the tied table is used once, as the output matrix
    requests = requests_for(config, options)
    plan = memory_plan(description(config), contexts=1000, tokens=30, compute=options.compute,
                       kv_dtype=options.kv_dtype)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / f"{name}.lmf"
        export_unchecked(model, path)
        print(f"\n**{name}**: {parameters:,} parameters, {options.compute}, made in "
              f"{time.perf_counter() - began:.0f} s", flush=True)
        rows = [time_mode(mode, path, model, requests, options, flops) for mode in options.modes]
    sizes = [len(request.paths) for request in requests]
    tokens = [request.tokens for request in requests]
    print(f"{len(requests)} calls of {min(sizes):,} to {max(sizes):,} texts, {min(tokens):,} to "
          f"{max(tokens):,} tokens; plan of 1,000 beams x 30 tokens unshared: "
          f"{plan.cache_bytes / 1e6:,.0f} MB")
    print(f"\n{TABLE_HEAD}")
    for row in rows:
        print(row.line(peak), flush=True)


def description(config: transformers.PretrainedConfig) -> dict[str, int]:
    return {"layers": config.num_hidden_layers, "kv_heads": config.num_key_value_heads,
            "head_dim": config.head_dim, "hidden_size": config.hidden_size,
            "vocabulary_size": config.vocab_size}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    modes = ["tree", "grouped", "uncached", "huggingface"]
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help='"cuda", "cuda:N", "cpu" or "emulated"')
    parser.add_argument("--models", nargs="+", choices=list(CONFIGS), default=["llama-1b"])
    parser.add_argument("--modes", nargs="+", default=modes, choices=modes)
    parser.add_argument("--compute", default=None, help="default: bfloat16 on a device")
    parser.add_argument("--kv-dtype", default="auto")
    parser.add_argument("--kv-cache-bytes", type=int, default=None, help="default: auto")
    parser.add_argument("--beams", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=3)
    parser.add_argument("--words", type=int, nargs=2, default=(5, 30), metavar=("FIRST", "LAST"))
    parser.add_argument("--steps", type=int, default=60, help="calls made, at most")
    parser.add_argument("--seconds", type=float, default=10, help="of each mode")
    parser.add_argument("--max-batch-tokens", type=int, default=4096)
    parser.add_argument("--requests", type=Path, help="recorded calls (JSON lines) instead")
    parser.add_argument("--folder", default=None, help="for temporary model files")
    options = parser.parse_args(given)
    options.compute = options.compute or ("float32" if options.device == "cpu" else "bfloat16")
    options.torch_device = options.device if options.device.startswith("cuda") else "cpu"
    options.hf_dtype = "float32" if options.torch_device == "cpu" else "bfloat16"
    return options


def main() -> None:
    options = arguments()
    named = (torch.cuda.get_device_name(options.torch_device)
             if options.torch_device != "cpu" else platform.processor() or "CPU")
    peak = matrix_peak(options.torch_device)
    print(f"lmfusion {lmfusion.__version__}, torch {torch.__version__}, transformers "
          f"{transformers.__version__}; {named}, {os.cpu_count()} CPU cores; bfloat16 matrix "
          f"product {peak / 1e12:,.1f} TFLOP/s")
    for name in options.models:
        benchmark(name, options, peak)


if __name__ == "__main__":
    main()
