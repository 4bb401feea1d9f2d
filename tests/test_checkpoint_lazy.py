"""Experts that stay in the files: the same model, read as it is used."""

import jax
import numpy as np
import pytest

import gptoss_jax as gj
from gptoss_jax.checkpoint import CheckpointError, lazy, load
from gptoss_jax.experts import GATHER_UP_TO
from gptoss_jax.model import Record

TOKENS = np.random.default_rng(0).integers(0, 200, 24)


@pytest.mark.parametrize(("dtype", "lanes"), [("bfloat16", False), ("float32", True)])
def test_the_same_logits_routing_and_answer(golden_folder, dtype, lanes):
    whole, _ = load(golden_folder / "small", dtype, lanes=lanes)
    part, _ = load(golden_folder / "small", dtype, lanes=lanes, lazy_experts=True)
    a, b = gj.trace(whole, TOKENS), gj.trace(part, TOKENS)  # 24 tokens visit, the cached steps below gather
    np.testing.assert_array_equal(a.experts, b.experts)
    np.testing.assert_allclose(a.logits, b.logits, atol=1e-5 if dtype == "float32" else 0.05)
    assert list(gj.generate(whole, TOKENS, 5)) == list(gj.generate(part, TOKENS, 5))


def test_padding_asks_for_an_expert_past_the_last(golden_folder):
    model, _ = load(golden_folder / "small", "float32", lazy_experts=True)
    whole, _ = load(golden_folder / "small", "float32")
    for count in (1, 3, 5):
        assert list(gj.generate(model, TOKENS[:count], 3)) == list(gj.generate(whole, TOKENS[:count], 3))
    last = model.config.num_layers * model.config.num_experts
    np.testing.assert_array_equal(model.dispatch[last].down_bias, model.dispatch[last - 1].down_bias)


def test_only_chosen_experts_are_read_and_those_used_last_stay(golden_folder, monkeypatch):
    model, _ = load(golden_folder / "small", "float32", lazy_experts=True)
    assert all(leaf.size == 0 for leaf in jax.tree.leaves(model.blocks.mlp.experts))
    trace = gj.trace(model, TOKENS[:3])
    served = {(layer, e) for layer in range(trace.num_layers) for e in trace.experts[:, layer].reshape(-1).tolist()}
    info = model.dispatch._read.cache_info()
    assert info.misses == len(served) < model.config.num_layers * model.config.num_experts
    gj.trace(model, TOKENS[:3])
    assert model.dispatch._read.cache_info().misses == info.misses


def test_padding_reads_nothing(golden_folder):
    model, _ = load(golden_folder / "small", "float32", lazy_experts=True)
    tokens = np.pad(TOKENS[:3], (0, GATHER_UP_TO - 3))[None]
    experts = model.run(tokens, np.array([3]), record=Record(routing=True)).routing.experts
    read = model.dispatch._read.cache_info().misses
    served = {(layer, e) for layer, chosen in enumerate(experts) for e in chosen[0, :3].reshape(-1).tolist()}
    assert read == len(served)


def test_little_memory_keeps_one_expert(golden_folder, monkeypatch):
    monkeypatch.setattr("gptoss_jax.checkpoint.reading.available_memory", lambda: 1)
    monkeypatch.setattr("gptoss_jax.checkpoint.placing.available_memory", lambda: 1 << 40)
    model, _ = load(golden_folder / "small", "float32", lazy_experts=True)
    assert model.dispatch.kept == 1
    whole, _ = load(golden_folder / "small", "float32")
    np.testing.assert_array_equal(gj.trace(model, TOKENS).experts, gj.trace(whole, TOKENS).experts)


def test_what_needs_the_weights_says_so(golden_folder):
    model, _ = load(golden_folder / "small", "float32", lazy_experts=True)
    with pytest.raises(ValueError, match="lazy_experts"):
        model.blocks.mlp.experts.weights()
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), ("data", "expert", "tensor"))
    with pytest.raises(CheckpointError, match="leave it out with a mesh"):
        load(golden_folder / "small", mesh=mesh, lazy_experts=True)


def test_a_wrong_expert_would_be_seen(golden_folder, monkeypatch):
    real = lazy.ExpertFiles._read_now
    monkeypatch.setattr(lazy.ExpertFiles, "_read_now", lambda self, index: real(self, index ^ 1))
    model, _ = load(golden_folder / "small", "float32", lazy_experts=True)
    whole, _ = load(golden_folder / "small", "float32")
    assert np.abs(gj.trace(model, TOKENS).logits - gj.trace(whole, TOKENS).logits).max() > 1e-2
