"""Scores a text by the installed lmfusion and by plain Hugging Face; exits 1 where they differ."""

from __future__ import annotations

import sys

import lmfusion
import torch
import transformers
from lmfusion.default_model import source_gguf

TEXT = "The cat sat on the mat."
TOLERANCE = 1e-4  # nats a token


def main() -> int:
    weights = source_gguf()
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        weights.parent, gguf_file=weights.name, dtype=torch.float32).eval()
    scorer = lmfusion.LMFusionScorer(lmfusion.default_model())
    start = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    ids = [start, *tokenizer(TEXT, add_special_tokens=False)["input_ids"]]
    with torch.inference_mode():
        log_probs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    wanted = sum(log_probs[i, token].item() for i, token in enumerate(ids[1:]))
    [found] = scorer.score_texts([TEXT])
    print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, transformers "
          f"{transformers.__version__}: {found:.5f} nats, Hugging Face {wanted:.5f}")
    return int(abs(found - wanted) > TOLERANCE * (len(ids) - 1))


if __name__ == "__main__":
    sys.exit(main())
