"""Both engines against tiktoken: 10,000 random and adversarial texts, all characters, linear time."""

import random
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import regex
import tiktoken
from tokenizer_cases import FRAGMENTS, HARD, official_tokenizer, random_text

from gptoss_jax.tokenizer import Tokenizer
from gptoss_jax.tokenizer.bpe import as_of_unicode_16, merge, merge_steps, split


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return official_tokenizer(tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("engine", ["tiktoken", "scratch"])
def test_equal_on_ten_thousand_texts(official: Any, engine: Any) -> None:
    tokenizer = Tokenizer.o200k_harmony(engine)
    rng = random.Random(20261122)
    texts = [*HARD, *FRAGMENTS, *(random_text(rng) for _ in range(10_000))]
    for text in texts:
        ids = tokenizer.encode(text, disallowed_special=())
        assert ids == official.encode(text, disallowed_special=()), ascii(text)
        assert tokenizer.decode(ids) == text, ascii(text)


@pytest.mark.parametrize("engine", ["tiktoken", "scratch"])
def test_equal_with_special_tokens(official: Any, engine: Any) -> None:
    tokenizer = Tokenizer.o200k_harmony(engine)
    rng = random.Random(5)
    names = ["<|start|>", "<|end|>", "<|endofprompt|>", "<|reserved_200018|>"]
    for _ in range(1000):
        text = "".join(rng.choice([*names, random_text(rng)]) for _ in range(4))
        allowed = rng.choice(["all", set(rng.sample(names, 2)), set()])
        ids = tokenizer.encode(text, allowed_special=allowed, disallowed_special=())
        assert ids == official.encode(text, allowed_special=allowed, disallowed_special=())


@pytest.mark.parametrize("category", ["Lu", "Lt", "Lm", "Lo", "Ll", "M", "N", "White_Space"])
def test_every_character_belongs_where_tiktoken_puts_it(category: str) -> None:
    """All of Unicode, whichever version `regex` knows: tiktoken drops what its pattern does not match."""
    letters = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    pattern = rf"\p{{{category}}}"
    alone = tiktoken.Encoding(
        category, pat_str=pattern, mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    theirs = alone.decode(alone.encode_ordinary(letters))
    ours = "".join(letters[match.start()] for match in regex.finditer(pattern, as_of_unicode_16(letters)))
    assert ours == theirs


def test_pruned_vocabulary_equals_tiktoken_on_the_same_ranks() -> None:
    """A few thousand o200k tokens numbered anew, digits single: what a small model uses."""
    full = Tokenizer.o200k_harmony()
    kept = [token for token in full.ranks if len(token) == 1 or (len(token) < 6 and not token.strip().isdigit())][:4096]
    ranks = {token: i for i, token in enumerate(kept)}
    special = {f"<|{name}|>": len(ranks) + i for i, name in enumerate(["start", "end", "message"])}
    fast = Tokenizer(ranks, special)
    scratch = Tokenizer(ranks, special, engine="scratch")
    rng = random.Random(9)
    for text in [*HARD, *(random_text(rng) for _ in range(1500))]:
        ids = fast.encode(text, disallowed_special=())
        assert ids == scratch.encode(text, disallowed_special=())
        assert fast.decode(ids) == text
    assert len(fast.encode("12345")) == 5
    assert fast.encode("<|end|>", allowed_special="all") == [len(ranks) + 1]


def naive_merge(piece: bytes, ranks: Any) -> Iterator[list[bytes]]:
    """The rule as it is told: join the leftmost pair of lowest rank, again and again."""
    parts = [piece[i : i + 1] for i in range(len(piece))]
    yield list(parts)
    while pairs := [(ranks[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in ranks]:
        _, i = min(pairs)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
        yield list(parts)


def test_merge_follows_the_rule_step_by_step() -> None:
    ranks = Tokenizer.o200k_harmony().ranks
    rng = random.Random(3)
    for _ in range(600):
        piece = "".join(rng.choices("abcinotert -日é", k=rng.randint(1, 24))).encode()
        expected = list(naive_merge(piece, ranks))
        assert list(merge_steps(piece, ranks)) == expected
        assert merge(piece, ranks) == ([ranks[piece]] if piece in ranks else [ranks[part] for part in expected[-1]])


def test_merge_with_ranks_that_are_no_training_order() -> None:
    """A low rank that only a higher one makes possible must still be found, at the right moment."""
    rng = random.Random(4)
    for _ in range(2000):
        tokens = {bytes(rng.choices(b"ab", k=rng.randint(2, 6))) for _ in range(12)}
        table = [b"a", b"b", *sorted(tokens, key=lambda _: rng.random())]
        ranks = {token: i for i, token in enumerate(table)}
        piece = bytes(rng.choices(b"ab", k=rng.randint(1, 30)))
        whole = [ranks[piece]] if piece in ranks else [ranks[part] for part in list(naive_merge(piece, ranks))[-1]]
        assert merge(piece, ranks) == whole


def test_splitting_loses_nothing() -> None:
    rng = random.Random(6)
    for _ in range(500):
        text = random_text(rng)
        assert "".join(split(text)) == text
    assert list(split("It's 2026, world  !\n")) == ["It's", " ", "202", "6", ",", " world", " ", " !\n"]


@pytest.mark.parametrize("engine", ["tiktoken", "scratch"])
@pytest.mark.parametrize("text", ["a", " ", "x\n", "é"], ids=ascii)
def test_linear_time(engine: Any, text: str) -> None:
    """Four times the text takes about four times as long, never sixteen (n log n and noise: 8 at most)."""
    tokenizer = Tokenizer.o200k_harmony(engine)

    def seconds(n: int) -> float:
        start = time.process_time()
        tokenizer.encode(text * (n // len(text)))
        return time.process_time() - start

    seconds(1000)
    small = min(seconds(40_000) for _ in range(3))
    large = min(seconds(160_000) for _ in range(2))
    assert large < max(8 * small, 0.02), (small, large)


@pytest.mark.parametrize(("engine", "letter"), [("tiktoken", "a"), ("tiktoken", " "), ("scratch", "a")])
def test_a_million_letters_and_a_million_blanks(engine: Any, letter: str) -> None:
    """tiktoken's own regular expression engine gives up on a million blanks; `encode` does not."""
    tokenizer = Tokenizer.o200k_harmony(engine)
    text = letter * 1_000_000
    start = time.process_time()
    ids = tokenizer.encode(text)
    assert time.process_time() - start < 10
    assert tokenizer.decode(ids) == text
