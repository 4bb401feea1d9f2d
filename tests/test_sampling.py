"""Sampling: greedy, restricted, seeded."""

import jax.numpy as jnp
import numpy as np
import pytest

from gptoss_jax.sampling import Sampling, keep_likely, sample

LOGITS = jnp.log(jnp.array([[0.1, 0.4, 0.3, 0.15, 0.05]]))


def draws(how, logits=LOGITS, num_tokens=5, count=3000):
    rows = jnp.broadcast_to(logits[0], (count, logits.shape[1]))
    return np.asarray(sample(rows, jnp.zeros(count, jnp.int32), how, num_tokens))


def test_greedy_takes_the_lowest_id_of_a_tie():
    how = Sampling.checked()
    assert sample(jnp.array([[1.0, 3.0, 3.0]]), jnp.zeros(1, jnp.int32), how, 3).tolist() == [1]


def test_temperature_one_follows_the_probabilities():
    share = np.bincount(draws(Sampling.checked(1.0)), minlength=5) / 3000
    np.testing.assert_allclose(share, np.exp(LOGITS[0]), atol=0.035)


def test_low_temperature_sharpens():
    assert (draws(Sampling.checked(0.05)) == 1).mean() > 0.99


@pytest.mark.parametrize(
    ("k", "kept"), [(1, {1}), (2, {1, 2}), (3, {1, 2, 3}), (5, {0, 1, 2, 3, 4}), (99, {0, 1, 2, 3, 4})]
)
def test_top_k_keeps_the_k_most_likely(k, kept):
    assert set(draws(Sampling.checked(1.0, top_k=k)).tolist()) == kept


@pytest.mark.parametrize(
    ("p", "kept"), [(0.3, {1}), (0.4, {1}), (0.41, {1, 2}), (0.7, {1, 2}), (0.86, {0, 1, 2, 3}), (1.0, {0, 1, 2, 3, 4})]
)
def test_top_p_keeps_the_fewest_that_reach_p(p, kept):
    logits = jnp.log(jnp.array([[0.1, 0.4, 0.3, 0.15, 0.05]]) * 0.9999)
    assert set(np.flatnonzero(np.isfinite(keep_likely(logits, 0, p)[0] if p < 1 else logits[0])).tolist()) == kept


def test_top_p_counts_within_top_k():
    # of 0.4 and 0.3 alone, the first already has 0.57
    assert set(draws(Sampling.checked(1.0, top_k=2, top_p=0.5)).tolist()) == {1}


def test_rows_without_a_token_are_never_drawn():
    logits = jnp.array([[0.0, 0.0, 50.0, 60.0]])
    assert set(draws(Sampling.checked(5.0), logits, num_tokens=2).tolist()) == {0, 1}
    assert draws(Sampling.checked(), logits, num_tokens=2)[0] == 0


def test_a_seed_repeats_and_another_differs():
    first, again, other = (draws(Sampling.checked(1.0, seed=s)) for s in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"seed": -1}, "seed"),
    ],
)
def test_values_out_of_range_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        Sampling.checked(**arguments)
