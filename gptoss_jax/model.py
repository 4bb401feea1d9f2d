"""The whole architecture: `Block` and `GptOss`.

Weights of all layers are stacked along a leading axis L, and one compiled block pattern (sliding, full) runs over
them: compile time does not grow with depth. The experts are not sliced out of the stack but indexed in place, so
that nothing is copied or unpacked beyond what a token needs.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from gptoss_jax.attention import BLOCK, Attention, attention_mask
from gptoss_jax.cache import KVCache
from gptoss_jax.config import FULL, SLIDING, ModelConfig
from gptoss_jax.experts import Dispatch, ExpertParam, Experts, moe
from gptoss_jax.interventions import Intervention, intervene
from gptoss_jax.norms import Embedding, RMSNorm, Unembedding
from gptoss_jax.rope import rotary_table
from gptoss_jax.router import Router, Routing


@dataclasses.dataclass(frozen=True)
class Record:
    """What a forward pass returns beside its result; a static choice, so that an unrecorded pass costs nothing.

    Attributes:
      routing: `Routing` of every layer and token.
      residual: the residual stream before the first block and after each.
      middle: the residual stream between the two halves of each block, after attention.
      attention: probabilities of every head, without the sink's share; only without a cache.
    """

    routing: bool = False
    residual: bool = False
    middle: bool = False
    attention: bool = False


NOTHING = Record()
How = Dispatch | Callable[..., Any]  # a name of `experts.moe`, or ``f(x_TD, routing, experts, layer) -> y_TD``


class Output(NamedTuple):
    """Result of the blocks.

    Attributes:
      hidden: [B, T, D] after the final norm, ready for the unembedding.
      cache: the extended `KVCache`, or None.
      routing: `Routing` with arrays [L, B, T, ...], or None.
      residual: [L + 1, B, T, D], or None.
      middle: [L, B, T, D], or None.
      attention: float32 [L, B, K, G, T, S], or None.
    """

    hidden: Float[Array, "B T D"]
    cache: KVCache | None
    routing: Routing | None
    residual: Float[Array, "L1 B T D"] | None
    middle: Float[Array, "L B T D"] | None
    attention: Float[Array, "L B K G T S"] | None


class Mlp(nnx.Module):
    """The mixture-of-experts half of a block."""

    def __init__(self, config: ModelConfig, *, stack: tuple[int, ...], dtype: Any, rngs: nnx.Rngs):
        self.config = config
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, stack=stack)
        self.router = Router(config, stack=stack, dtype=dtype, rngs=rngs)
        self.experts = Experts(config, stack=stack, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        real_BT: Bool[Array, "B T"],
        layer: Any,
        change: Intervention | None,
        dispatch: How,
    ) -> tuple[Float[Array, "B T D"], Routing]:
        """What this layer's experts add to the residual stream, and the routing."""
        B, T, D = x_BTD.shape
        E = self.config.num_experts
        x = self.norm(x_BTD).reshape(B * T, D)
        routing = self.router(x)
        if change is not None:
            routing = intervene(routing, change.layer(layer), x)
        real = real_BT.reshape(-1, 1)
        served = Routing(routing.logits, jnp.where(real, routing.experts, E), jnp.where(real, routing.weights, 0))
        if callable(dispatch):
            y = dispatch(x, served, self.experts, layer)
        else:
            y = moe(x, served, self.experts.weights(), self.config, layer * E, dispatch)
        return y.reshape(B, T, D), jax.tree.map(lambda leaf: leaf.reshape(B, T, -1), routing)


class Block(nnx.Module):
    """Attention, then experts, each on the normalized residual stream and added back to it."""

    def __init__(self, config: ModelConfig, *, stack: tuple[int, ...], dtype: Any, rngs: nnx.Rngs):
        self.attention = Attention(config, stack=stack, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(config, stack=stack, dtype=dtype, rngs=rngs)


class GptOss(nnx.Module):
    """gpt-oss: embedding, L blocks, final norm, unembedding.

    Args:
      config: the model's numbers.
      dtype: of the activations.
      param_dtype: in which dense weights are stored; `dtype` if None. Norm scales are float32, experts packed bytes.
      rngs: source of random initial weights.

    Attributes:
      name, checkpoint_hash: where the weights come from, for traces.
      dispatch: how tokens reach their experts; `sharding` puts its own here.
    """

    def __init__(self, config: ModelConfig, *, dtype: Any = jnp.float32, param_dtype: Any = None, rngs: nnx.Rngs):
        stored = jnp.dtype(param_dtype or dtype)
        self.config = config
        self.dtype = jnp.dtype(dtype)
        self.name = "random"
        self.checkpoint_hash = ""
        self.dispatch: How = "auto"
        self.embedding = Embedding(config.vocab_size, config.hidden_size, dtype=stored, rngs=rngs)
        self.blocks = Block(config, stack=(config.num_layers,), dtype=stored, rngs=rngs)
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.unembedding = Unembedding(config.vocab_size, config.hidden_size, dtype=stored, rngs=rngs)

    def __call__(self, tokens: Any) -> Float[Array, "*B T V"]:
        """Logits of every position: int [T] or [B, T] -> float32 [.., T, V]. Compiled inside, length padded."""
        tokens, padded, counts = prepare(self.config, tokens)
        logits = _logits(self, jnp.asarray(padded), jnp.asarray(counts))[:, : tokens.shape[-1]]
        return logits[0] if tokens.ndim == 1 else logits

    def run(
        self,
        tokens_BT: Int[Array, "B T"],
        counts_B: Int[Array, "B"],
        cache: KVCache | None = None,
        change: Intervention | None = None,
        record: Record = NOTHING,
        dispatch: How | None = None,
    ) -> Output:
        """Run the blocks on a chunk of tokens; to be called inside a compiled function.

        Args:
          tokens_BT: ids; row b holds ``counts_B[b]`` real tokens, then padding, which is never routed or stored.
          counts_B: int32 [B].
          cache: tokens that came before; None starts at position 0 and keeps nothing.
          change: `Intervention` on the routing.
          record: what to return beside the result.
          dispatch: see `experts.moe`; the model's own if None.
        """
        config, period = self.config, self.config.period
        dispatch = self.dispatch if dispatch is None else dispatch
        B, T = tokens_BT.shape
        start = jnp.zeros(B, jnp.int32) if cache is None else cache.length
        positions = start[:, None] + jnp.arange(T)
        real = jnp.arange(T) < counts_B[:, None]
        cos, sin = rotary_table(positions, config, self.dtype)
        kinds = config.layer_types[:period]
        graph, *states = nnx.split(self.blocks, _stays_in_place, ...)
        in_place, dense = states
        dense = jax.tree.map(lambda leaf: leaf.reshape(-1, period, *leaf.shape[1:]), dense)
        change = None if change is None else jax.tree.map(jnp.asarray, change)

        def run_period(carry: tuple[Array, KVCache | None], scanned: tuple[Any, Array]) -> tuple[Any, Any]:
            (x, cache), (weights, group) = carry, scanned
            seen = []
            for j, kind in enumerate(kinds):
                layer = group * period + j
                block = nnx.merge(graph, in_place, jax.tree.map(lambda leaf, j=j: leaf[j], weights))
                query, key, value = block.attention.project(x, cos, sin, layer)
                if cache is None:
                    keys, values, key_positions = key, value, jnp.where(real, positions, -1)
                else:
                    index = group * kinds.count(kind) + kinds[:j].count(kind)
                    extend = cache.extend_ring if kind == SLIDING else cache.extend_full
                    cache, keys, values, key_positions = extend(index, key, value, counts_B)
                if cache is not None and kind == FULL and _by_blocks(cache):
                    stored, filled = (cache.full_key, cache.full_value), jnp.max(cache.length + counts_B)
                    added, probs = block.attention.over_cache(query, *stored, index, positions, filled, layer), None
                else:
                    mask = attention_mask(positions, key_positions, config.sliding_window if kind == SLIDING else None)
                    keys, values = keys.astype(key.dtype), values.astype(value.dtype)
                    added, probs = block.attention(query, keys, values, mask, layer)
                middle = x + added
                added, routing = block.mlp(middle, real, layer, change, dispatch)
                x = middle + added
                seen.append(
                    (
                        routing if record.routing else None,
                        x if record.residual else None,
                        middle if record.middle else None,
                        probs if record.attention else None,
                    )
                )
            return (x, cache), jax.tree.map(lambda *leaves: jnp.stack(leaves), *seen)

        if record.attention and cache is not None:
            raise ValueError("attention probabilities can be recorded only without a cache")
        x = self.embedding(tokens_BT, self.dtype)
        groups = jnp.arange(config.num_layers // period)
        (last, cache), seen = jax.lax.scan(run_period, (x, cache), (dense, groups))
        routing, residual, middle, attention = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), seen)
        if record.residual:
            residual = jnp.concatenate([x[None], residual])
        cache = None if cache is None else cache.advance(counts_B)
        return Output(self.norm(last), cache, routing, residual, middle, attention)


def _stays_in_place(path: Any, variable: Any) -> bool:
    """Whether all layers' weights are indexed where they lie (experts, `lanes`) instead of sliced layer by layer."""
    return isinstance(variable, ExpertParam) or variable.dtype == jnp.uint16


def _by_blocks(cache: KVCache) -> bool:
    """On a CPU a long cache is read only as far as it is filled; an accelerator would wait for every block's turn."""
    return cache.max_len > BLOCK and jax.default_backend() == "cpu"


def bucket(length: int, smallest: int = 16) -> int:
    """The padded length: the next power of two, at least `smallest`, so that few programs are compiled."""
    return max(smallest, 1 << (length - 1).bit_length())


def check_tokens(config: ModelConfig, tokens: Any) -> np.ndarray:
    """Ids as int32; an error names the first that is not an id of this model."""
    array = np.asarray(tokens)
    if array.size == 0:
        raise ValueError("the prompt is empty: give at least one token")
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"tokens must be integers, not {array.dtype}")
    outside = (array < 0) | (array >= config.vocab_size)
    if outside.any():
        at = np.argwhere(outside)[0]
        raise ValueError(
            f"token id {array[tuple(at)]} at position {at[-1]} lies outside 0 .. {config.vocab_size - 1}; "
            "was the text encoded with another tokenizer?"
        )
    return array.astype(np.int32)


def prepare(config: ModelConfig, tokens: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check ids [T] or [B, T]; return them, a padded copy [B, bucket] and the count per row [B]."""
    array = check_tokens(config, tokens)
    if array.ndim not in (1, 2):
        raise ValueError(f"tokens must be [T] or [B, T], not {list(array.shape)}")
    rows = np.atleast_2d(array)
    length = rows.shape[1]
    if length > config.max_context:
        raise ValueError(f"{length} tokens exceed the model's context of {config.max_context}")
    padded = np.zeros((len(rows), bucket(length)), np.int32)
    padded[:, :length] = rows
    return array, padded, np.full(len(rows), length, np.int32)


@jax.jit
def _logits(model: GptOss, tokens_BT: Array, counts_B: Array) -> Array:
    return model.unembedding(model.run(tokens_BT, counts_B).hidden)


@functools.partial(jax.jit, static_argnames=("record", "logits"), donate_argnames=("cache",))
def run_recorded(
    model: GptOss,
    tokens_BT: Int[Array, "B T"],
    counts_B: Int[Array, "B"],
    cache: KVCache | None = None,
    change: Intervention | None = None,
    record: Record = NOTHING,
    logits: bool = True,
) -> tuple[Output, Float[Array, "B T V"] | None]:
    """`GptOss.run`, compiled: its `Output` and, if asked for, the logits of every position."""
    output = model.run(tokens_BT, counts_B, cache, change, record)
    return output, model.unembedding(output.hidden) if logits else None
