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


def best(encode: Callable[[str], list[int]], text: str, repeats: int) -> tuple[float, list[int]]:
    """The shortest time of several runs, and the tokens."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        tokens = encode(text)
        times.append(time.perf_counter() - start)
    return min(times), tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", type=Path, help="UTF-8 text instead of the repository's own prose")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()

    theirs = reference()
    fast, scratch = Tokenizer.o200k_harmony(), Tokenizer.o200k_harmony("scratch")
    texts = {"1 MB English": english(options.text), "1 MB 'a'": "a" * MEGABYTE, "1 MB '中'": "中" * (MEGABYTE // 3)}
    print(f"{platform.machine()}, Python {platform.python_version()}, tiktoken {tiktoken.__version__}\n")
    print(f"{'text':14}{'engine':22}{'seconds':>9}{'MB/s':>8}{'tokens':>10}{'x tiktoken':>12}")
    for name, text in texts.items():
        size = len(text.encode()) / MEGABYTE
        base, expected = best(theirs.encode, text, options.repeats)
        rows = [("tiktoken itself", base, expected)]
        rows += [("gptoss_jax", *best(fast.encode, text, options.repeats))]
        rows += [("gptoss_jax, scratch", *best(scratch.encode, text, 1))]
        for engine, seconds, tokens in rows:
            assert tokens == expected, f"{engine} gives other tokens on {name}"
            print(f"{name:14}{engine:22}{seconds:9.3f}{size / seconds:8.1f}{len(tokens):10,}{seconds / base:12.2f}")

    print("\nscratch, seconds for growing runs of one letter (linear: each row about twice the one above)")
    for length in (125_000, 250_000, 500_000, 1_000_000):
        seconds, _ = best(scratch.encode, "a" * length, 1)
        print(f"{length:10,}{seconds:9.3f}")


if __name__ == "__main__":
    main()
