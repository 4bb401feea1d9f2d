"""Norm, linear map, embedding and unembedding."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptoss_jax.norms import Embedding, Unembedding, linear, rms_norm


def test_rms_norm_against_float64():
    rng = np.random.default_rng(0)
    x, scale = rng.standard_normal((5, 64)) * 100, rng.standard_normal(64)
    expected = scale * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(rms_norm(jnp.float32(x), jnp.float32(scale)), expected, rtol=2e-6)


def test_rms_norm_of_zero_is_zero():
    assert not rms_norm(jnp.zeros((2, 32)), jnp.ones(32)).any()


def test_scale_multiplies_before_the_cast_back():
    # 1 + 2^-8 rounds to 1 in bfloat16; times 257 the difference must survive
    x = jnp.array([1.0, -1.0] * 16, jnp.bfloat16)
    scale = jnp.full(32, 257.0)
    assert float(rms_norm(x, scale, 0.0)[0]) == float(jnp.bfloat16(257.0))
    scale = jnp.full(32, 1.00390625)
    big = jnp.array([3.0, 1.0] * 16, jnp.bfloat16)
    wide = np.float32([3, 1] * 16) / np.sqrt(5, dtype=np.float32) * 1.00390625
    assert np.array_equal(rms_norm(big, scale, 0.0), jnp.asarray(wide, jnp.bfloat16))


def test_linear_keeps_the_dtype_of_its_input():
    x, weight, bias = jnp.ones((3, 4)), jnp.ones((2, 4), jnp.bfloat16), jnp.ones(2, jnp.bfloat16)
    assert linear(x, weight, bias).dtype == jnp.float32
    assert linear(x.astype(jnp.bfloat16), weight).dtype == jnp.bfloat16
    assert np.array_equal(linear(x, weight, bias), jnp.full((3, 2), 5.0))


def test_embedding_and_unembedding_are_separate():
    rngs = nnx.Rngs(0)
    embedding, unembedding = (kind(7, 32, dtype=jnp.float32, rngs=rngs) for kind in (Embedding, Unembedding))
    x = embedding(jnp.array([[0, 6]]), jnp.float32)
    assert x.shape == (1, 2, 32)
    assert not np.allclose(embedding.weight[...], unembedding.weight[...])
    assert unembedding(x.astype(jnp.bfloat16)).dtype == jnp.float32


def test_linear_asks_for_full_float32_products():
    """On a GPU the default would be TF32."""
    text = jax.jit(linear).lower(jnp.ones((3, 4)), jnp.ones((2, 4))).as_text()
    assert "HIGHEST" in text
