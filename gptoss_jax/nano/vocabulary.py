"""A small vocabulary made of real o200k tokens: the ones the corpus uses most, closed under their merges.

Every token keeps its bytes and its rank order, so that byte-pair encoding with the pruned ranks is the big tokenizer
with most of its merges left out, and a table leads from each small id to the true o200k id. Tokens of several digits
are left out on purpose: numbers split into single digits, which written-out arithmetic needs.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence

from gptoss_jax.tokenizer import Tokenizer

FIRST_SPECIAL_O200K = 199_998
SPECIALS = {
    "<|startoftext|>": 199_998,
    "<|endoftext|>": 199_999,
    "<|return|>": 200_002,
    "<|constrain|>": 200_003,
    "<|channel|>": 200_005,
    "<|start|>": 200_006,
    "<|end|>": 200_007,
    "<|message|>": 200_008,
    "<|call|>": 200_012,
    "<|endofprompt|>": 200_018,
}  # the rest of 199,998 .. 200,018 is reserved
NUM_SPECIALS = 21
HARMONY_WORDS = "assistant user system developer analysis final comment ary functions json Reasoning low medium high"


def special_tokens() -> dict[str, int]:
    """The 21 special tokens of o200k_harmony, name -> o200k id."""
    named = {value: key for key, value in SPECIALS.items()}
    ids = range(FIRST_SPECIAL_O200K, FIRST_SPECIAL_O200K + NUM_SPECIALS)
    return {named.get(i, f"<|reserved_{i}|>"): i for i in ids}


def halves(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """The two tokens whose merge forms `token`: byte-pair encoding with every rank below its own."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        rank, i = min((ranks.get(parts[i] + parts[i + 1], 1 << 30), i) for i in range(len(parts) - 1))
        if rank >= ranks[token]:
            raise ValueError(f"{token!r} is not a merge of two tokens of lower rank")
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def closure(token: bytes, ranks: Mapping[bytes, int], have: set[bytes]) -> set[bytes]:
    """What must join `have` so that merges can build `token`."""
    missing, stack = set(), [token]
    while stack:
        part = stack.pop()
        if part in have or part in missing:
            continue
        missing.add(part)
        if len(part) > 1:
            stack += halves(part, ranks)
    return missing


def prune(ranks: Mapping[bytes, int], counts: collections.Counter[int], size: int) -> list[bytes]:
    """The `size` tokens that serve the counted text best, in the order of their ranks.

    Args:
      ranks: o200k, bytes -> rank.
      counts: how often each rank occurs in the text that the small model will read.
      size: tokens to keep; the 256 bytes and the words of Harmony are always among them.
    """
    by_rank = {rank: token for token, rank in ranks.items()}
    kept = {by_rank[rank] for rank in range(256)}
    for word in HARMONY_WORDS.split():
        for spelled in (word.encode(), b" " + word.encode()):
            if spelled in ranks:
                kept |= closure(spelled, ranks, kept)
    if len(kept) > size:
        raise ValueError(f"size {size} is too small: bytes and Harmony's words take {len(kept)} tokens")
    for rank, _ in counts.most_common():
        token = by_rank[rank]
        if len(token) > 1 and token.isdigit():
            continue
        extra = closure(token, ranks, kept)
        if len(kept) + len(extra) <= size:
            kept |= extra
        if len(kept) == size:
            break
    return sorted(kept, key=ranks.__getitem__)


def tokenizer(tokens: Sequence[bytes]) -> Tokenizer:
    """The tokenizer of a pruned vocabulary: tokens in the order of their ranks, special tokens behind them."""
    special = {name: len(tokens) + i for i, name in enumerate(special_tokens())}
    return Tokenizer({token: i for i, token in enumerate(tokens)}, special, name="nano")


def o200k_ids(small: Tokenizer) -> list[int]:
    """The o200k_harmony id of every id of a pruned vocabulary."""
    big = Tokenizer.o200k_harmony()
    ordinary = [big.ranks[token] for token in sorted(small.ranks, key=small.ranks.__getitem__)]
    special = sorted(small.special_tokens, key=small.special_tokens.__getitem__)
    return ordinary + [big.special_tokens[name] for name in special]


def build(texts: Iterable[str], size: int) -> Tokenizer:
    """Count the o200k tokens of the texts and keep the `size` that serve them best."""
    big = Tokenizer.o200k_harmony()
    counts: collections.Counter[int] = collections.Counter()
    for text in texts:
        counts.update(big.encode_ordinary(text))
    return tokenizer(prune(big.ranks, counts, size))
