"""The experts: clamped SwiGLU over packed weights, and three ways to dispatch tokens to them.

``dense`` runs every expert on every token and is the definition; ``gather`` unpacks only the chosen experts, one
(token, expert) pair after another, and serves decoding; ``scan`` visits every expert once and multiplies just the
tokens routed to it, few of them one by one and many in tiles, and serves prompts. They agree to rounding.

Sources: openai/gpt-oss ``torch/model.py`` (FACTS 3.4); Shazeer 2020 (SwiGLU).
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gptoss_jax.config import MXFP4_GROUP, ModelConfig
from gptoss_jax.lanes import PackedLanes
from gptoss_jax.mxfp4 import BYTES, MXArray
from gptoss_jax.norms import linear, normal
from gptoss_jax.router import Routing

Dispatch = Literal["auto", "dense", "gather", "scan"]
GATHER_UP_TO = 8  # tokens; beyond, visiting every expert once is cheaper than unpacking per token
TILE = 128  # tokens that share one matrix product in `scan`, at most
FEW = 6  # a matrix product of `PackedLanes` takes as long as so many vectors, and one more for every 8 of its rows


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ExpertWeights:
    """Experts along the leading axis; it may hold several layers' experts one after another.

    Attributes:
      gate_up: `MXArray` [N, 2F, D], or `PackedLanes`; even rows are the gate, odd rows the up projection.
      gate_up_bias: [N, 2F].
      down: `MXArray` [N, D, F], or `PackedLanes`.
      down_bias: [N, D].
    """

    gate_up: MXArray | PackedLanes
    gate_up_bias: Any
    down: MXArray | PackedLanes
    down_bias: Any

    def __getitem__(self, index: Any) -> "ExpertWeights":
        return ExpertWeights(self.gate_up[index], self.gate_up_bias[index], self.down[index], self.down_bias[index])


def swiglu(gate_up: Float[Array, "... FF"], limit: float = 7.0, alpha: float = 1.702) -> Float[Array, "... F"]:
    """``gate * sigmoid(alpha * gate) * (up + 1)`` of interleaved gate and up values.

    The gate is clamped from above only, the up value on both sides, both before use.
    """
    gate = jnp.minimum(gate_up[..., 0::2], limit)
    up = jnp.clip(gate_up[..., 1::2], -limit, limit)
    return gate * jax.nn.sigmoid(alpha * gate) * (up + 1)


def unpacked(weight: Any, dtype: Any) -> Any:
    """A matrix that `linear` multiplies: the values of an `MXArray`. `PackedLanes` unpack themselves on the way."""
    return weight.dequantize(dtype) if isinstance(weight, MXArray) else weight


def expert(x: Float[Array, "... D"], weights: ExpertWeights, config: ModelConfig) -> Float[Array, "... D"]:
    """One expert (weights without the leading axis) on any number of tokens."""
    hidden = linear(x, unpacked(weights.gate_up, x.dtype), weights.gate_up_bias)
    active = swiglu(hidden, config.swiglu_limit, config.swiglu_alpha)
    return linear(active, unpacked(weights.down, x.dtype), weights.down_bias)


def dense(x_TD: Float[Array, "T D"], routing: Routing, weights: ExpertWeights, config: ModelConfig, first: Any = 0):
    """Every expert on every token, then the weighted sum: the definition in two lines."""
    y_ETD = jax.lax.map(lambda e: expert(x_TD, weights[first + e], config), jnp.arange(config.num_experts))
    weight_TE = jnp.sum(jax.nn.one_hot(routing.experts, config.num_experts) * routing.weights[..., None], axis=1)
    return jnp.einsum("TE,ETD->TD", weight_TE, y_ETD.astype(jnp.float32), precision="highest").astype(x_TD.dtype)


def gather(x_TD: Float[Array, "T D"], routing: Routing, weights: ExpertWeights, config: ModelConfig, first: Any = 0):
    """Unpack the X chosen experts of each token, one at a time."""
    T, X = routing.experts.shape

    def add_pair(y_TD: Array, pair: Array) -> tuple[Array, None]:
        t, rank = pair // X, pair % X
        y_D = expert(x_TD[t], weights[first + routing.experts[t, rank]], config)
        return y_TD.at[t].add(routing.weights[t, rank] * y_D.astype(jnp.float32)), None

    y_TD, _ = jax.lax.scan(add_pair, jnp.zeros(x_TD.shape, jnp.float32), jnp.arange(T * X))
    return y_TD.astype(x_TD.dtype)


def scan(x_TD: Float[Array, "T D"], routing: Routing, weights: ExpertWeights, config: ModelConfig, first: Any = 0):
    """Visit every expert once; it multiplies the tokens routed to it, a tile of them at a time or one by one.

    The (token, expert) pairs are sorted by expert, so that one expert's tokens are neighbors. Its last tile runs on
    into the next expert's rows, which that one overwrites. An expert id equal to E marks padding: it sorts behind all
    experts and is never computed.
    """
    (T, X), E, D = routing.experts.shape, config.num_experts, x_TD.shape[1]
    tile = min(T * X, max(8, -(-3 * T * X // (2 * E * 8)) * 8), TILE)  # half again the average load of an expert
    chosen = routing.experts.reshape(-1)
    order = jnp.argsort(chosen, stable=True)
    x = jnp.pad(x_TD[order // X], ((0, tile), (0, 0)))
    ends = jnp.cumsum(jnp.bincount(chosen, length=E + 1)[:E])
    starts = jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]])

    def visit(y: Array, e: Array) -> tuple[Array, None]:
        def serve(y: Array) -> Array:
            one = weights[first + e]
            one = dataclasses.replace(one, gate_up=unpacked(one.gate_up, x.dtype), down=unpacked(one.down, x.dtype))

            def multiply_rows(count: int, i: Array, y: Array) -> Array:
                start = starts[e] + i * count
                added = expert(jax.lax.dynamic_slice_in_dim(x, start, count), one, config)
                return jax.lax.dynamic_update_slice_in_dim(y, added, start, 0)

            load = ends[e] - starts[e]
            if isinstance(one.gate_up, PackedLanes):
                alone = jnp.where(load <= FEW + tile // 8, load, 0)
                y = jax.lax.fori_loop(0, alone, functools.partial(multiply_rows, 1), y)
                load = load - alone
            return jax.lax.fori_loop(0, -(-load // tile), functools.partial(multiply_rows, tile), y)

        return jax.lax.cond(ends[e] > starts[e], serve, lambda y: y, y), None

    y, _ = jax.lax.scan(visit, jnp.zeros_like(x), jnp.arange(E))
    y_TXD = y[jnp.argsort(order)].reshape(T, X, D).astype(jnp.float32)
    return jnp.sum(routing.weights[..., None] * y_TXD, axis=1).astype(x_TD.dtype)


def moe(
    x_TD: Float[Array, "T D"],
    routing: Routing,
    weights: ExpertWeights,
    config: ModelConfig,
    first: Any = 0,
    dispatch: Dispatch = "auto",
) -> Float[Array, "T D"]:
    """Sum over the chosen experts of weight times output.

    Args:
      x_TD: normalized activations.
      routing: `Routing` of the T tokens.
      weights: experts of one layer, or of all layers one after another.
      config: the model's numbers.
      first: index of this layer's expert 0 within `weights`.
      dispatch: ``dense``, ``gather``, ``scan``, or ``auto`` by the number of tokens.
    """
    if dispatch == "auto":
        dispatch = "gather" if x_TD.shape[0] <= GATHER_UP_TO else "scan"
    return {"dense": dense, "gather": gather, "scan": scan}[dispatch](x_TD, routing, weights, config, first)


class ExpertParam(nnx.Variable):
    """Weights that lie expert by expert; the model indexes them in place instead of slicing a layer out."""


class Experts(nnx.Module):
    """Holds the packed experts ``[*stack, E, ...]`` as the checkpoint's own bytes."""

    def __init__(self, config: ModelConfig, *, stack: tuple[int, ...], dtype: jnp.dtype, rngs: nnx.Rngs):
        D, F = config.hidden_size, config.intermediate_size
        lead = (*stack, config.num_experts)
        self.gate_up_blocks, self.gate_up_scales = _random_packed(rngs, (*lead, 2 * F), D)
        self.gate_up_bias = ExpertParam(normal(rngs, (*lead, 2 * F), dtype))
        self.down_blocks, self.down_scales = _random_packed(rngs, (*lead, D), F)
        self.down_bias = ExpertParam(normal(rngs, (*lead, D), dtype))

    def weights(self) -> ExpertWeights:
        """All experts of all layers along one leading axis ``[L * E, ...]``, without a copy.

        Raises:
          ValueError: the experts were left in the files.
        """
        if not self.gate_up_blocks.size:
            raise ValueError("the experts are in the files (lazy_experts): load without it, or with first_layers")
        flat = lambda leaf: leaf[...].reshape(-1, *leaf.shape[2:])
        packed = PackedLanes if self.gate_up_blocks.dtype == jnp.uint16 else MXArray
        return ExpertWeights(
            packed(flat(self.gate_up_blocks), flat(self.gate_up_scales)),
            flat(self.gate_up_bias),
            packed(flat(self.down_blocks), flat(self.down_scales)),
            flat(self.down_bias),
        )


def _random_packed(rngs: nnx.Rngs, rows: tuple[int, ...], inputs: int) -> tuple[ExpertParam, ExpertParam]:
    """Random codes with scales near 2^-7, so that a value is about 0.02."""
    shape = (*rows, inputs // MXFP4_GROUP)
    blocks = jax.random.bits(rngs.params(), (*shape, BYTES), jnp.uint8)
    scales = jax.random.randint(rngs.params(), shape, 119, 122).astype(jnp.uint8)
    return ExpertParam(blocks), ExpertParam(scales)
