"""Interventions on the routing: one layer by hand, then through the model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gptoss_jax as gj
from gptoss_jax.config import TINY
from gptoss_jax.interventions import Intervention, ablate, force, intervene, replace_router, replay
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


def test_renormalizing_leaves_untouched_tokens_bit_for_bit():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(400, 8)), jnp.float32)
    before = choose(logits, 4)
    assert (before.weights.sum(-1) != 1).any()  # rounded sums: dividing by them would show
    after = intervene(before, jax.tree.map(jnp.asarray, ablate(TINY, 1, 3, "renormalize").layer(1)))
    served = np.asarray((before.experts == 3).any(-1))
    assert np.array_equal(before.weights[~served], after.weights[~served])
    assert not (np.asarray(before.weights[served]) == np.asarray(after.weights[served])).all(-1).any()


def test_a_replaced_router_routes_as_if_it_were_the_models_own():
    model, other = gj.GptOss(TINY, rngs=nnx.Rngs(0)), gj.GptOss(TINY, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(8, 64)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    tokens, router = rng.integers(0, 320, 12), model.blocks.mlp.router
    change = replace_router(TINY, router, 2, weight, bias)
    own = other.blocks.mlp.router
    own.weight[...], own.bias[...] = own.weight[...].at[2].set(weight), own.bias[...].at[2].set(bias)
    replaced, expected = gj.trace(model, tokens, change=change), gj.trace(other, tokens)
    for name in ("experts", "weights", "router_logits", "logits"):
        np.testing.assert_allclose(getattr(replaced, name), getattr(expected, name), rtol=1e-5, atol=1e-6)
    base = gj.trace(model, tokens)
    assert np.array_equal(base.experts[:, :2], replaced.experts[:, :2])
    assert not np.array_equal(base.experts[:, 2], replaced.experts[:, 2])
    # Replacing by itself changes nothing, and a replaced router can be ablated as well.
    same = gj.trace(model, tokens, change=replace_router(TINY, router, 1))
    np.testing.assert_allclose(same.logits, base.logits, rtol=1e-5, atol=1e-6)
    target = int(replaced.experts[0, 2, 0])
    both = dataclasses.replace(change, selection_LE=ablate(TINY, 2, target, "mask").selection_LE)
    assert not (gj.trace(model, tokens, change=both).experts[:, 2] == target).any()


def test_a_router_of_the_wrong_shape_is_named():
    router = gj.GptOss(TINY, rngs=nnx.Rngs(0)).blocks.mlp.router
    with pytest.raises(ValueError, match=r"weight_ED must be \[8, 64\].*not \[64, 8\]"):
        replace_router(TINY, router, 0, np.zeros((64, 8)))
    with pytest.raises(ValueError, match=r"bias_E must be \[8\]"):
        replace_router(TINY, router, 0, bias_E=np.zeros(7))
    with pytest.raises(ValueError, match="layer 9"):
        replace_router(TINY, router, 9)


def test_a_replayed_run_is_the_run_itself():
    model = gj.GptOss(TINY, rngs=nnx.Rngs(0))
    tokens = np.random.default_rng(2).integers(0, 320, 21)  # padded to 32: the padding chooses for itself
    base = gj.trace(model, tokens)
    again = gj.trace(model, tokens, change=replay(TINY, base.experts))
    np.testing.assert_array_equal(again.experts, base.experts)
    np.testing.assert_allclose(again.logits, base.logits, rtol=1e-5, atol=1e-6)


def test_replay_sends_every_token_where_it_is_told():
    model = gj.GptOss(TINY, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, 320, 16)
    wanted = rng.permuted(np.tile(np.arange(8), (16, 4, 1)), axis=-1)[..., :4]
    told = gj.trace(model, tokens, change=replay(TINY, wanted))
    np.testing.assert_array_equal(np.sort(told.experts), np.sort(wanted))
    chosen = np.exp(np.take_along_axis(told.router_logits, told.experts, -1))
    np.testing.assert_allclose(told.weights, chosen / chosen.sum(-1, keepdims=True), rtol=1e-5)
    assert (np.diff(told.weights) <= 0).all()
    own = np.argsort(-told.router_logits, axis=-1, kind="stable")[..., :4]
    assert not np.array_equal(np.sort(own), np.sort(wanted))  # what is recorded stays the router's own


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        (np.zeros((5, 4), int), r"integers \[T, 4, 4\]"),
        (np.zeros((5, 4, 3), int), r"integers \[T, 4, 4\]"),
        (np.tile(np.arange(4.0), (5, 4, 1)), "float64"),
        (np.tile([0, 1, 2, 8], (5, 4, 1)), "0 .. 7"),
        (np.tile([0, 1, 2, 1], (5, 4, 1)), "twice"),
    ],
)
def test_a_replay_that_cannot_be_is_named(experts, message):
    with pytest.raises(ValueError, match=message):
        replay(TINY, experts)


def test_a_replay_of_a_longer_run_is_named():
    model = gj.GptOss(TINY, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="17 tokens, and 16 are run"):
        gj.trace(model, np.arange(9), change=replay(TINY, np.tile(np.arange(4), (17, 4, 1))))
