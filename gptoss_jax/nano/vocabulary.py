"""A small vocabulary made of real o200k tokens: the ones the corpus uses most, closed under their merges.

Every token keeps its bytes and its rank order, so that byte-pair encoding with the pruned ranks is the big tokenizer
with most of its merges left out, and a table leads from each small id to the true o200k id. Tokens of several digits
are left out on purpose: numbers split into single digits, which written-out arithmetic needs.
"""

import collections
import json
from collections.abc import Iterable, Mapping
from typing import Any

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
ALWAYS = [
    "assistant",
    "user",
    "system",
    "developer",
    "analysis",
    "final",
    "comment",
    "ary",
    "functions",
    "json",
    "Reasoning",
    "low",
    "medium",
    "high",
]


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
    for word in ALWAYS:
        for spelled in (word.encode(), b" " + word.encode()):
            if spelled in ranks:
                kept |= closure(spelled, ranks, kept)
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


def byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte in ``tokenizer.json``, as GPT-2 introduced it."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in visible}
    hidden = [byte for byte in range(256) if byte not in letters]
    return letters | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


def tokenizer_json(tokens: Iterable[bytes], pattern: str) -> dict[str, Any]:
    """The Hugging Face ``tokenizer.json`` of a pruned vocabulary, special tokens behind the ordinary ones.

    Every pair of tokens whose concatenation is a token is a merge, in the order of the result, which is what encoding
    by ranks means.
    """
    tokens = list(tokens)
    letters = byte_letters()
    spell = lambda token: "".join(letters[byte] for byte in token)
    have, position = set(tokens), {token: i for i, token in enumerate(tokens)}
    merges = []
    for token in tokens:
        splits = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in have and token[i:] in have]
        merges += [[spell(a), spell(b)] for a, b in sorted(splits, key=lambda s: (position[s[0]], position[s[1]]))]
    added = [
        {"id": len(tokens) + i, "content": name, "special": True, "normalized": False}
        | dict.fromkeys(("lstrip", "rstrip", "single_word"), False)
        for i, name in enumerate(special_tokens())
    ]
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": level,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {spell(token): i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def write(path: Any, fields: dict[str, Any]) -> None:
    """Write ``tokenizer.json`` with one entry a line, so that a change of vocabulary is a readable change."""
    with open(f"{path}.partial", "w", encoding="utf-8") as file:
        json.dump(fields, file, ensure_ascii=False, separators=(",", ":"))
    import os

    os.replace(f"{path}.partial", path)
