"""Exercises of lesson 01, the tokenizer."""

from collections.abc import Callable, Mapping
from itertools import pairwise

from gptoss_jax.course.checks import Student, exercise
from gptoss_jax.tokenizer import Tokenizer, train
from gptoss_jax.tokenizer.bpe import merge

_TEXT = "the cat sat on the mat and the rat ate that; a banana, an ananas, aaaa aaaaaa bbbb abab ababab " * 9

Ranks = Mapping[bytes, int]


@exercise(
    "01",
    "bpe_merge",
    hints={
        "from-the-left": "you take what is known from left to right. Which of all known pairs is joined first?",
        "rightmost": "two pairs of the same rank: which of them is joined first?",
        "one-round": "after a merge there are new neighbors. When is the work done?",
        "bytes-returned": "the result should be ranks, numbers; these are the byte strings themselves.",
    },
)
def bpe_merge(student: Student) -> None:
    """Random pieces over a toy vocabulary of at most 300 merges, also ties, empty and single-byte pieces."""
    ranks, _ = train(_TEXT, 556)
    words = [word.encode() for word in _TEXT.split()]
    pieces = [b"", b"a", b"aaaaa", b"ababa"]
    for _ in range(40):
        pieces.append(b"".join(words[i] for i in student.rng.integers(0, len(words), 2)))
        pieces.append(bytes(student.rng.choice(list(b"abthe "), 9).tolist()))
    for piece in pieces:
        table = {token: rank for token, rank in ranks.items() if token != piece or len(piece) < 2}
        got = student.call(piece, dict(table))
        student.expect(isinstance(got, list | tuple), "wrong-type", f"{type(got).__name__} instead of a list")
        student.expect(not any(isinstance(part, bytes) for part in got), "bytes-returned")
        first, longest = _greedy(piece, table, lambda known: known[0][1]), _longest(piece, table)
        mistakes = {
            "from-the-left": longest if list(got) == longest else first,
            "rightmost": _greedy(piece, table, lambda known: min(known, key=lambda pair: (pair[0], -pair[1]))[1]),
            "one-round": _greedy(piece, table, lambda known: min(known)[1], rounds=1),
        }
        student.equal(list(got), merge(piece, table), mistakes, rtol=0)


def _greedy(piece: bytes, ranks: Ranks, choose: Callable[[list[tuple[int, int]]], int], rounds: int = 99) -> list[int]:
    parts = [bytes([value]) for value in piece]
    for _ in range(rounds):
        known = [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]
        if not known:
            break
        i = choose(known)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return [ranks[part] for part in parts]


def _longest(piece: bytes, ranks: Ranks) -> list[int]:
    out = []
    while piece:
        length = max(n for n in range(1, len(piece) + 1) if piece[:n] in ranks)
        out.append(ranks[piece[:length]])
        piece = piece[length:]
    return out


@exercise(
    "01",
    "two_spellings",
    hints={
        "not-two": "hand over two lists of ids: [first, second].",
        "unknown-id": "one of the ids is not in the vocabulary.",
        "other-text": "decode both lists: do both read ' experts', with the blank before it?",
        "same-twice": "the two lists are the same. The table holds shorter strings too.",
        "encoder-missing": "one of the two should be what `tokenizer.encode` gives.",
    },
)
def two_spellings(student: Student) -> None:
    """Two lists of ids for ' experts', the encoder's and another."""
    tokenizer = Tokenizer.o200k_harmony()
    answer = student.answer
    student.expect(isinstance(answer, list | tuple) and len(answer) == 2, "not-two")
    student.expect(all(isinstance(ids, list | tuple) for ids in answer), "not-two")
    student.expect(all(token in tokenizer for ids in answer for token in ids), "unknown-id")
    first, second = (list(ids) for ids in answer)
    student.expect(all(tokenizer.decode(ids) == " experts" for ids in (first, second)), "other-text")
    student.expect(first != second, "same-twice")
    student.expect(tokenizer.encode(" experts") in (first, second), "encoder-missing")


@exercise(
    "01",
    "count_controls",
    hints={
        "counts-names": "text that spells the name of a control token is no control token: look at ids, not at text.",
        "fixed-ids": "these ids are not those of gpt-oss: another vocabulary has its control tokens elsewhere.",
        "counts-kinds": "a control token that occurs twice counts twice.",
    },
)
def count_controls(student: Student) -> None:
    """Random ids in vocabularies of different sizes, with ordinary text that spells control tokens."""
    for _ in range(6):
        size = 256 + int(student.rng.integers(0, 40))
        table = {bytes([value]): value for value in range(256)}
        table |= {bytes([97, 98 + i]): 256 + i for i in range(size - 256)}
        names = ["<|start|>", "<|end|>", "<|message|>"]
        tokenizer = Tokenizer(table, {name: size + i for i, name in enumerate(names)}, engine="scratch")
        controls = [size + int(i) for i in student.rng.integers(0, 3, 5)] + [size]
        ids = [*tokenizer.encode_ordinary("say <|end|> abac "), *controls]
        text = tokenizer.decode(ids)
        student.equal(
            student.call(tokenizer, ids),
            len(controls),
            {
                "counts-names": sum(text.count(name) for name in names),
                "fixed-ids": sum(token >= 199_998 for token in ids),
                "counts-kinds": len(set(controls)),
            },
            rtol=0,
        )
