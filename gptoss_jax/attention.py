"""Grouped-query attention with a sliding window and attention sinks.

Sources: openai/gpt-oss ``torch/model.py`` (FACTS 3.3); Ainslie et al. 2023 (grouped queries).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from gptoss_jax.config import ModelConfig
from gptoss_jax.norms import PRECISION, Linear, RMSNorm, normal
from gptoss_jax.rope import rotate

BLOCK = 512  # keys that `attend_by_blocks` takes at a time


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


def attend_by_blocks(
    query_BTKGH: Float[Array, "B T K G H"],
    key_LBSKH: Float[Array, "L B S K H"],
    value_LBSKH: Float[Array, "L B S K H"],
    layer: Any,
    sink_KG: Float[Array, "K G"],
    query_positions: Int[Array, "B T"],
    filled: Int[Array, ""],
    block: int = BLOCK,
) -> Float[Array, "B T K G H"]:
    """`attend` over layer `layer` of a cache whose slot s holds position s, a block of keys at a time.

    Time follows the `filled` slots instead of the cache's length, and memory holds the scores of one block. What has
    been mixed so far is kept with its largest score and the sum of its weights, and rescaled when a larger score
    comes. The sink is where this starts: a score whose weight goes to no value. Sources: Milakov and Gimelshein 2018
    (running softmax), Dao et al. 2022 (FlashAttention).
    """
    B, T, K, G, H = query_BTKGH.shape
    block = min(block, key_LBSKH.shape[2])
    query = query_BTKGH.astype(jnp.float32) * H**-0.5

    def add(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        mixed, largest, total = state
        start = jnp.minimum(i * block, key_LBSKH.shape[2] - block)  # the last block reaches back over slots seen before
        read = lambda store: jax.lax.dynamic_slice(store, (layer, 0, start, 0, 0), (1, B, block, K, H))[0]
        position = start + jnp.arange(block)
        visible = (position <= query_positions[..., None]) & (position >= i * block)
        scores = jnp.einsum("BTKGH,BSKH->BKGTS", query, read(key_LBSKH).astype(jnp.float32), precision=PRECISION)
        scores = jnp.where(visible[:, None, None], scores, -jnp.inf)
        new = jnp.maximum(largest, jnp.max(scores, axis=-1))
        weights, kept = jnp.exp(scores - new[..., None]), jnp.exp(largest - new)
        added = jnp.einsum("BKGTS,BSKH->BKGTH", weights, read(value_LBSKH).astype(jnp.float32), precision=PRECISION)
        return mixed * kept[..., None] + added, new, total * kept + jnp.sum(weights, axis=-1)

    sink = jnp.broadcast_to(sink_KG.astype(jnp.float32)[None, :, :, None], (B, K, G, T))
    start = (jnp.zeros((B, K, G, T, H), jnp.float32), sink, jnp.ones((B, K, G, T), jnp.float32))
    mixed, _, total = jax.lax.fori_loop(0, (filled + block - 1) // block, add, start)
    return jnp.einsum("BKGTH->BTKGH", mixed / total[..., None]).astype(query_BTKGH.dtype)


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

    def over_cache(
        self,
        query_BTKGH: Float[Array, "B T K G H"],
        key_LBSKH: Float[Array, "L B S K H"],
        value_LBSKH: Float[Array, "L B S K H"],
        index: Any,
        query_positions: Int[Array, "B T"],
        filled: Int[Array, ""],
        layer: Any = 0,
    ) -> Float[Array, "B T D"]:
        """The same with keys and values that stay in the cache; `index` is this layer's place in it."""
        B, T, K, G, _ = query_BTKGH.shape
        sinks = self.sinks[...].reshape(K, G)
        mixed = attend_by_blocks(query_BTKGH, key_LBSKH, value_LBSKH, index, sinks, query_positions, filled)
        return self.out(mixed.reshape(B, T, -1), layer)
