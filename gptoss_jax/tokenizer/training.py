"""Where a vocabulary comes from: join the most frequent neighbors, give the result the next rank, and repeat."""

import dataclasses
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise

from gptoss_jax.tokenizer.bpe import O200K_PATTERN, merge, split


@dataclasses.dataclass(frozen=True)
class Merge:
    """One step of training: `left` and `right` stood side by side `count` times and became one token."""

    rank: int
    left: bytes
    right: bytes
    count: int

    @property
    def token(self) -> bytes:
        return self.left + self.right


def learn_merges(texts: str | Iterable[str], pattern: str = O200K_PATTERN) -> Iterator[Merge]:
    """Yields merges from the most to the least useful, until no pair occurs twice.

    The parts of a word are at all times what `merge` makes of it with the ranks so far, so that encoding with the
    learned ranks gives exactly the parts seen here. Among equally frequent tokens the one with the smaller bytes wins.
    """
    words: Counter[bytes] = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        words.update(piece.encode() for piece in split(text, pattern))

    tokens = [bytes([value]) for value in range(256)]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    counts: Counter[bytes] = Counter()
    found_in: defaultdict[bytes, set[bytes]] = defaultdict(set)

    def pairs(word: bytes) -> list[tuple[bytes, bytes]]:
        parts = [tokens[rank] for rank in merge(word, ranks)]
        return list(pairwise(parts))

    for word, count in words.items():
        for left, right in pairs(word):
            counts[left + right] += count
            found_in[left + right].add(word)
    heap = [(-count, token) for token, count in counts.items()]
    heapq.heapify(heap)

    while heap:
        count, token = heapq.heappop(heap)
        if token in ranks or -count != counts[token]:
            continue  # an older count; the present one waits further down
        if -count < 2:
            return
        changed = found_in.pop(token)
        splits: Counter[tuple[bytes, bytes]] = Counter()
        stale: set[bytes] = set()
        old_pairs = {word: pairs(word) for word in changed}
        ranks[token] = len(tokens)
        tokens.append(token)
        for word, old in old_pairs.items():
            for left, right in old:
                counts[left + right] -= words[word]
                stale.add(left + right)
                if left + right == token:
                    splits[left, right] += words[word]
            for left, right in pairs(word):
                counts[left + right] += words[word]
                found_in[left + right].add(word)
                stale.add(left + right)
        for pair in stale:
            if counts[pair] > 0:
                heapq.heappush(heap, (-counts[pair], pair))
        left, right = min(splits, key=lambda pair: (-splits[pair], pair))
        yield Merge(ranks[token], left, right, -count)


def train(
    texts: str | Iterable[str], num_ranks: int, pattern: str = O200K_PATTERN
) -> tuple[dict[bytes, int], list[Merge]]:
    """Learns a vocabulary of `num_ranks` ordinary tokens: 256 bytes, then merges (fewer where the text runs out).

    Returns:
      The table token -> rank, ready for `Tokenizer(ranks, special_tokens)`, and the merges in order.
    """
    if num_ranks < 256:
        raise ValueError(f"num_ranks = {num_ranks}: a vocabulary holds at least the 256 single bytes")
    ranks = {bytes([value]): value for value in range(256)}
    steps = []
    for step in learn_merges(texts, pattern):
        if len(ranks) == num_ranks:
            break
        ranks[step.token] = step.rank
        steps.append(step)
    return ranks, steps
