"""One step of training: the loss, its gradient, Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gptoss_jax.nano import network
from gptoss_jax.nano.batches import Batch
from gptoss_jax.nano.plan import Plan
from gptoss_jax.nano.state import State

MEAN_DECAY, SQUARE_DECAY, EPS = 0.9, 0.98, 1e-9


def begin(plan: Plan, params: network.Params | None = None) -> State:
    """The state before the first step, with random weights if none are given."""
    weights = network.init(plan.config, plan.seed) if params is None else params
    arrays = {name: jnp.asarray(value, jnp.float32) for name, value in weights.items()}
    zeros = lambda: jax.tree.map(jnp.zeros_like, arrays)
    load = jnp.full((plan.config.num_layers, plan.config.num_experts), 1 / plan.config.num_experts)
    return State(arrays, zeros(), zeros(), load, jnp.int32(0), jnp.int32(0))


def loss(params: network.Params, load_LE: Any, batch: Batch, plan: Plan) -> tuple[Any, dict[str, Any]]:
    """Mean loss per weighted token, plus the load-balancing loss; and the parts of it, for the log."""
    used = network.quantized(params) if plan.quantize else params
    out = network.forward(
        used,
        batch.tokens[:, :-1],
        batch.segments,
        plan.config,
        tile=plan.tile,
        load_LE=load_LE,
        wanted_N=batch.wanted,
    )
    labels, weights = batch.tokens[:, 1:].reshape(-1)[batch.wanted], batch.weights.reshape(-1)[batch.wanted]
    losses = network.cross_entropy(out.logits, labels) * weights
    row = batch.wanted // plan.length
    text, dialog = row < plan.text_rows, row >= plan.text_rows + plan.repeat_rows
    mean = lambda which: jnp.sum(losses * which) / jnp.maximum(jnp.sum(weights * which), 1e-9)
    balance = out.balance.mean()
    parts = {
        "text": mean(text),
        "repeat": mean(~text & ~dialog),
        "dialog": mean(dialog),
        "balance": balance,
        "load": out.load,
    }
    return jnp.sum(losses) / jnp.maximum(jnp.sum(weights), 1e-9) + plan.balance * balance, parts


def decays(name: str, value: Any) -> bool:
    """Whether weight decay applies: to matrices, not to biases, scales and sinks."""
    leading = name.startswith("blocks.") + (".experts." in name)
    return bool(value.ndim - leading >= 2)


def make_step(plan: Plan) -> Callable[[State, Batch], tuple[State, dict[str, Any]]]:
    """The compiled step: state and batch in, state and measurements out. The old state's memory is reused."""

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: State, batch: Batch) -> tuple[State, dict[str, Any]]:
        (_, parts), grads = jax.value_and_grad(loss, has_aux=True)(state.params, state.load, batch, plan)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in grads.values()))
        grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, plan.clip / (norm + 1e-12)), grads)
        blend = lambda rate: lambda old, new: rate * old + (1 - rate) * new
        mean = jax.tree.map(blend(MEAN_DECAY), state.mean, grads)
        square = jax.tree.map(lambda old, g: blend(SQUARE_DECAY)(old, g * g), state.square, grads)
        rate, count = plan.learning_rate(state.step), state.position + 1

        def update(name: str) -> Any:
            value = state.params[name]
            direction = mean[name] / (1 - MEAN_DECAY**count)
            direction /= jnp.sqrt(square[name] / (1 - SQUARE_DECAY**count)) + EPS
            return value - rate * (direction + (plan.weight_decay * value if decays(name, value) else 0))

        E, now = plan.config.num_experts, parts.pop("load")
        load = blend(plan.memory)(state.load, now)
        measured = {**parts, "gradient": norm, "least_load": load.min() * E, "most_load": load.max() * E, "rate": rate}
        params = {name: update(name) for name in state.params}
        return State(params, mean, square, load, state.step + 1, count), measured

    return step
