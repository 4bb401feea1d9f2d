"""From logits to a token: greedy, temperature, top-k, top-p.

Sources: Fan et al. 2018 (top-k), Holtzman et al. 2020 (top-p).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to pick a token; the fields are array leaves, so that changing one does not recompile.

    Attributes:
      temperature: divides the logits; 0 is greedy, the lowest id winning ties.
      top_k: keep the k most likely tokens; 0 keeps all.
      top_p: then keep the fewest tokens whose probabilities sum to at least this.
      seed: of the random numbers; a token depends on the seed, its row and its position alone.
    """

    temperature: Any = 0.0
    top_k: Any = 0
    top_p: Any = 1.0
    seed: Any = 0

    @classmethod
    def checked(
        cls, temperature: float = 0.0, top_k: int | None = None, top_p: float = 1.0, seed: int = 0
    ) -> "Sampling":
        """The only door for user input: an error names the field and its range."""
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature must be a finite number >= 0, not {temperature}")
        if not 0 < top_p <= 1:  # also refuses NaN
            raise ValueError(f"top_p must lie in (0, 1], not {top_p}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, or None to keep all tokens, not {top_k}")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed must lie in 0 .. 2^32 - 1, not {seed}")
        return cls(jnp.float32(temperature), jnp.int32(top_k or 0), jnp.float32(top_p), jnp.uint32(seed))


def keep_likely(logits_BV: Float[Array, "B V"], top_k: Any, top_p: Any) -> Float[Array, "B V"]:
    """Set the logits outside top-k and top-p to -inf; ties with the last token kept stay in."""
    falling = jnp.sort(logits_BV, axis=-1, descending=True)
    rank = jnp.arange(falling.shape[-1])
    falling = jnp.where(rank < jnp.where(top_k > 0, top_k, rank.size), falling, -jnp.inf)
    probs = jax.nn.softmax(falling, axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs  # probability of all more likely tokens
    last = jnp.sum((before < top_p) & (probs > 0), axis=-1, keepdims=True) - 1
    return jnp.where(logits_BV >= jnp.take_along_axis(falling, jnp.maximum(last, 0), axis=-1), logits_BV, -jnp.inf)


def sample(
    logits_BV: Float[Array, "B V"], positions_B: Int[Array, "B"], how: Sampling, num_tokens: int
) -> Int[Array, "B"]:
    """One token per row. Rows of the vocabulary from `num_tokens` on belong to no token and are never picked."""
    logits_BV = jnp.where(jnp.arange(logits_BV.shape[-1]) < num_tokens, logits_BV, -jnp.inf)

    def greedy() -> Array:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)

    def random() -> Array:
        scaled = logits_BV / jnp.maximum(how.temperature, 1e-6)
        all_tokens = (how.top_k <= 0) & (how.top_p >= 1)
        scaled = jax.lax.cond(all_tokens, lambda: scaled, lambda: keep_likely(scaled, how.top_k, how.top_p))

        def draw(row: Array, position: Array, logits: Array) -> Array:
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(how.seed), row), position)
            return jax.random.categorical(key, logits)

        return jax.vmap(draw)(jnp.arange(len(scaled)), positions_B, scaled).astype(jnp.int32)

    return jax.lax.cond(how.temperature == 0, greedy, random)
