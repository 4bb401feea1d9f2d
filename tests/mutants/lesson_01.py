"""Right and wrong answers to the exercises of lesson 01."""

from itertools import pairwise

from gptoss_jax.tokenizer import Tokenizer
from gptoss_jax.tokenizer.bpe import merge

TOKENIZER = Tokenizer.o200k_harmony()
ENCODED = TOKENIZER.encode(" experts")
BY_BYTE = [TOKENIZER.ranks[bytes([value])] for value in b" experts"]


def _join(choose, rounds=1000):
    def bpe(piece, ranks):
        parts = [bytes([value]) for value in piece]
        for _ in range(rounds):
            known = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
            if not known:
                break
            i = choose(known)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return [ranks[part] for part in parts]

    return bpe


def _longest(piece, ranks):
    out = []
    while piece:
        n = max(n for n in range(1, len(piece) + 1) if piece[:n] in ranks)
        out, piece = [*out, ranks[piece[:n]]], piece[n:]
    return out


def _as_bytes(piece, ranks):
    names = {rank: token for token, rank in ranks.items()}
    return [names[rank] for rank in merge(piece, ranks)]


def _kinds(tokenizer, ids):
    return len(set(tokenizer.special_tokens.values()) & set(ids))


ANSWERS = {
    "bpe_merge": {
        "right": [merge, _join(lambda known: min(known)[1])],
        "wrong": {
            "from-the-left": _join(lambda known: known[0][1]),
            "rightmost": _join(lambda known: min(known, key=lambda pair: (pair[0], -pair[1]))[1]),
            "one-round": _join(lambda known: min(known)[1], rounds=1),
            "bytes-returned": _as_bytes,
            "returns-nothing": lambda piece, ranks: None,
        },
        "blind": [
            ("from-the-left", _longest),
            ("wrong-shape", lambda piece, ranks: list(piece)),
            ("raises", lambda piece, ranks: [ranks[piece]]),
        ],
    },
    "two_spellings": {
        "right": [[BY_BYTE, ENCODED], (tuple(ENCODED), tuple(BY_BYTE))],
        "wrong": {
            "not-two": [ENCODED],
            "unknown-id": [ENCODED, [10**7]],
            "other-text": [ENCODED, TOKENIZER.encode("experts")],
            "same-twice": [ENCODED, ENCODED],
            "encoder-missing": [BY_BYTE, [TOKENIZER.ranks[b" "], *TOKENIZER.encode("experts")]],
        },
        "blind": [("not-two", ENCODED), ("other-text", [ENCODED, TOKENIZER.encode(" expert")])],
    },
    "count_controls": {
        "right": [lambda t, ids: sum(map(t.is_special, ids)), lambda t, ids: sum(i >= len(t.ranks) for i in ids)],
        "wrong": {
            "counts-names": lambda t, ids: sum(t.decode(ids).count(name) for name in t.special_tokens),
            "fixed-ids": lambda t, ids: sum(i >= 199_998 for i in ids),
            "counts-kinds": _kinds,
            "returns-nothing": lambda t, ids: None,
        },
        "blind": [("wrong-values", lambda t, ids: len(ids)), ("raises", lambda ids: 0)],
    },
}
