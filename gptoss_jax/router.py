"""The router: which experts serve a token, and with what weight.

Source: openai/gpt-oss ``torch/model.py`` (FACTS 3.4).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from gptoss_jax.config import ModelConfig
from gptoss_jax.norms import Linear


class Routing(NamedTuple):
    """The router's answer for T tokens (any leading axes).

    Attributes:
      logits: float32 [..., T, E], bias included.
      experts: int32 [..., T, X], highest logit first; ties go to the lower id.
      weights: float32 [..., T, X], softmax over the chosen logits; rows sum to 1.
    """

    logits: Float[Array, "... T E"]
    experts: Int[Array, "... T X"]
    weights: Float[Array, "... T X"]


def choose(logits_TE: Float[Array, "... T E"], count: int) -> Routing:
    """Take the `count` highest logits, then softmax over these alone (not softmax first, then the highest)."""
    logits_TE = logits_TE.astype(jnp.float32)
    chosen, experts = jax.lax.top_k(logits_TE, count)
    return Routing(logits_TE, experts, jax.nn.softmax(chosen, axis=-1))


class Router(Linear):
    """Holds ``weight [L, E, D]`` and ``bias [L, E]``."""

    def __init__(self, config: ModelConfig, *, stack: tuple[int, ...], dtype: jnp.dtype, rngs: nnx.Rngs):
        super().__init__(config.hidden_size, config.num_experts, stack=stack, dtype=dtype, rngs=rngs)
        self.count = config.experts_per_token

    def __call__(self, x: Float[Array, "... D"]) -> Routing:  # type: ignore[override]
        return choose(super().__call__(x), self.count)
