"""The router: choice, weights, ties."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gptoss_jax.config import TINY
from gptoss_jax.router import Router, choose


@given(arrays(np.float32, (3, 8), elements=st.floats(-50, 50, width=32)))
def test_choice_and_weights_against_a_loop(logits):
    logits = logits + 0.0  # XLA sorts -0 below 0
    routing = choose(jnp.asarray(logits), 4)
    for t in range(3):
        order = sorted(range(8), key=lambda e: (-logits[t, e], e))[:4]  # ties to the lower id
        assert routing.experts[t].tolist() == order
        weights = np.exp(np.float64(logits[t, order]) - np.float64(logits[t, order]).max())
        np.testing.assert_allclose(routing.weights[t], weights / weights.sum(), atol=1e-6)


def test_softmax_covers_the_chosen_alone():
    routing = choose(jnp.array([[3.0, 2.0, 1.0, 0.0, 0.0, 0.0]]), 2)
    np.testing.assert_allclose(routing.weights[0].sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(routing.weights[0, 0], 1 / (1 + np.exp(-1.0)), rtol=1e-6)


def test_equal_logits_choose_the_lowest_ids():
    assert choose(jnp.zeros((1, 6)), 3).experts.tolist() == [[0, 1, 2]]


def test_bias_is_part_of_choice_and_weight():
    router = Router(TINY, stack=(), dtype=jnp.float32, rngs=nnx.Rngs(0))
    router.bias.set_value(jnp.zeros(8).at[5].set(100.0))
    routing = router(jnp.ones((1, 64)))
    assert routing.experts[0, 0] == 5
    assert routing.logits[0, 5] > 90


def test_logits_are_float32_whatever_the_activations():
    router = Router(TINY, stack=(), dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert router(jnp.ones((1, 64), jnp.bfloat16)).logits.dtype == jnp.float32
