"""Masks, sinks and grouped-query attention against loops, and against JAX's own attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptoss_jax.attention import attend, attention_mask, softmax_with_sink


@pytest.mark.parametrize("window", [None, 1, 4, 128])
def test_mask_against_a_loop(window):
    positions = np.arange(12)[None]
    mask = np.asarray(attention_mask(jnp.asarray(positions), jnp.asarray(positions), window))[0]
    for i in range(12):
        for j in range(12):
            assert mask[i, j] == (j <= i and (window is None or i - j < window))
    assert mask.sum(-1).max() == min(12, window or 12)  # a window of 4 is 4 keys, the query's own included


def test_empty_slots_are_seen_by_nobody():
    mask = attention_mask(jnp.array([[0, 1]]), jnp.array([[-1, 0, 1, -1]]), None)
    assert mask[0].tolist() == [[False, True, False, False], [False, True, True, False]]


def test_published_sink_example():
    probs = softmax_with_sink(jnp.array([1.0, 2.0]), jnp.array(0.5))
    np.testing.assert_allclose(probs, [0.231224, 0.628532], atol=1e-6)
    assert 1 - float(probs.sum()) == pytest.approx(0.140244, abs=1e-6)


def test_a_row_that_sees_nothing_gives_all_to_the_sink():
    probs = softmax_with_sink(jnp.full(3, -jnp.inf), jnp.array(-2.0))
    assert probs.tolist() == [0, 0, 0]


@pytest.mark.parametrize("big", [200.0, -200.0])
def test_large_sinks_do_not_overflow(big):
    probs = softmax_with_sink(jnp.array([1.0, 2.0]), jnp.array(big))
    assert jnp.isfinite(probs).all()
    assert float(probs.sum()) == pytest.approx(0.0 if big > 0 else 1.0, abs=1e-6)


def test_sinks_equal_plain_attention_times_a_sigmoid():
    """softmax with a sink is plain softmax times sigmoid(logsumexp - sink): JAX's attention is the second opinion."""
    rng = np.random.default_rng(0)
    B, T, K, G, H, W = 2, 9, 2, 3, 16, 4
    query, key, value = (jnp.float32(rng.standard_normal((B, T, n, H))) for n in (K * G, K, K))
    sink = jnp.float32(rng.standard_normal(K * G))
    positions = jnp.broadcast_to(jnp.arange(T), (B, T))
    mixed, probs = attend(
        query.reshape(B, T, K, G, H), key, value, sink.reshape(K, G), attention_mask(positions, positions, W)
    )
    plain, lse = jax.nn.dot_product_attention(
        query, key, value, is_causal=True, local_window_size=(W - 1, 0), return_residual=True
    )
    expected = plain * jax.nn.sigmoid(lse - sink)[..., None]
    np.testing.assert_allclose(mixed.reshape(B, T, K * G, H), expected, atol=2e-6)
    assert probs.shape == (B, K, G, T, T)
    assert (probs.sum(-1) < 1).all()


def test_scores_and_probabilities_are_float32_in_bfloat16():
    x = jnp.ones((1, 3, 1, 1, 8), jnp.bfloat16)
    mixed, probs = attend(x, x[:, :, 0], x[:, :, 0], jnp.zeros((1, 1)), jnp.ones((1, 3, 3), bool))
    assert mixed.dtype == jnp.bfloat16
    assert probs.dtype == jnp.float32
