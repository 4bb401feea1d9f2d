"""Changes to the routing, passed to the forward pass as a value: no hooks, no global state.

An `Intervention` is an array pytree, so that one compiled program serves every experiment on a model: a sweep over
all experts of a layer is a loop over its arrays (`causes.ablation_sweep`).
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gptoss_jax.config import ModelConfig
from gptoss_jax.norms import linear
from gptoss_jax.router import Router, Routing, choose


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Intervention:
    """What to change in each layer's routing; the identity changes nothing.

    Attributes:
      selection_LE: added to the router logits for the choice alone: -inf bars an expert, a large number forces it.
        The weights are the softmax of the true logits of the chosen. [L, T, E] to choose token by token (`replay`).
      keep_LE: factor on a chosen expert's weight; 0 ablates it.
      renormalize: True divides the kept weights by their sum, so that they again sum to 1, where one was dropped.
      router_weight_LED, router_bias_LE: a router to use instead of the model's own; None keeps that.
    """

    selection_LE: Any
    keep_LE: Any
    renormalize: Any
    router_weight_LED: Any = None
    router_bias_LE: Any = None

    @classmethod
    def identity(cls, config: ModelConfig) -> "Intervention":
        """The intervention that changes nothing."""
        shape = (config.num_layers, config.num_experts)
        return cls(np.zeros(shape, np.float32), np.ones(shape, np.float32), np.bool_(False))

    def layer(self, index: Any) -> "Intervention":
        """One layer: `selection [E]` or `[T, E]`, `keep [E]` and, if the router is replaced, its `[E, D]` and `[E]`."""
        row = lambda array: None if array is None else array[index]
        router = row(self.router_weight_LED), row(self.router_bias_LE)
        return Intervention(self.selection_LE[index], self.keep_LE[index], self.renormalize, *router)


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


def replay(config: ModelConfig, experts_TLX: Any) -> Intervention:
    """Make each token choose the experts that it chose in another run; weights come from its true router logits.

    It is for the one sequence of that run, from its first token on and in one pass (`trace`: up to 1,024 tokens).

    Args:
      config: the model's numbers.
      experts_TLX: int [T, L, X], such as `Trace.experts`.
    """
    ids = np.asarray(experts_TLX)
    wanted = (config.num_layers, config.experts_per_token)
    if ids.ndim != 3 or ids.shape[1:] != wanted or ids.dtype.kind not in "iu":
        raise ValueError(f"experts must be integers [T, {wanted[0]}, {wanted[1]}], not {ids.dtype} {list(ids.shape)}")
    if ids.size and (ids.min() < 0 or ids.max() >= config.num_experts):
        raise ValueError(f"experts {ids.min()} .. {ids.max()} must lie in 0 .. {config.num_experts - 1}")
    if (np.diff(np.sort(ids, axis=-1), axis=-1) == 0).any():
        raise ValueError("experts holds one expert twice for one token")
    selection_LTE = np.zeros((config.num_layers, len(ids), config.num_experts), np.float32)
    np.put_along_axis(selection_LTE, np.moveaxis(ids, 0, 1), 1e30, axis=-1)
    return dataclasses.replace(Intervention.identity(config), selection_LE=selection_LTE)


def replace_router(
    config: ModelConfig, router: Router, layer: int, weight_ED: Any = None, bias_E: Any = None
) -> Intervention:
    """Let a layer be routed by another matrix or bias; the model's weights stay as they are and where they are.

    Args:
      config: the model's numbers.
      router: the model's own, ``model.blocks.mlp.router``; what is not replaced is taken from it.
      layer: 0 .. L - 1.
      weight_ED: [E, D], in the checkpoint's orientation, or None.
      bias_E: [E], or None.
    """
    _rows(config, layer, 0)
    stack = {"weight_ED": router.weight[...], "bias_E": router.bias[...]}
    for (name, own), new in zip(list(stack.items()), (weight_ED, bias_E), strict=True):
        if new is None:
            continue
        if np.shape(new) != own.shape[1:]:
            raise ValueError(f"{name} must be {list(own.shape[1:])} as the router's own, not {list(np.shape(new))}")
        stack[name] = own.at[layer].set(jnp.asarray(new, own.dtype))
    return dataclasses.replace(
        Intervention.identity(config), router_weight_LED=stack["weight_ED"], router_bias_LE=stack["bias_E"]
    )


def intervene(routing: Routing, change: Intervention, x_TD: Any = None) -> Routing:
    """Apply one layer's `Intervention` to a `Routing`; the recorded logits stay the router's own.

    Args:
      routing: of the model's router.
      change: one layer's rows.
      x_TD: [..., T, D], what the router read; needed only by a router that replaces it.
    """
    if change.router_weight_LED is not None:
        logits = linear(x_TD, change.router_weight_LED, change.router_bias_LE)
        routing = choose(logits, routing.experts.shape[-1])
    selection = jnp.asarray(change.selection_LE)
    if selection.ndim > 1:  # one row a token; the padding behind them chooses freely
        behind = len(routing.logits) - len(selection)
        if behind < 0:
            raise ValueError(f"the change chooses for {len(selection)} tokens, and {len(routing.logits)} are run")
        selection = jnp.pad(selection, ((0, behind), (0, 0)))
    _, experts = jax.lax.top_k(routing.logits + selection, routing.experts.shape[-1])
    chosen, rank = jax.lax.top_k(jnp.take_along_axis(routing.logits, experts, axis=-1), experts.shape[-1])
    experts = jnp.take_along_axis(experts, rank, axis=-1)  # highest weight first, forced experts included
    keep: Float[Array, "... T X"] = jnp.asarray(change.keep_LE)[experts]
    weights = jax.nn.softmax(chosen, axis=-1) * keep
    total = jnp.sum(weights, axis=-1, keepdims=True)
    # Where nothing was dropped the sum is 1 up to rounding; dividing by it would change the token's last bits.
    dropped = change.renormalize & jnp.any(keep != 1, axis=-1, keepdims=True) & (total > 0)
    return Routing(routing.logits, experts, weights / jnp.where(dropped, total, 1.0))
