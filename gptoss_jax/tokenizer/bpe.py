"""Byte-pair encoding from scratch: cut the text into pieces, then join the bytes of each piece pair by pair.

A vocabulary is a table from byte strings to *ranks*: a low rank was learned early and is joined first. Two steps make
token ids of a text, and neither knows anything of a model:

1. `split` cuts the text with a regular expression into words, numbers, punctuation and blanks. No token ever
   crosses such a border.
2. `merge` starts from the single bytes of a piece and joins the adjacent pair of lowest rank, the leftmost on ties,
   until no pair is in the table.

This is the rule of tiktoken; `gptoss_jax.Tokenizer` runs either this code or tiktoken's own engine on the same table.
"""

import functools
import heapq
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import regex

_UNASSIGNED = Path(__file__).parent.parent / "data" / "unicode-16.0-unassigned.txt"

LETTER_START = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LETTER_END = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"

O200K_PATTERN = "|".join(
    [
        rf"{LETTER_START}*{LETTER_END}+{CONTRACTION}",  # word, maybe with one sign before it: " Hello", "(it's"
        rf"{LETTER_START}+{LETTER_END}*{CONTRACTION}",  # word in capitals: "HTTP", " IT'S"
        r"\p{N}{1,3}",  # up to three digits
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",  # punctuation, with the line ends that follow
        r"\s*[\r\n]+",  # blanks up to the last line end
        r"\s+(?!\S)",  # blanks, leaving one for the next word
        r"\s+",
    ]
)
"""How o200k cuts text: the first alternative that matches wins (tiktoken, openai_public.py, o200k_base)."""


def split(text: str, pattern: str = O200K_PATTERN) -> Iterator[str]:
    """Cuts a text into the pieces that tokens never cross.

    >>> list(split("It's 2026, world"))
    ["It's", ' ', '202', '6', ',', ' world']
    """
    cut_here = text if text.isascii() else as_of_unicode_16(text)
    return (text[slice(*match.span())] for match in regex.compile(pattern).finditer(cut_here))


def as_of_unicode_16(text: str) -> str:
    """A text of equal length in which characters that Unicode 16.0 did not know are noncharacters.

    What is a letter depends on the version of Unicode: tiktoken 0.14 goes by 16.0, while `regex` follows the newest.
    For 17,144 characters of Unicode 17 and 18 the two would cut a text differently, hence give other token ids.
    """
    return _later_characters().sub("\ufdd0", text).replace("\u0295", "\u0250")  # U+0295 was a lowercase letter then


@functools.cache
def _later_characters() -> re.Pattern[str]:
    ranges = [[chr(int(code, 16)) for code in entry.split("-")] for entry in _UNASSIGNED.read_text("ascii").split()]
    return re.compile("[" + "".join(f"{re.escape(entry[0])}-{re.escape(entry[-1])}" for entry in ranges) + "]")


def merge_steps(piece: bytes, ranks: Mapping[bytes, int]) -> Iterator[list[bytes]]:
    """Yields the parts of a piece before the first merge and after every merge: the picture behind `merge`."""
    cuts = list(range(len(piece) + 1))
    yield [piece[a:b] for a, b in pairwise(cuts)]
    for cut in _joined_cuts(piece, ranks):
        cuts.remove(cut)
        yield [piece[a:b] for a, b in pairwise(cuts)]


def merge(piece: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """Joins the bytes of one piece into tokens: lowest rank first, leftmost on ties.

    Takes O(n log n) steps for n bytes, whatever the bytes are.

    Args:
      piece: UTF-8 bytes.
      ranks: byte string -> rank, all 256 single bytes among them.

    Returns:
      The ranks of the tokens, which are their ids.
    """
    if (whole := ranks.get(piece)) is not None:
        return [whole]
    cuts = bytearray(b"\1") * (len(piece) + 1)
    for cut in _joined_cuts(piece, ranks):
        cuts[cut] = 0
    tokens, start = [], 0
    while start < len(piece):
        stop = cuts.index(1, start + 1)
        tokens.append(ranks[piece[start:stop]])
        start = stop
    return tokens


def _joined_cuts(piece: bytes, ranks: Mapping[bytes, int]) -> Iterator[int]:
    """The places between two bytes where parts are joined, in the order of joining.

    The parts form a linked list over their start positions. Each adjacent pair waits in a heap under the number
    rank * n + start, so that the smallest number is the lowest rank and, among equals, the leftmost. A pair whose
    parts have changed since is still in the heap; its rank no longer agrees with `pair_rank`, and it is passed over.
    """
    n = len(piece)
    stop = list(range(1, n + 1))  # stop[start] is where the part at `start` ends: the start of the next part
    before = list(range(-1, n))  # before[start] is the start of the part before
    pair_rank: list[int | None] = [ranks.get(piece[i : i + 2]) for i in range(n - 1)]
    pair_rank.append(None)
    heap = [rank * n + start for start, rank in enumerate(pair_rank) if rank is not None]
    heapq.heapify(heap)

    while heap:
        rank, start = divmod(heapq.heappop(heap), n)
        if pair_rank[start] != rank:
            continue
        cut = stop[start]
        stop[start] = end = stop[cut]
        before[end] = start
        pair_rank[cut] = None
        yield cut
        pair_rank[start] = new = ranks.get(piece[start : stop[end]]) if end < n else None
        if new is not None:
            heapq.heappush(heap, new * n + start)
        if (left := before[start]) >= 0:
            pair_rank[left] = new = ranks.get(piece[left:end])
            if new is not None:
                heapq.heappush(heap, new * n + left)


def encode(text: str, ranks: Mapping[bytes, int], pattern: str = O200K_PATTERN) -> list[int]:
    """Token ids of a text in which nothing is special."""
    tokens: list[int] = []
    for piece in split(text, pattern):
        tokens.extend(merge(piece.encode(), ranks))
    return tokens
