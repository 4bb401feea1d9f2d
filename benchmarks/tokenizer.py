"""Throughput of both engines of the tokenizer beside tiktoken's own, in the same run, on the same texts.

    python benchmarks/tokenizer.py [--text FILE] [--repeats 5]

The figure to look at is the last column: seconds divided by tiktoken's seconds.
"""

import argparse
import base64
import gzip
import hashlib
import platform
import time
from collections.abc import Callable
from pathlib import Path

import tiktoken

import gptoss_jax
from gptoss_jax.tokenizer import Tokenizer

REPOSITORY = Path(__file__).parents[1]
MEGABYTE = 1_000_000


def english(path: Path | None) -> str:
    """One megabyte of prose: the given file, or the license and the documents of this repository again and again."""
    paths = [path] if path else [REPOSITORY / "LICENSE", *sorted((REPOSITORY / "docs").glob("*.md"))]
    text = "\n".join(p.read_text(encoding="utf-8") for p in paths).replace("<|", "< |")
    return (text * (MEGABYTE // len(text) + 1))[:MEGABYTE]


def reference() -> tiktoken.Encoding:
    """tiktoken's own object, from ranks that are read here."""
    packed = Path(gptoss_jax.__file__).parent / "data" / "o200k_base.tiktoken.gz"
    table = gzip.decompress(packed.read_bytes())
    assert hashlib.sha256(table).hexdigest().startswith("446a9538")
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in table.splitlines())}
    ours = Tokenizer.o200k_harmony()
    special = dict(ours.special_tokens)
    return tiktoken.Encoding("reference", pat_str=ours.pattern, mergeable_ranks=ranks, special_tokens=special)


def race(engines: dict[str, Callable[[str], list[int]]], text: str, repeats: int) -> dict[str, float]:
    """Shortest processor time of each engine, in turns so that all meet the same conditions; all must agree."""
    times = dict.fromkeys(engines, float("inf"))
    expected: list[int] = []
    for turn in range(repeats):
        for name, encode in engines.items():
            if name.endswith("scratch") and turn:
                continue
            start = time.process_time()
            tokens = encode(text)
            times[name] = min(times[name], time.process_time() - start)
            expected = expected or tokens
            assert tokens == expected, f"{name} gives other tokens"
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, help="UTF-8 text instead of the repository's own prose")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    theirs = reference()
    fast, scratch = Tokenizer.o200k_harmony(), Tokenizer.o200k_harmony("scratch")
    texts = {"1 MB English": english(options.text), "1 MB 'a'": "a" * MEGABYTE, "1 MB '中'": "中" * (MEGABYTE // 3)}
    print(f"{platform.machine()}, Python {platform.python_version()}, tiktoken {tiktoken.__version__}\n")
    engines = {"tiktoken itself": theirs.encode, "gptoss_jax": fast.encode, "gptoss_jax, scratch": scratch.encode}
    print(f"{'text':14}{'engine':22}{'seconds':>9}{'MB/s':>8}{'x tiktoken':>12}")
    for name, text in texts.items():
        size = len(text.encode()) / MEGABYTE
        times = race(engines, text, options.repeats)
        for engine, seconds in times.items():
            print(f"{name:14}{engine:22}{seconds:9.3f}{size / seconds:8.1f}{seconds / times['tiktoken itself']:12.2f}")

    print("\nscratch: seconds for growing runs of one letter (linear: each row about twice the one above)")
    for length in (125_000, 250_000, 500_000, 1_000_000):
        seconds = race({"gptoss_jax, scratch": scratch.encode}, "a" * length, 1)
        print(f"{length:10,}{seconds['gptoss_jax, scratch']:9.3f}")


if __name__ == "__main__":
    main()
