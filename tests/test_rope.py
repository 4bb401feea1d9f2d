"""Rotary embedding and YaRN against the published table and a float64 rotation."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from gptoss_jax.config import GPT_OSS_20B
from gptoss_jax.rope import concentration, inverse_frequencies, rotary_table, rotate, yarn_bounds

# openai/gpt-oss torch/model.py in float64
PUBLISHED = """1 0.689044306 0.474782055 0.327145872 0.225418 0.155322989 0.107024421 0.0737445682 0.0508132748
0.0317056962 0.0193350011 0.0115920493 0.00679495949 0.00386035932 0.00209379238 0.0010526021 0.000456483919
0.000129318701 3.83088124e-05 2.6396469e-05 1.81883367e-05 1.25325698e-05 8.63549588e-06 5.95023926e-06 4.09997848e-06
2.82506683e-06 1.94659621e-06 1.34129104e-06 9.2420895e-07 6.36820915e-07 4.38797825e-07 3.02351143e-07"""


def test_published_frequencies_and_bounds():
    np.testing.assert_allclose(inverse_frequencies(GPT_OSS_20B), np.float64(PUBLISHED.split()), rtol=1e-8)
    assert yarn_bounds(GPT_OSS_20B) == pytest.approx((8.092779115512402, 17.39802450158856), abs=1e-12)
    assert concentration(GPT_OSS_20B) == pytest.approx(1.3465735902799727, abs=1e-15)


def test_published_table_entries():
    cos, sin = rotary_table(jnp.arange(2), GPT_OSS_20B)
    np.testing.assert_allclose(cos[1, [0, 8, 16]], [0.727557, 1.344836, 1.346573], atol=1e-6)
    np.testing.assert_allclose(sin[1, [0, 8]], [1.133103, 0.068394], atol=1e-6)
    np.testing.assert_allclose(cos[0], 1.3465736, rtol=1e-6)
    assert not sin[0].any()


def test_positions_far_beyond_the_original_context():
    positions = np.array([4095, 4096, 40_000, 131_071])
    cos, sin = rotary_table(jnp.asarray(positions), GPT_OSS_20B)
    angle = positions[:, None] * inverse_frequencies(GPT_OSS_20B)
    # angles are float32, as in the reference: at 131071 they are exact to 2^-8 or so
    bound = np.maximum(angle * 2.0**-23, 1e-6) * 1.4
    assert (np.abs(cos - np.cos(angle) * concentration(GPT_OSS_20B)) <= bound).all()
    assert (np.abs(sin - np.sin(angle) * concentration(GPT_OSS_20B)) <= bound).all()


def test_factor_one_is_plain_rope():
    plain = dataclasses.replace(GPT_OSS_20B, rope_factor=1.0)
    np.testing.assert_allclose(inverse_frequencies(plain), 150_000.0 ** (-np.arange(32) / 32))
    assert concentration(plain) == 1.0


def test_rotation_pairs_halves():
    x = np.random.default_rng(0).standard_normal((3, 2, 64)).astype(np.float32)
    cos, sin = rotary_table(jnp.arange(3), GPT_OSS_20B)
    c, s = np.float64(cos)[:, None], np.float64(sin)[:, None]
    expected = np.concatenate([x[..., :32] * c - x[..., 32:] * s, x[..., 32:] * c + x[..., :32] * s], -1)
    np.testing.assert_allclose(rotate(jnp.asarray(x), cos, sin), expected, atol=1e-6)


def test_scores_depend_on_the_distance_alone():
    rng = np.random.default_rng(1)
    query, key = (jnp.float32(rng.standard_normal((1, 1, 64))) for _ in range(2))

    def score(i, j):
        turn = lambda x, p: rotate(x, *rotary_table(jnp.array([p]), GPT_OSS_20B))
        return float(jnp.sum(turn(query, i) * turn(key, j)))

    assert score(7, 3) == pytest.approx(score(107, 103), rel=1e-4)
    assert score(7, 3) != pytest.approx(score(7, 4), rel=1e-4)
