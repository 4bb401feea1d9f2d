"""What every tokenizer is made of, and what a vocabulary has to fulfill."""

import dataclasses
from collections.abc import Mapping

from gptoss_jax.tokenizer.bpe import O200K_PATTERN


class VocabularyError(ValueError):
    """A vocabulary that cannot be used: the file or the token at fault, and what to do."""


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer is made of. Ranks are ids; several special names may share one id, the first one decodes it."""

    ranks: Mapping[bytes, int]
    special_tokens: Mapping[str, int]
    pattern: str = O200K_PATTERN


def check(ranks: Mapping[bytes, int], special_tokens: Mapping[str, int], where: str = "vocabulary") -> None:
    """Refuses gaps, duplicates, missing bytes and special tokens that collide with others."""
    by_rank = sorted((rank, token) for token, rank in ranks.items())
    for expected, (rank, token) in enumerate(by_rank):
        if rank < expected:
            raise VocabularyError(
                f"{where}: rank {rank} is given to two tokens, {by_rank[expected - 1][1]!r} and {token!r}"
            )
        if rank > expected:
            raise VocabularyError(f"{where}: ranks have a gap: {expected} is missing (next: {rank}, {token!r})")
    missing = [value for value in range(256) if bytes([value]) not in ranks]
    if missing:
        raise VocabularyError(
            f"{where}: {len(missing)} of the 256 single bytes have no rank (first: 0x{missing[0]:02X}), "
            "so not every text could be encoded"
        )
    for name, token_id in special_tokens.items():
        if not name:
            raise VocabularyError(f"{where}: a special token has an empty name (id {token_id})")
        if token_id < len(ranks):
            raise VocabularyError(
                f"{where}: special token {name!r} has id {token_id}, which belongs to an ordinary token; "
                f"special ids start at {len(ranks)}"
            )
