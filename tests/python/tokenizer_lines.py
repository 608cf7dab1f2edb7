"""Lines of text for tokenizer tests: generated ones of every kind, and real ones where present."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"

WORDS = """the of and to a in that it is was he for on with as his they at be this have from or one
had by word but not what all were we when your can said there use an each which she do how their if
will up other about out many then them these so some her would make like him into time has look two
more write go see number no way could people my than first water been call who oil its now find long
down day did get come made may part over new sound take only little work know place year live me back
give most very after thing our just name good sentence man think say great where help through much
before line right too mean old any same tell boy follow came want show also around form three small
recognition decoder hypothesis unbelievable internationalization""".split()
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'\u017f", "n't", "'", "''"]
LOOK_ALIKES = ["<|endoftext|>", "<|im_start|>", "<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>",
               "<|begin_of_text|>", "<0x0A>", "[INST]", "<|endof", "<start_of_turn>", "<mask>",
               "<|extra|>", "<tool call>", "\u2581", "\u2581\u2581the", "\u0120the"]
SPACES = [" ", " ", " ", " ", "  ", "   ", "\n", "\n\n", " \n ", "\r\n", "\t", "\u00a0", "\u3000",
          "\u2028", "\u180e", "\u200b", "\x85", "\x0b", "\x0c", "\x1c", "     ", "\n \t\n"]
SCRIPTS = ["naïve", "café", "Straße", "Привет", "мир", "你好世界", "こんにちは", "안녕하세요", "שלום",
           "مرحبا", "हिन्दी", "ไทย", "ΑΣΦ", "İstanbul", "ǆ", "ﬁ", "①", "Ⅷ", "½", "²", "٣٤", "e\u0301",
           "\u1100\u1161\u11a8", "\u0344", "\u212b", "\u2126", "\u0958", "a\u0323\u0307",
           "a\u0307\u0323", "\ufb1d", "\u0f43", "\u037a", "\ufdfa", "\U0001d15e", "\u3164"]
EMOJI = ["🙂", "👍🏽", "👩‍👩‍👧", "🇩🇪", "❤️", "🏳️‍🌈", "⌚", "#️⃣"]
MARKS = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + ["...", "--", "—", "“", "”", "…", "¿", "«", "。"]


def random_character(rng: random.Random) -> str:
    """A character of any plane, assigned or not; never a surrogate."""
    plane = rng.choice([0, 0, 0, 1, 1, 2, 3, 14, 16])
    code = rng.choice([rng.randrange(0x10000), rng.randrange(0x3000)]) + (plane << 16)
    return "?" if 0xd800 <= code < 0xe000 else chr(code)


def word(rng: random.Random) -> str:
    text = rng.choice(WORDS)
    kind = rng.random()
    if kind < 0.15:
        return text.capitalize()
    if kind < 0.2:
        return text.upper()
    if kind < 0.3:
        return text + rng.choice(CONTRACTIONS)
    return text


def part(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.5:
        return word(rng)
    if kind < 0.6:
        return str(rng.randrange(10 ** rng.randrange(1, 12)))
    if kind < 0.68:
        return rng.choice(MARKS) * rng.randrange(1, 4)
    if kind < 0.78:
        return rng.choice(SCRIPTS)
    if kind < 0.83:
        return rng.choice(EMOJI)
    if kind < 0.9:
        return rng.choice(LOOK_ALIKES)
    if kind < 0.98:
        return "".join(random_character(rng) for _ in range(rng.randrange(1, 4)))
    return rng.choice("aZ0 .é\u0301") * rng.randrange(1, 60)


def odd_lines(count: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(0, 12)):
            parts += [part(rng), rng.choice(SPACES) if rng.random() < 0.8 else ""]
        yield rng.choice(["", "", " ", "\n"]) + "".join(parts)


def mixed_lines(count: int, seed: int) -> Iterator[str]:
    """Words and single spaces, with a few odd things among them."""
    rng = random.Random(seed)
    for _ in range(count):
        yield "".join((word(rng) if rng.random() < 0.8 else part(rng))
                      + (" " if rng.random() < 0.85 else rng.choice(SPACES + [""]))
                      for _ in range(rng.randrange(1, 12)))


def ordinary_lines(count: int, seed: int) -> Iterator[str]:
    """Lower-case words separated by single spaces, as decoders give them."""
    rng = random.Random(seed)
    for _ in range(count):
        yield " ".join(rng.choice(WORDS) + rng.choice(["", "", "", "'s", "'ll"])
                       for _ in range(rng.randrange(1, 15)))


def real_lines(limit: int) -> list[str]:
    """Texts of recorded decodes; empty where the data is not there."""
    lines: dict[str, None] = {}
    for path in sorted(SHARED_DATA.glob("requests_*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for row in map(json.loads, file):
                lines.update(dict.fromkeys(row.get("contexts", ()) or row.get("texts", ())))
                if len(lines) >= limit:
                    break
    return list(lines)[:limit]
