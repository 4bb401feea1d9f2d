"""Clamped SwiGLU and the three dispatches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gptoss_jax.config import TINY
from gptoss_jax.experts import Experts, expert, moe, swiglu
from gptoss_jax.router import Routing, choose


@pytest.fixture(scope="module")
def weights():
    return Experts(TINY, stack=(3,), dtype=jnp.float32, rngs=nnx.Rngs(0)).weights()


def tokens_and_routing(count, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.float32(rng.standard_normal((count, TINY.hidden_size)))
    return x, choose(jnp.float32(rng.standard_normal((count, TINY.num_experts))), TINY.experts_per_token)


def test_activation_is_interleaved_and_clamped_on_one_side():
    gate, up = np.linspace(-120, 120, 41), np.linspace(9, -9, 41)
    clipped = np.minimum(gate, 7)
    expected = clipped / (1 + np.exp(-1.702 * clipped)) * (np.clip(up, -7, 7) + 1)
    together = jnp.float32(np.stack([gate, up], -1).reshape(-1))
    np.testing.assert_allclose(swiglu(together), expected, atol=1e-5)


@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("count", [1, 3, 8, 9, 70])
def test_dispatches_agree_with_a_loop(weights, count, layer):
    x, routing = tokens_and_routing(count)
    first = layer * TINY.num_experts
    expected = np.zeros((count, TINY.hidden_size))
    for t in range(count):
        for e, w in zip(routing.experts[t].tolist(), routing.weights[t], strict=True):
            expected[t] += float(w) * np.float64(expert(x[t], weights[first + e], TINY))
    for dispatch in ("dense", "gather", "scan", "auto"):
        y = jax.jit(moe, static_argnames=("config", "dispatch"))(x, routing, weights, TINY, first, dispatch)
        np.testing.assert_allclose(y, expected, atol=1e-6, err_msg=dispatch)


def test_all_tokens_on_the_same_experts(weights):
    x, _ = tokens_and_routing(100)
    ids = jnp.broadcast_to(jnp.array([7, 0, 3, 2]), (100, 4))
    routing = Routing(jnp.zeros((100, 8)), ids, jnp.full((100, 4), 0.25))
    dense, scan = (moe(x, routing, weights, TINY, 0, dispatch) for dispatch in ("dense", "scan"))
    np.testing.assert_allclose(scan, dense, atol=1e-6)


@pytest.mark.parametrize("dispatch", ["dense", "gather", "scan"])
def test_padding_is_never_computed(weights, dispatch):
    """Padding carries the expert id E and weight 0; even NaN activations must not reach the other tokens."""
    x, routing = tokens_and_routing(6)
    real = np.array([True, False, True, True, False, True])[:, None]
    served = Routing(routing.logits, jnp.where(real, routing.experts, 8), jnp.where(real, routing.weights, 0))
    y = moe(x, served, weights, TINY, 0, dispatch)
    alone = moe(x, routing, weights, TINY, 0, "dense")
    np.testing.assert_allclose(y[real[:, 0]], alone[real[:, 0]], atol=1e-6)
    assert not y[~real[:, 0]].any()


def test_bfloat16_dispatches_agree_to_rounding(weights):
    x, routing = tokens_and_routing(20)
    wide = moe(x, routing, weights, TINY, 0, "dense")
    for dispatch in ("dense", "gather", "scan"):
        y = moe(x.astype(jnp.bfloat16), routing, weights, TINY, 0, dispatch)
        assert y.dtype == jnp.bfloat16
        assert np.abs(np.float32(y) - wide).max() < 0.03 * np.abs(wide).max()


def test_other_limits_are_used(weights):
    x, _ = tokens_and_routing(2)
    tight = dataclasses.replace(TINY, swiglu_limit=0.01)
    assert not np.allclose(expert(x, weights[0], TINY), expert(x, weights[0], tight), atol=1e-4)
