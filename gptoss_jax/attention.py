"""Grouped-query attention with a sliding window and attention sinks.

Sources: openai/gpt-oss ``torch/model.py`` (FACTS 3.3); Ainslie et al. 2023 (grouped queries).
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from gptoss_jax.config import ModelConfig
from gptoss_jax.norms import PRECISION, Linear, RMSNorm, normal
from gptoss_jax.rope import rotate


def attention_mask(
    query_positions: Int[Array, "B T"], key_positions: Int[Array, "B S"], window: int | None
) -> Bool[Array, "B T S"]:
    """Which keys each query sees: those at or before it and, with a window, at most ``window - 1`` before it.

    A window of 128 is 128 keys, the query's own included. A key position below 0 marks an empty or padded slot.
    """
    distance = query_positions[:, :, None] - key_positions[:, None, :]
    visible = (distance >= 0) & (key_positions >= 0)[:, None, :]
    return visible if window is None else visible & (distance < window)


def softmax_with_sink(scores: Float[Array, "*P S"], sink: Float[Array, "*P"]) -> Float[Array, "*P S"]:
    """Softmax over the scores and one learned extra score, whose share is then dropped: rows sum to less than 1."""
    sink = sink.astype(scores.dtype)[..., None]
    largest = jnp.maximum(jnp.max(scores, axis=-1, keepdims=True), sink)
    weights = jnp.exp(scores - largest)
    return weights / (jnp.sum(weights, axis=-1, keepdims=True) + jnp.exp(sink - largest))


def attend(
    query_BTKGH: Float[Array, "B T K G H"],
    key_BSKH: Float[Array, "B S K H"],
    value_BSKH: Float[Array, "B S K H"],
    sink_KG: Float[Array, "K G"],
    mask_BTS: Bool[Array, "B T S"],
) -> tuple[Float[Array, "B T K G H"], Float[Array, "B K G T S"]]:
    """Mix the values by softmax(q . k / sqrt(H)); every key/value head serves its G query heads.

    Scores and softmax are float32 whatever the dtype of the activations.

    Returns:
      The mixed values in the dtype of the query, and the attention probabilities, float32.
    """
    scale = query_BTKGH.shape[-1] ** -0.5
    scores = jnp.einsum(
        "BTKGH,BSKH->BKGTS", query_BTKGH, key_BSKH, precision=PRECISION, preferred_element_type=jnp.float32
    )
    scores = jnp.where(mask_BTS[:, None, None], scores * scale, -jnp.inf)
    probs = softmax_with_sink(scores, jnp.broadcast_to(sink_KG[None, :, :, None], scores.shape[:-1]))
    mixed = jnp.einsum("BKGTS,BSKH->BTKGH", probs.astype(value_BSKH.dtype), value_BSKH, precision=PRECISION)
    return mixed, probs


class Attention(nnx.Module):
    """The attention half of a block, weights stacked over layers.

    Holds ``norm.scale [L, D]``, ``qkv.weight [L, (KG + 2K) H, D]`` (rows: all queries, all keys, all values),
    ``qkv.bias``, ``sinks [L, KG]``, ``out.weight [L, D, KG H]`` and ``out.bias``.
    """

    def __init__(self, config: ModelConfig, *, stack: tuple[int, ...], dtype: jnp.dtype, rngs: nnx.Rngs):
        heads = config.num_attention_heads
        self.config = config
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, stack=stack)
        self.qkv = Linear(config.hidden_size, config.qkv_size, stack=stack, dtype=dtype, rngs=rngs)
        self.sinks = nnx.Param(normal(rngs, (*stack, heads), dtype))
        self.out = Linear(heads * config.head_dim, config.hidden_size, stack=stack, dtype=dtype, rngs=rngs)

    def project(
        self,
        x_BTD: Float[Array, "B T D"],
        cos: Float[Array, "B T half"],
        sin: Float[Array, "B T half"],
        layer: Any = 0,
    ) -> tuple[Float[Array, "B T K G H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
        """Normalize, project and rotate: query, key (both rotated) and value."""
        K, G, H = self.config.num_key_value_heads, self.config.group_size, self.config.head_dim
        B, T, _ = x_BTD.shape
        qkv = self.qkv(self.norm(x_BTD), layer).reshape(B, T, K * G + 2 * K, H)
        query, key, value = jnp.split(qkv, [K * G, K * G + K], axis=2)
        return rotate(query, cos, sin).reshape(B, T, K, G, H), rotate(key, cos, sin), value

    def __call__(
        self,
        query_BTKGH: Float[Array, "B T K G H"],
        key_BSKH: Float[Array, "B S K H"],
        value_BSKH: Float[Array, "B S K H"],
        mask_BTS: Bool[Array, "B T S"],
        layer: Any = 0,
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B K G T S"]]:
        """Attend and project back: what this layer adds to the residual stream, and the probabilities."""
        B, T, K, G, _ = query_BTKGH.shape
        mixed, probs = attend(query_BTKGH, key_BSKH, value_BSKH, self.sinks[...].reshape(K, G), mask_BTS)
        return self.out(mixed.reshape(B, T, -1), layer), probs
