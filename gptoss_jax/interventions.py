"""Changes to the routing, passed to the forward pass as a value: no hooks, no global state.

An `Intervention` is an array pytree, so that one compiled program serves every experiment on a model: a sweep over
all experts of a layer is a loop (or a `jax.vmap`) over its arrays.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gptoss_jax.config import ModelConfig
from gptoss_jax.router import Routing


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Intervention:
    """What to change in each layer's routing; the identity changes nothing.

    Attributes:
      selection_LE: added to the router logits for the choice alone: -inf bars an expert, a large number forces it.
        The weights are the softmax of the true logits of the chosen.
      keep_LE: factor on a chosen expert's weight; 0 ablates it.
      renormalize: True divides the kept weights by their sum, so that they again sum to 1.
    """

    selection_LE: Any
    keep_LE: Any
    renormalize: Any

    @classmethod
    def identity(cls, config: ModelConfig) -> "Intervention":
        """The intervention that changes nothing."""
        shape = (config.num_layers, config.num_experts)
        return cls(np.zeros(shape, np.float32), np.ones(shape, np.float32), np.bool_(False))

    def layer(self, index: Any) -> "Intervention":
        """The rows of one layer: ``selection [E]``, ``keep [E]``."""
        return Intervention(self.selection_LE[index], self.keep_LE[index], self.renormalize)


def _rows(config: ModelConfig, layer: int, experts: int | Iterable[int]) -> tuple[int, np.ndarray]:
    if not 0 <= layer < config.num_layers:
        raise ValueError(f"layer {layer} lies outside 0 .. {config.num_layers - 1}")
    ids = np.atleast_1d(np.asarray(list(experts) if isinstance(experts, Iterable) else experts))
    if ids.size == 0 or ids.min() < 0 or ids.max() >= config.num_experts:
        raise ValueError(f"experts {ids.tolist()} must lie in 0 .. {config.num_experts - 1}")
    return layer, ids


def ablate(config: ModelConfig, layer: int, experts: int | Iterable[int], how: str = "renormalize") -> Intervention:
    """Take experts away in one of three ways.

    Args:
      how: ``renormalize`` drops them and rescales the remaining chosen experts to sum 1; ``zero`` drops them and
        leaves the rest; ``mask`` bars them from the choice, so that the next experts enter.
    """
    layer, ids = _rows(config, layer, experts)
    if how not in ("renormalize", "zero", "mask"):
        raise ValueError(f"how = {how!r}; known: 'renormalize', 'zero', 'mask'")
    change = Intervention.identity(config)
    if how == "mask":
        if config.num_experts - len(np.unique(ids)) < config.experts_per_token:
            raise ValueError(f"masking {len(ids)} of {config.num_experts} leaves fewer than {config.experts_per_token}")
        change.selection_LE[layer, ids] = -np.inf
    else:
        change.keep_LE[layer, ids] = 0.0
    return dataclasses.replace(change, renormalize=np.bool_(how == "renormalize"))


def force(config: ModelConfig, layer: int, experts: int | Iterable[int]) -> Intervention:
    """Make every token of a layer choose these experts; their weights come from their true router logits."""
    layer, ids = _rows(config, layer, experts)
    if len(np.unique(ids)) != len(ids) or len(ids) > config.experts_per_token:
        raise ValueError(f"force at most {config.experts_per_token} different experts, not {ids.tolist()}")
    change = Intervention.identity(config)
    change.selection_LE[layer, ids] = 1e30
    return change


def intervene(routing: Routing, change: Intervention) -> Routing:
    """Apply one layer's `Intervention` to a `Routing`; the recorded logits stay the router's own."""
    _, experts = jax.lax.top_k(routing.logits + change.selection_LE, routing.experts.shape[-1])
    chosen, rank = jax.lax.top_k(jnp.take_along_axis(routing.logits, experts, axis=-1), experts.shape[-1])
    experts = jnp.take_along_axis(experts, rank, axis=-1)  # highest weight first, forced experts included
    weights: Float[Array, "... T X"] = jax.nn.softmax(chosen, axis=-1) * jnp.asarray(change.keep_LE)[experts]
    total = jnp.sum(weights, axis=-1, keepdims=True)
    rescaled = weights / jnp.where(total > 0, total, 1.0)
    return Routing(routing.logits, experts, jnp.where(change.renormalize, rescaled, weights))
