"""Interventions on the routing: one layer by hand, then through the model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gptoss_jax as gj
from gptoss_jax.config import TINY
from gptoss_jax.interventions import Intervention, ablate, force, intervene
from gptoss_jax.router import choose

LOGITS = jnp.array([[4.0, 3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0]])


def applied(change):
    return intervene(choose(LOGITS, 4), jax.tree.map(jnp.asarray, change.layer(1)))


def test_identity_changes_nothing():
    before, after = choose(LOGITS, 4), applied(Intervention.identity(TINY))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_three_ways_to_ablate():
    full = np.exp([4, 3, 2, 1]) / np.exp([4, 3, 2, 1]).sum()
    zero = applied(ablate(TINY, 1, 1, "zero"))
    np.testing.assert_allclose(zero.weights[0], full * [1, 0, 1, 1], rtol=1e-6)
    renormalized = applied(ablate(TINY, 1, 1, "renormalize"))
    np.testing.assert_allclose(renormalized.weights[0], full * [1, 0, 1, 1] / (1 - full[1]), rtol=1e-6)
    masked = applied(ablate(TINY, 1, 1, "mask"))
    assert masked.experts[0].tolist() == [0, 2, 3, 4]
    np.testing.assert_allclose(masked.weights[0].sum(), 1, rtol=1e-6)
    assert masked.logits.tolist() == LOGITS.tolist()  # what is recorded stays the router's own


def test_forced_experts_enter_with_their_own_logits():
    routing = applied(force(TINY, 1, [7, 6]))
    assert set(routing.experts[0].tolist()) == {0, 1, 6, 7}
    assert routing.experts[0].tolist() == [0, 1, 6, 7]  # highest weight first
    expected = np.exp([4, 3, -2, -3])
    np.testing.assert_allclose(routing.weights[0], expected / expected.sum(), rtol=1e-5)


def test_all_chosen_ablated_gives_zero_not_nan():
    routing = applied(ablate(TINY, 1, [0, 1, 2, 3], "renormalize"))
    assert routing.weights.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    "build",
    [
        lambda: ablate(TINY, 4, 0),
        lambda: ablate(TINY, 0, 8),
        lambda: ablate(TINY, 0, -1),
        lambda: ablate(TINY, 0, 0, "remove"),
        lambda: ablate(TINY, 0, range(5), "mask"),
        lambda: force(TINY, 0, [1, 1]),
        lambda: force(TINY, 0, range(5)),
        lambda: ablate(TINY, 0, []),
    ],
)
def test_bad_requests_are_named(build):
    with pytest.raises(ValueError, match=r"layer|experts|how|mask|force"):
        build()


def test_only_tokens_from_the_first_affected_one_change():
    model = gj.GptOss(TINY, rngs=nnx.Rngs(0))
    tokens = np.random.default_rng(0).integers(0, 320, 30)
    base = gj.trace(model, tokens)
    layer, token = 2, 9
    target = int(base.experts[token, layer, 0])
    affected = (base.experts[:, layer] == target).any(-1)
    first = int(np.flatnonzero(affected)[0])
    for how in ("renormalize", "zero", "mask"):
        changed = gj.trace(model, tokens, change=ablate(TINY, layer, target, how))
        assert np.array_equal(changed.logits[:first], base.logits[:first])  # bit for bit
        assert not np.array_equal(changed.logits[first], base.logits[first])
        assert np.array_equal(changed.experts[:, :layer], base.experts[:, :layer])
    assert not (gj.trace(model, tokens, change=ablate(TINY, layer, target, "mask")).experts[:, layer] == target).any()
