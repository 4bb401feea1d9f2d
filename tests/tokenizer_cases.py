"""Texts that tokenizers get wrong, random and hand-made, and tiktoken itself as the oracle."""

import gzip
import os
import random
from pathlib import Path
from typing import Any

import gptoss_jax

# Blocks of Unicode from which letters are drawn: scripts, marks, signs, blanks, control characters, private use.
BLOCKS = [
    (0x20, 0x7E), (0x41, 0x5A), (0x61, 0x7A), (0x30, 0x39), (0x00, 0x1F), (0x7F, 0xA0), (0xA1, 0xFF), (0x100, 0x24F),
    (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x530, 0x58F), (0x590, 0x5FF), (0x600, 0x6FF),
    (0x700, 0x7FF), (0x900, 0x97F), (0x980, 0xDFF), (0xE00, 0xEFF), (0xF00, 0xFFF), (0x1000, 0x109F), (0x10A0, 0x13FF),
    (0x1680, 0x169F), (0x1780, 0x18AF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x218F), (0x2190, 0x27BF),
    (0x2E80, 0x303F), (0x3040, 0x30FF), (0x3100, 0x31FF), (0x3200, 0x33FF), (0x4E00, 0x9FFF), (0xA000, 0xABFF),
    (0xAC00, 0xD7A3), (0xE000, 0xE100), (0xF900, 0xFB4F), (0xFB50, 0xFDFF), (0xFE00, 0xFE6F), (0xFF00, 0xFFFD),
    (0x10000, 0x103FF), (0x10400, 0x10FFF), (0x12000, 0x123FF), (0x1D100, 0x1D7FF), (0x1F000, 0x1F2FF),
    (0x1F300, 0x1FAFF), (0x20000, 0x20100), (0xE0000, 0xE01EF), (0xF0000, 0xF0010), (0x10FFF0, 0x10FFFF),
]  # fmt: skip
FRAGMENTS = [
    " ", "  ", "\n", "\r\n", "\t", "\n\n\n", " \n", "\u3000", "\u00a0", "\u2028", "\x1c", "\u200b", "\u180e", "'s",
    "'S", "'ſ", "'re", "'LL", "’s", "'", "don't", "I'd've", "1", "12", "1234567", "½", "Ⅷ", "٣", "...", "!?//", "/",
    "://", "--", "HTTPServer", "camelCase", "ÀÉ", "e\u0301", "\u0301", "👩‍🚀", "🇺🇸", "👍🏽", "日本語", "안녕", "नमस्ते",
    "<|start|>", "<|end|>", "<|endofprompt|>", "<|", "|>", "<|reserved_200018|>", "\x00", "\ufffd", "\ufeff", "ǅ", "ʰ",
]  # fmt: skip
HARD = [
    "", " ", "\n", " \n ", "   x", "x   ", " " * 1000 + "x", "\n" * 500, "a" * 5000, "A" * 5000, "1" * 5000, "!" * 5000,
    "\u0301" * 300, "ab" * 2500, "'s" * 1000, "\r\n" * 700, " \t" * 900, "😀" * 600, "中" * 900, "/" * 999,
    "\x00" * 300, "a\x1cb\x1fc", "\u200d" * 100, "aA" * 800, "Aa'sAa'S", "é" * 400,
]  # fmt: skip


def random_text(rng: random.Random) -> str:
    parts = []
    for _ in range(rng.randrange(14)):
        kind = rng.random()
        if kind < 0.45:
            parts.append(rng.choice(FRAGMENTS) * (1 if rng.random() < 0.9 else rng.randrange(40)))
        else:
            low, high = rng.choice(BLOCKS)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randrange(12))))
    return "".join(parts)


def official_tokenizer(folder: Path) -> Any:
    """tiktoken's own o200k_harmony, reading the rank table of this package from its cache folder: no network."""
    packed = Path(gptoss_jax.__file__).parent / "data" / "o200k_base.tiktoken.gz"
    (folder / "fb374d419588a4632f3f557e76b4b70aebbca790").write_bytes(gzip.decompress(packed.read_bytes()))
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    import tiktoken

    return tiktoken.get_encoding("o200k_harmony")
