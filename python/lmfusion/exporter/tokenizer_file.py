"""The tokenizer of a bundle: the file the core reads, and the start token.

The core implements byte-level BPE and SentencePiece-style BPE (see include/lmfusion/tokenizer.h).
Whether it reads a tokenizer right is not assumed: its ids are compared with the original's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmfusion import _core
from lmfusion.errors import ExportError

WAY_OUT = ("The model can be exported without its tokenizer (tokenizer=None, or --no-tokenizer on "
           "the command line); the scorer is then given a Python callable, text -> token ids.")

SAMPLE_LINES = (
    "the quick brown fox jumps over the lazy dog",
    "I'd say you're right, aren't you? They've said so; we'll see, I'm sure.",
    " a leading space, two  spaces,   three, and trailing ones  ",
    "In 2024, 1,234.56 dollars (or 12%) at 07:30 on 3/4 were 100000 too many.",
    "Ünïcödé: naïve café, Straße, Ærø, œuvre, ½ ² ﬁ — “quotes” … ellipsis",
    "Привет, мир! 你好，世界。 こんにちは 안녕하세요 שלום مرحبا हिन्दी ไทย",
    "emoji 🙂👍🏽👩‍👩‍👧 and e\u0301 combined, zero\u200bwidth, nbsp\u00a0here",
    "CamelCase snake_case kebab-case http://example.com/a?b=c&d=e user@example.com",
    "tab\there, newline\nthere\n\nand there, #hashtag @mention $5 <not> [a] {b}",
    "uh um mhm okay o'clock rock'n'roll mother-in-law U.S.A. e.g. Mr. Smith's",
    "x", "", " ",
)


@dataclass(frozen=True)
class TokenizerFile:
    """A tokenizer as it is put into the archive."""

    name: str  # "tokenizer.json", "tokenizer.model", or "" for none
    content: bytes
    verified: bool  # the core's ids were compared with the original's


@dataclass(frozen=True)
class StartToken:
    """The token before every text."""

    token_id: int  # -1 = none
    source: str  # "tokenizer", "config", "eos", "none", or "measured" (start_token.py)
    tokenizer_adds_it: bool


def read_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> TokenizerFile:
    """Finds a form of the tokenizer that the core reads with the same ids.

    Raises:
        ExportError: the core reads no form of it; the text gives the core's reason.
    """
    if tokenizer is None:
        return TokenizerFile("", b"", verified=True)
    reasons = []
    for file in _forms(tokenizer):
        reason = _difference(file, tokenizer)
        if reason is None:
            return file
        reasons.append(reason if reason.startswith(file.name) else f"{file.name}: {reason}")
    kind = type(tokenizer).__name__
    why = "; ".join(reasons) or "it has neither a tokenizer.json form nor a SentencePiece model"
    way_out = "" if "--no-tokenizer" in why else f" {WAY_OUT}"  # which the core's reason may name
    raise ExportError(f"The tokenizer ({kind}) cannot be used by lmfusion's core: {why}.{way_out}")


def start_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None,
                vocabulary_size: int) -> StartToken:
    """The BOS the tokenizer adds itself; else the configuration's; else the tokenizer's; else EOS.

    Raises:
        ExportError: the tokenizer puts more than one token before a text.
    """
    added = _tokens_added_in_front(tokenizer)
    if len(added) > 1:
        raise ExportError(f"The tokenizer puts {len(added)} tokens before every text ({added}); "
                          f"the scorer has one start token. {WAY_OUT}")
    if added:
        return StartToken(added[0], "tokenizer", True)
    candidates = (
        ("config", model.config.get_text_config().bos_token_id),
        ("tokenizer", getattr(tokenizer, "bos_token_id", None)),
        ("eos", end_token(model, tokenizer)),
    )
    for source, token in candidates:
        if isinstance(token, int) and 0 <= token < vocabulary_size:
            return StartToken(token, source, False)
    return StartToken(-1, "none", False)


def end_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> int:
    """EOS of the configuration (the first of several), else of the tokenizer, else -1."""
    for token in (model.config.get_text_config().eos_token_id,
                  getattr(tokenizer, "eos_token_id", None)):
        if isinstance(token, (list, tuple)) and token:
            token = token[0]
        if isinstance(token, int):
            return token
    return -1


def original_ids(tokenizer: PreTrainedTokenizerBase, line: str) -> list[int]:
    """A line's ids by the original tokenizer, without start or end token."""
    return list(tokenizer(line, add_special_tokens=False)["input_ids"])


def _forms(tokenizer: PreTrainedTokenizerBase) -> list[TokenizerFile]:
    forms = []
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        forms.append(("tokenizer.json", backend.to_str().encode()))
    vocabulary_file = getattr(tokenizer, "vocab_file", None)
    if vocabulary_file and Path(vocabulary_file).suffix == ".model" \
            and Path(vocabulary_file).is_file():
        forms.append(("tokenizer.model", Path(vocabulary_file).read_bytes()))
    if hasattr(tokenizer, "sentencepiece_model"):  # of a GGUF file
        forms.append(("tokenizer.model", tokenizer.sentencepiece_model))
    verified = hasattr(_core, "Tokenizer")
    return [TokenizerFile(name, content, verified) for name, content in forms]


def _difference(file: TokenizerFile, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Why the core cannot use a file in place of the original tokenizer; None if it can."""
    if not file.verified:
        return None
    try:
        if file.name == "tokenizer.json":
            core = _core.Tokenizer.from_json(file.content.decode())
        else:
            core = _core.Tokenizer.from_sentencepiece(file.content)
    except _core.TokenizerError as error:
        return str(error)
    for line in SAMPLE_LINES:
        wanted, got = original_ids(tokenizer, line), list(core.encode(line))
        if wanted != got:
            return f"{line!r} has the ids {wanted}, the core finds {got}"
    return None


def _tokens_added_in_front(tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    if tokenizer is None:
        return []
    bare = original_ids(tokenizer, "a")
    full = list(tokenizer("a")["input_ids"])
    for start in range(len(full) - len(bare) + 1):
        if full[start:start + len(bare)] == bare:
            return full[:start]
    return []
