"""The model as users call it: shapes, padding, recording, errors."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gptoss_jax as gj
from gptoss_jax import model as module
from gptoss_jax.config import FULL, SLIDING, TINY
from gptoss_jax.model import Record, bucket, run_recorded

TOKENS = np.random.default_rng(0).integers(0, 320, 40)


@pytest.fixture(scope="module")
def model():
    return gj.GptOss(TINY, rngs=nnx.Rngs(0))


def test_shapes_follow_the_input(model):
    assert model(TOKENS).shape == (40, 320)
    assert model(np.stack([TOKENS, TOKENS])).shape == (2, 40, 320)
    assert model(TOKENS.tolist()).dtype == jnp.float32


def test_a_token_does_not_see_the_future(model):
    assert np.allclose(model(TOKENS)[:20], model(TOKENS[:20]), atol=1e-5)


def test_lengths_share_few_programs(model):
    model(TOKENS[:33])
    before = module._logits._cache_size()
    for length in range(33, 41):
        model(TOKENS[:length])
    assert module._logits._cache_size() == before
    assert [bucket(n) for n in (1, 16, 17, 100)] == [16, 16, 32, 128]


def test_recording_changes_nothing_and_returns_everything(model):
    padded, counts = jnp.asarray(TOKENS[None]), jnp.array([40])
    plain, logits = run_recorded(model, padded, counts)
    full, recorded = run_recorded(model, padded, counts, record=Record(routing=True, residual=True, attention=True))
    assert plain.routing is None
    assert plain.residual is None
    assert plain.attention is None
    np.testing.assert_allclose(logits, recorded, atol=1e-6)
    assert full.routing.logits.shape == (4, 1, 40, 8)
    assert full.routing.experts.shape == full.routing.weights.shape == (4, 1, 40, 4)
    assert full.residual.shape == (5, 1, 40, 64)
    assert full.attention.shape == (4, 1, 2, 2, 40, 40)
    rows = full.attention.sum(-1)
    assert (rows < 1).all()  # the rest is the sink's
    assert (rows > 0).all()
    np.testing.assert_allclose(model.norm(full.residual[-1]), full.hidden, atol=1e-6)
    far = np.subtract.outer(np.arange(40), np.arange(40)) >= TINY.sliding_window
    assert not np.asarray(full.attention[0::2])[..., far].any()


@pytest.mark.parametrize("kinds", [(SLIDING,), (FULL,), (FULL, SLIDING, SLIDING), (SLIDING, SLIDING, FULL) * 2])
def test_any_pattern_of_layers(kinds):
    config = dataclasses.replace(TINY, num_layers=len(kinds), layer_types=kinds)
    assert config.period == (3 if len(kinds) == 6 else len(kinds))
    model = gj.GptOss(config, rngs=nnx.Rngs(0))
    new = list(gj.generate(model, TOKENS[:20].tolist(), 12))
    logits = np.asarray(model(TOKENS[:20].tolist() + new))[19:-1]
    assert (logits.argmax(-1) == new).mean() > 0.9


def test_first_layers_of_a_model_agree_with_the_whole(model):
    padded, counts = jnp.asarray(TOKENS[None]), jnp.array([40])
    whole, _ = run_recorded(model, padded, counts, record=Record(residual=True))
    cut = gj.GptOss(TINY.first_layers(2), rngs=nnx.Rngs(0))
    graph, _ = nnx.split(cut)
    state = nnx.state(model)
    blocks = nnx.state(model.blocks)
    state["blocks"] = nnx.State(nnx.to_pure_dict(nnx.map_state(lambda _, v: v[...][:2], blocks)))
    short, _ = run_recorded(nnx.merge(graph, state), padded, counts, record=Record(residual=True))
    np.testing.assert_allclose(short.residual[-1], whole.residual[2], atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([], "empty"),
        ([[[1]]], "T"),
        ([320], "token id 320 at position 0"),
        ([0, -3], "token id -3 at position 1"),
        ([0.5], "integers"),
        (np.zeros(131_073, int), "context"),
    ],
)
def test_bad_tokens_are_named(model, tokens, message):
    with pytest.raises(ValueError, match=message):
        model(tokens)


def test_compile_size_does_not_grow_with_depth():
    def program(layers):
        model = gj.GptOss(dataclasses.replace(TINY, num_layers=layers, layer_types=()), rngs=nnx.Rngs(0))
        return len(module._logits.lower(model, jnp.zeros((1, 16), int), jnp.array([16])).as_text())

    assert program(12) < 1.05 * program(2)
