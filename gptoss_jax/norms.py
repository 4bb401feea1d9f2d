"""The three simplest pieces: root-mean-square norm, linear map, embedding and unembedding."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from gptoss_jax.lanes import DenseLanes, PackedLanes, widen

PRECISION = jax.lax.Precision.HIGHEST  # float32 products stay float32 where the hardware would round them (TF32)


def rms_norm(x: Float[Array, "... D"], scale: Float[Array, "D"], eps: float = 1e-5) -> Float[Array, "... D"]:
    """``scale * x / sqrt(mean(x^2) + eps)``, computed in float32, returned in the dtype of `x`.

    The scale multiplies before the cast back, unlike Llama's (FACTS 3.1). Source: Zhang and Sennrich 2019.
    """
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    return (wide * inverse * scale.astype(jnp.float32)).astype(x.dtype)


def linear(
    x: Float[Array, "... I"],
    weight: Float[Array, "O I"] | DenseLanes | PackedLanes,
    bias: Float[Array, "O"] | None = None,
) -> Float[Array, "... O"]:
    """``x @ weight.T + bias`` in the dtype of `x`; weights keep the checkpoint's ``[out, in]`` orientation.

    Matrices in the layout of `lanes`, which is for CPUs, bring their own product.
    """
    if isinstance(weight, DenseLanes | PackedLanes):
        y = weight.multiply(x).astype(x.dtype)
    else:
        y = jnp.einsum("...i,oi->...o", x, weight.astype(x.dtype), precision=PRECISION)
    return y if bias is None else y + bias.astype(x.dtype)


class RMSNorm(nnx.Module):
    """Holds ``scale``, float32 [*stack, D]."""

    def __init__(self, size: int, *, eps: float, stack: tuple[int, ...] = ()):
        self.scale = nnx.Param(jnp.ones((*stack, size), jnp.float32))
        self.eps = eps

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        return rms_norm(x, self.scale[...], self.eps)


class Linear(nnx.Module):
    """Holds ``weight [*stack, out, in]`` and ``bias [*stack, out]``."""

    def __init__(self, inputs: int, outputs: int, *, stack: tuple[int, ...], dtype: jnp.dtype, rngs: nnx.Rngs):
        self.weight = nnx.Param(normal(rngs, (*stack, outputs, inputs), dtype))
        self.bias = nnx.Param(normal(rngs, (*stack, outputs), dtype))

    def __call__(self, x: Float[Array, "... I"], layer: Any = 0) -> Float[Array, "... O"]:
        """`layer` is used only by weights in the layout of `lanes`, which stay in their stack."""
        weight = self.weight[...]
        return linear(x, DenseLanes(weight, layer) if weight.dtype == jnp.uint16 else weight, self.bias[...])


class Embedding(nnx.Module):
    """Holds ``weight [V, D]``: one row per token."""

    def __init__(self, vocab_size: int, hidden_size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.weight = nnx.Param(normal(rngs, (vocab_size, hidden_size), dtype))

    def __call__(self, tokens: Int[Array, "..."], dtype: jnp.dtype) -> Float[Array, "... D"]:
        rows = jnp.take(self.weight[...], tokens, axis=0)
        return (widen(rows) if rows.dtype == jnp.uint16 else rows).astype(dtype)


class Unembedding(nnx.Module):
    """Holds ``weight [V, D]``, not shared with the embedding and without a bias (FACTS 3.5)."""

    def __init__(self, vocab_size: int, hidden_size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.weight = nnx.Param(normal(rngs, (vocab_size, hidden_size), dtype))

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... V"]:
        weight = self.weight[...]
        lanes = weight.dtype == jnp.uint16
        return linear(x, DenseLanes(weight[None], 0) if lanes else weight).astype(jnp.float32)


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], dtype: jnp.dtype, std: float = 0.02) -> Float[Array, "..."]:
    """Random initial weights; 0.02 is the released configuration's ``initializer_range``."""
    return (std * jax.random.normal(rngs.params(), shape, jnp.float32)).astype(dtype)
