"""Rotary position embedding with YaRN's interpolation by parts.

Sources: Su et al. 2021 (rotary embedding), Peng et al. 2023 (YaRN), openai/gpt-oss ``torch/model.py`` (FACTS 3.2).
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gptoss_jax.config import ModelConfig


def yarn_bounds(config: ModelConfig) -> tuple[float, float]:
    """Indices (low, high) of the pairs between which YaRN blends; for gpt-oss 8.0928 and 17.3980, never rounded.

    Pair i turns ``context / (2 pi theta^(2i/H))`` times over the original context; `low` is where that count falls to
    ``rope_beta_fast`` and `high` where it falls to ``rope_beta_slow``. Both are kept inside 0 .. H - 1.
    """
    half = config.head_dim / 2

    def pair_that_turns(times: float) -> float:
        return half * math.log(config.rope_original_context / (times * 2 * math.pi)) / math.log(config.rope_theta)

    low = max(pair_that_turns(config.rope_beta_fast), 0.0)
    high = min(pair_that_turns(config.rope_beta_slow), config.head_dim - 1.0)
    return low, high if high > low else low + 1e-3


def inverse_frequencies(config: ModelConfig) -> np.ndarray:
    """Radians per position of every rotated pair, float64 [H / 2].

    Pairs that turn often within the original context keep their frequency, those that hardly turn are slowed by
    ``rope_factor``, and a linear ramp blends the ones between.
    """
    half = config.head_dim // 2
    plain = config.rope_theta ** (-np.arange(half) / half)
    if config.rope_factor <= 1.0:
        return plain
    low, high = yarn_bounds(config)
    ramp = np.clip((np.arange(half) - low) / (high - low), 0.0, 1.0)
    return plain / config.rope_factor * ramp + plain * (1.0 - ramp)


def concentration(config: ModelConfig) -> float:
    """YaRN's factor on cosine and sine, ``0.1 ln(factor) + 1`` (so queries . keys grow by its square)."""
    return 0.1 * math.log(config.rope_factor) + 1.0 if config.rope_factor > 1.0 else 1.0


def rotary_table(
    positions: Int[Array, "*P"], config: ModelConfig, dtype: jnp.dtype = jnp.float32
) -> tuple[Float[Array, "*P half"], Float[Array, "*P half"]]:
    """Cosine and sine ``[*positions, H / 2]``: angles in float32, concentration applied, then cast (FACTS 3.2)."""
    angle = positions[..., None].astype(jnp.float32) * jnp.asarray(inverse_frequencies(config), jnp.float32)
    scale = jnp.float32(concentration(config))
    return (jnp.cos(angle) * scale).astype(dtype), (jnp.sin(angle) * scale).astype(dtype)


def rotate(
    x: Float[Array, "*P heads H"], cos: Float[Array, "*P half"], sin: Float[Array, "*P half"]
) -> Float[Array, "*P heads H"]:
    """Turn each pair (x_i, x_{i + H/2}) by its angle; halves, not neighbors, form the pairs."""
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = cos[..., None, :], sin[..., None, :]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
