"""The experts on an accelerator: all pairs of a token and one of its experts at once.

A GPU is idle while one pair waits for the next, so nothing here is a loop over experts. ``pairs`` serves decoding: one
fused program reads the packed bytes of every chosen expert, unpacks them in registers and multiplies. ``tiles`` serves
prompts: the pairs are sorted by expert, every expert's rows padded to whole tiles, and a batch of tiles goes through
the matrix units at a time. Both agree with `experts.dense` to rounding.

A byte of a packed row holds two neighboring inputs. They are never interleaved again: the inputs are split into even
and odd ones instead, which is one small array.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from gptoss_jax.config import ModelConfig
from gptoss_jax.experts import Experts, ExpertWeights, swiglu
from gptoss_jax.mxfp4 import MXArray
from gptoss_jax.norms import PRECISION
from gptoss_jax.router import Routing

PAIRS_UP_TO = 8  # tokens; beyond, an expert's weights are worth unpacking into memory
TILES_AT_ONCE = 8  # unpacked experts in memory together: 400 MB in bfloat16 at the published sizes
_HALF = np.int16(np.uint16(0x8E00).view(np.int16))  # where a float16 keeps a sign, two exponent bits, one mantissa bit
_SHIFT = 2.0**14  # a code in those bits is a float16 too small by 2^14


def codes(blocks: UInt8[Array, "... G 16"]) -> tuple[Float[Array, "... G 16"], Float[Array, "... G 16"]]:
    """Values of the even and of the odd inputs, float32, times 2^-14 and without their scale."""
    byte = blocks.astype(jnp.int16)
    values = []
    for top in (byte << 12, byte << 8):  # the code in bits 15 .. 12; an arithmetic shift then leaves the sign in place
        half = jax.lax.bitcast_convert_type((top >> 3) & _HALF, jnp.float16)
        values.append(half.astype(jnp.float32))
    return values[0], values[1]


def power(scales: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """float32 2^(scale - 127)."""
    return jax.lax.bitcast_convert_type(scales.astype(jnp.int32) << 23, jnp.float32)


def halves(x: Float[Array, "*P I"]) -> tuple[Float[Array, "*P G 16"], Float[Array, "*P G 16"]]:
    """Even and odd inputs, in the order of the bytes."""
    split = x.reshape(*x.shape[:-1], -1, 16, 2)
    return split[..., 0], split[..., 1]


def _packed(weights: ExpertWeights) -> tuple[MXArray, MXArray]:
    if not isinstance(weights.gate_up, MXArray) or not isinstance(weights.down, MXArray):
        raise TypeError(f"experts must be MXArray, the checkpoint's bytes, not {type(weights.gate_up).__name__}")
    return weights.gate_up, weights.down


def multiply_pairs(weight: MXArray, chosen_P: Int[Array, "P"], x_PI: Float[Array, "P I"]) -> Float[Array, "P O"]:
    """Row p times matrix ``chosen_P[p]``, float32: a product and a sum, which compile to one pass over the bytes.

    Products below float32's smallest normal number vanish: scales of 2^-112 and less count as zero.
    """
    even, odd = codes(weight.blocks[chosen_P])
    x_even, x_odd = halves(x_PI.astype(jnp.float32)[:, None])
    part = (even * x_even + odd * x_odd) * power(weight.scales[chosen_P])[..., None]
    return jnp.sum(part, axis=(-2, -1)) * _SHIFT


def pairs(x_TD: Float[Array, "T D"], routing: Routing, weights: ExpertWeights, config: ModelConfig, first: Any = 0):
    """Every chosen expert of every token, each read from the packed bytes."""
    T, X = routing.experts.shape
    gate_up, down = _packed(weights)
    chosen = first + jnp.minimum(routing.experts.reshape(-1), config.num_experts - 1)  # padding has weight 0
    x_PD = jnp.repeat(x_TD, X, axis=0)
    hidden = multiply_pairs(gate_up, chosen, x_PD) + weights.gate_up_bias[chosen].astype(jnp.float32)
    active = swiglu(hidden, config.swiglu_limit, config.swiglu_alpha)
    y_PD = multiply_pairs(down, chosen, active) + weights.down_bias[chosen].astype(jnp.float32)
    return jnp.sum(routing.weights[..., None] * y_PD.reshape(T, X, -1), axis=1).astype(x_TD.dtype)


def multiply_tiles(weight: MXArray, chosen_N: Int[Array, "N"], x_NRI: Float[Array, "N R I"]) -> Float[Array, "N R O"]:
    """The rows of tile n times matrix ``chosen_N[n]``, unpacked to the dtype of the rows; sums are float32."""
    scale = (power(weight.scales[chosen_N]) * _SHIFT)[..., None]
    unpacked = [
        (part * scale).astype(x_NRI.dtype).reshape(*part.shape[:2], -1) for part in codes(weight.blocks[chosen_N])
    ]
    rows = [part.reshape(*x_NRI.shape[:2], -1) for part in halves(x_NRI)]
    return jnp.einsum(
        "nri,noi->nro",
        jnp.concatenate(rows, axis=-1),
        jnp.concatenate(unpacked, axis=-1),
        precision=PRECISION,
        preferred_element_type=jnp.float32,
    )


def tile_rows(pairs_: int, experts: int) -> int:
    """Rows of a tile: the average load of an expert, as a power of two from 8 to 256."""
    return min(256, max(8, 1 << (pairs_ // experts).bit_length()))


def tiles(x_TD: Float[Array, "T D"], routing: Routing, weights: ExpertWeights, config: ModelConfig, first: Any = 0):
    """Sort by expert, fill whole tiles, multiply a batch of tiles at a time, and bring the rows back.

    The number of tiles is fixed by the shapes: as many as the pairs fill, and one more for every expert's last one. An
    expert id equal to E marks padding: it gets no tile.
    """
    (T, X), E = routing.experts.shape, config.num_experts
    gate_up, down = _packed(weights)
    P = T * X
    rows = tile_rows(P, E)
    batches = -(-(P // rows + min(E, P)) // TILES_AT_ONCE)
    count = batches * TILES_AT_ONCE
    chosen_P = routing.experts.reshape(-1)
    order = jnp.argsort(chosen_P, stable=True)
    load_E = jnp.bincount(chosen_P, length=E + 1)[:E]
    tiles_E = -(-load_E // rows)
    first_tile_E = jnp.cumsum(tiles_E) - tiles_E
    first_pair_E = jnp.cumsum(load_E) - load_E
    expert_N = jnp.minimum(jnp.searchsorted(jnp.cumsum(tiles_E), jnp.arange(count), side="right"), E - 1)
    row = jnp.arange(rows) + ((jnp.arange(count) - first_tile_E[expert_N]) * rows)[:, None]  # within the expert
    pair_NR = order[jnp.minimum(first_pair_E[expert_N][:, None] + row, P - 1)]

    def batch(_: None, scanned: tuple[Array, Array]) -> tuple[None, Array]:
        chosen, pair = first + scanned[0], scanned[1]
        hidden = multiply_tiles(gate_up, chosen, x_TD[pair // X])
        hidden = hidden + weights.gate_up_bias[chosen][:, None].astype(jnp.float32)
        active = swiglu(hidden, config.swiglu_limit, config.swiglu_alpha).astype(x_TD.dtype)
        y = multiply_tiles(down, chosen, active)
        return None, y + weights.down_bias[chosen][:, None].astype(jnp.float32)

    group = lambda leaf: leaf.reshape(batches, TILES_AT_ONCE, *leaf.shape[1:])
    _, y = jax.lax.scan(batch, None, (group(expert_N), group(pair_NR)))
    rank_P = jnp.argsort(order)  # of every pair among the sorted
    chosen_P = jnp.minimum(chosen_P, E - 1)  # padding has weight 0
    slot_P = first_tile_E[chosen_P] * rows + rank_P - first_pair_E[chosen_P]
    y_TXD = y.reshape(count * rows, -1)[slot_P].reshape(T, X, -1)
    return jnp.sum(routing.weights[..., None] * y_TXD, axis=1).astype(x_TD.dtype)


def batched(x_TD: Float[Array, "T D"], routing: Routing, weights: ExpertWeights, config: ModelConfig, first: Any = 0):
    """`pairs` or `tiles` by the number of tokens; arguments as for `experts.moe`, weights as the checkpoint's bytes."""
    serve = pairs if len(x_TD) <= PAIRS_UP_TO else tiles
    return serve(x_TD, routing, weights, config, first)


@dataclasses.dataclass(frozen=True)
class Batched:
    """A dispatch for `GptOss.run` on one accelerator."""

    config: ModelConfig

    def __call__(self, x_TD: Float[Array, "T D"], routing: Routing, experts: Experts, layer: Any) -> Array:
        """Sum over the chosen experts of weight times output; arguments as `model.Mlp` has them."""
        return batched(x_TD, routing, experts.weights(), self.config, layer * self.config.num_experts)
