"""Ablation sweeps, contributions, logit lens and attention: each equals a plain loop on a small random model."""

import sys
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gptoss_jax as gj
from gptoss_jax import causes
from gptoss_jax.causes import ablating
from gptoss_jax.config import TINY
from gptoss_jax.experts import expert
from gptoss_jax.interventions import ablate, replace_router
from gptoss_jax.lanes import arrange_model
from gptoss_jax.model import Record, run_recorded
from gptoss_jax.mxfp4 import MXArray, quantize
from gptoss_jax.norms import rms_norm

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 320, 20)
LAYER = 2


@pytest.fixture(scope="module")
def model():
    model = gj.GptOss(TINY, rngs=nnx.Rngs(0))
    router = model.blocks.mlp.router  # uneven loads, and an expert that serves nobody
    router.bias[...] = jnp.asarray(RNG.normal(size=(4, 8)), jnp.float32).at[LAYER, 5].set(-9.0)
    scales = model.blocks.mlp.experts.down_scales  # experts that matter
    scales[...] = scales[...] + 5
    return model


@pytest.fixture(scope="module")
def base(model):
    return gj.trace(model, TOKENS)


@pytest.fixture(scope="module")
def effects(model):
    return {how: causes.ablation_sweep(model, TOKENS, LAYER, how) for how in ("renormalize", "zero", "mask")}


@pytest.fixture(scope="module")
def recorded(model):
    record = Record(routing=True, residual=True, middle=True, attention=True)
    output, logits = run_recorded(model, jnp.asarray(TOKENS[None]), jnp.array([20]), record=record)
    return output, np.asarray(logits[0])


def log_softmax(z):
    z = np.asarray(z, np.float64)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


@pytest.mark.parametrize("how", ["renormalize", "zero", "mask"])
def test_sweep_equals_one_ablation_after_another(model, base, effects, how):
    found = effects[how]
    assert (found.layers, found.how) == ((LAYER,), how)
    targets = [*TOKENS[1:], int(base.logits[-1].argmax())]
    assert found.targets.tolist() == targets
    for e in range(8):
        changed = gj.trace(model, TOKENS, change=ablate(TINY, LAYER, e, how)).logits
        for t in range(20):
            p, q = log_softmax(base.logits[t]), log_softmax(changed[t])
            divergence = sum(np.exp(p[v]) * (p[v] - q[v]) for v in range(320))
            np.testing.assert_allclose(found.divergence[0, e, t], divergence, atol=2e-6, rtol=1e-3)
            change = changed[t, targets[t]] - base.logits[t, targets[t]]
            np.testing.assert_allclose(found.logit_change[0, e, t], change, atol=2e-5)
            assert found.flips[0, e, t] == (changed[t].argmax() != base.logits[t].argmax())
            assert found.served[0, e, t] == (e in base.experts[t, LAYER])
    assert found.divergence.max() > 1e-3 and found.flips.any()


def test_nothing_changes_before_the_first_token_served(effects):
    for found in effects.values():
        assert not found.served[0, 5].any()
        late = found.reached.argmax(-1)[0]
        assert late.max() > 0
        for e in range(8):
            first = late[e] if found.served[0, e].any() else 20
            assert not found.divergence[0, e, :first].any()  # exactly
            assert not found.logit_change[0, e, :first].any() and not found.flips[0, e, :first].any()
            assert first == 20 or found.divergence[0, e, first] > 0
    # The three ways differ in what the others then do, not in whom they touch.
    assert not np.allclose(effects["zero"].divergence, effects["renormalize"].divergence, rtol=1e-2)
    assert not np.allclose(effects["mask"].divergence, effects["renormalize"].divergence, rtol=1e-2)


def test_one_program_serves_every_expert_layer_and_way(model, effects):
    before = ablating._sweep._cache_size()
    more = causes.ablation_sweep(model, TOKENS[:17], [0, 3], "mask", targets=np.zeros(17, int))
    assert ablating._sweep._cache_size() == before
    assert more.divergence.shape == (2, 8, 17) and not more.targets.any()


def test_means_and_counts(effects):
    found, where = effects["mask"], np.arange(20) >= 12
    means = found.mean(where)
    for e in range(8):
        kept = [t for t in range(20) if where[t]]
        np.testing.assert_allclose(
            means["divergence"][0, e], np.mean([found.divergence[0, e, t] for t in kept]), rtol=1e-5
        )
        assert means["served"][0, e] == sum(found.served[0, e, t] for t in kept)
        assert means["reached"][0, e] == sum(found.served[0, e, : t + 1].any() for t in kept)
    assert (means["positions"] == 8).all() and (found.mean()["positions"] == 20).all()
    with pytest.raises(ValueError, match="at least one of 20"):
        found.mean(np.zeros(20, bool))


def test_contributions_equal_a_loop_and_add_up(model, base, recorded):
    found = causes.contributions(model, TOKENS)
    output, logits = recorded
    stream, middle = np.asarray(output.residual[:, 0]), np.asarray(output.middle[:, 0])
    unembedding, scale = np.asarray(model.unembedding.weight[...]), np.asarray(model.norm.scale[...])
    assert np.array_equal(found.chosen, base.experts)
    weights = model.blocks.mlp.experts.weights()
    for t in (0, 7, 19):
        frozen = scale / np.sqrt(np.mean(stream[-1, t] ** 2) + TINY.rms_norm_eps)
        direction = unembedding[found.targets[t]] * frozen
        for layer in range(4):
            x = rms_norm(jnp.asarray(middle[layer, t]), model.blocks.mlp.norm.scale[...][layer], TINY.rms_norm_eps)
            parts = [
                w * np.asarray(expert(x, weights[layer * 8 + int(e)], TINY))
                for e, w in zip(base.experts[t, layer], base.weights[t, layer], strict=True)
            ]
            # The parts, biases included, are the output of the layer's experts.
            np.testing.assert_allclose(sum(parts), stream[layer + 1, t] - middle[layer, t], atol=2e-5)
            share = [np.linalg.norm(part) / np.linalg.norm(sum(parts)) for part in parts]
            np.testing.assert_allclose(found.share[t, layer], share, rtol=1e-4)
            np.testing.assert_allclose(found.experts[t, layer], [part @ direction for part in parts], atol=2e-5)
    np.testing.assert_allclose(found.logit, logits[np.arange(20), found.targets], atol=2e-5)
    total = found.embedding + found.attention.sum(-1) + found.experts.sum((-2, -1))
    np.testing.assert_allclose(total, found.logit, atol=5e-5)
    assert (found.share.sum(-1) >= 1 - 1e-5).all()  # triangle inequality
    # A part left out, or another layer's, would be seen.
    assert np.abs(total - found.experts[:, 1, 0] - found.logit).max() > 1e-3
    assert np.abs(found.experts).max() > 1e-3


def test_contributions_of_a_changed_model(model):
    change = ablate(TINY, 1, range(8), "zero")
    found = causes.contributions(model, TOKENS, targets=np.full(20, 7), change=change)
    assert not found.experts[:, 1].any() and np.isnan(found.share[:, 1]).all()
    assert found.experts[:, 0].any() and (found.targets == 7).all()


def test_lens_ends_with_the_models_own_answer(model, base, recorded):
    lens = causes.logit_lens(model, TOKENS)
    assert np.array_equal(lens.top[-1], base.logits.argmax(-1)) and np.array_equal(lens.targets, lens.top[-1])
    assert not lens.rank[-1].any()
    np.testing.assert_allclose(lens.probability[-1], np.exp(log_softmax(base.logits)).max(-1), rtol=2e-6)
    stream, scale = np.asarray(recorded[0].residual[:, 0], np.float64), np.asarray(model.norm.scale[...])
    unembedding = np.asarray(model.unembedding.weight[...])
    followed = causes.logit_lens(model, TOKENS, targets=TOKENS)
    for layer in range(5):
        for t in range(20):
            x = stream[layer, t]
            z = unembedding @ (scale * x / np.sqrt(np.mean(x**2) + TINY.rms_norm_eps))
            assert lens.top[layer, t] == z.argmax()
            assert followed.rank[layer, t] == sum(z > z[TOKENS[t]])
            p = np.exp(log_softmax(z))[TOKENS[t]]
            np.testing.assert_allclose(followed.probability[layer, t], p, rtol=1e-4)
    assert (lens.rank[0] > 0).any()  # without the layers the answer is another


def test_rank_of_equal_logits_goes_to_the_lower_id(model):
    flat = causes.with_weights(model, {"unembedding.weight": np.zeros_like})
    lens = causes.logit_lens(flat, TOKENS, targets=np.full(20, 3))
    assert (lens.top == 0).all() and (lens.rank == 3).all()


def test_attention_and_its_measures_equal_loops(model, recorded):
    weights = causes.attention_weights(model, TOKENS)
    assert weights.shape == (4, 4, 20, 20)
    np.testing.assert_allclose(weights.reshape(4, 2, 2, 20, 20), recorded[0].attention[:, 0], atol=1e-6)
    sink, distance = causes.sink_mass(weights), causes.attention_distance(weights)
    entropy = causes.attention_entropy(weights)
    for layer, head, t in ((0, 0, 0), (0, 3, 19), (1, 2, 19), (3, 1, 11)):
        row = weights[layer, head, t].astype(float)
        first = max(0, t - 7) if layer % 2 == 0 else 0
        assert not row[:first].any() and not row[t + 1 :].any() and (row[first : t + 1] > 0).all()
        total = sum(row)
        np.testing.assert_allclose(sink[layer, head, t], 1 - total, atol=1e-12)
        np.testing.assert_allclose(distance[layer, head, t], sum(row[j] * (t - j) for j in range(20)) / total)
        shares = [a / total for a in row if a > 0]
        np.testing.assert_allclose(entropy[layer, head, t], -sum(a * np.log(a) for a in shares), atol=1e-9)
    assert (sink > 0).all() and (sink < 1).all()
    assert distance[0::2].max() <= TINY.sliding_window - 1 < distance[1::2].max()
    assert not distance[:, :, 0].any() and not entropy[:, :, 0].any()


def test_measures_on_arrays_with_known_answers():
    even = np.tril(np.ones((4, 4))) / 8
    np.testing.assert_allclose(causes.sink_mass(even), 1 - np.arange(1, 5) / 8)
    np.testing.assert_allclose(causes.attention_distance(even), [0, 0.5, 1, 1.5])
    np.testing.assert_allclose(causes.attention_entropy(even), np.log([1, 2, 3, 4]))
    np.testing.assert_allclose(causes.attention_distance(even[2:]), [1, 1.5])  # the last two queries of four
    assert np.isnan(causes.attention_distance(np.zeros((1, 1)))).all()
    for wrong in (np.ones(3), np.ones((3, 2)), -even, even * np.nan):
        with pytest.raises(ValueError, match="attention"):
            causes.attention_entropy(wrong)


def test_a_replaced_router_is_measured_too(model):
    change = replace_router(TINY, model.blocks.mlp.router, LAYER, bias_E=np.arange(8) * 10.0)
    found = causes.contributions(model, TOKENS, change=change)
    assert (found.chosen[:, LAYER] == [7, 6, 5, 4]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: causes.ablation_sweep(m, TOKENS, 4), r"layers \[4\] lie outside 0 .. 3"),
        (lambda m: causes.ablation_sweep(m, TOKENS, []), "at least one"),
        (lambda m: causes.ablation_sweep(m, TOKENS, 0, "drop"), "how = 'drop'; known"),
        (lambda m: causes.ablation_sweep(m, [], 0), "prompt is empty"),
        (lambda m: causes.ablation_sweep(m, TOKENS, 0, targets=[1]), "one id for each of 20"),
        (lambda m: causes.contributions(m, [999]), "token id 999"),
        (lambda m: causes.contributions(m, TOKENS, targets=np.full(20, -1)), "token id -1"),
        (lambda m: causes.logit_lens(m, TOKENS[None]), r"one sequence \[T\]"),
    ],
)
def test_bad_requests_are_named(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_one_token(model):
    found = causes.ablation_sweep(model, TOKENS[:1], LAYER)
    assert found.divergence.shape == (1, 8, 1) and found.served.sum() == 4
    assert causes.attention_weights(model, TOKENS[:1]).shape == (4, 4, 1, 1)


FAULTS = {
    "divergence the wrong way round": ("ablating", "jnp.exp(log_p) *", "-jnp.exp(log_q) *"),
    "zero instead of renormalize": ("ablating", 'renormalize=how == WAYS.index("renormalize")', "renormalize=False"),
    "the part's own norm": ("attributing", "jnp.square(stream[-1])", "jnp.square(stream[0])"),
    "the layer's input instead of its middle": (
        "attributing",
        "rms_norm(middle_LTD[layer]",
        "rms_norm(stream[:-1][layer]",
    ),
    "ranks from 1": ("attributing", "jnp.sum(ahead, axis=-1)", "1 + jnp.sum(ahead, axis=-1)"),
    "distance with the sink in the denominator": ("attending", "weights = _rows(weights)\n    T, S", "T, S"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_seen(model, effects, fault):
    name, text, wrong = FAULTS[fault]
    source = Path(causes.__file__).with_name(f"{name}.py").read_text("utf-8")
    assert source.count(text) == 1
    spoiled = types.ModuleType(f"spoiled_{name}")
    sys.modules[spoiled.__name__] = spoiled
    exec(source.replace(text, wrong), vars(spoiled))
    if name == "ablating":
        found, right = spoiled.ablation_sweep(model, TOKENS, LAYER).divergence, effects["renormalize"].divergence
    elif name == "attending":
        weights = causes.attention_weights(model, TOKENS)
        found, right = spoiled.attention_distance(weights), causes.attention_distance(weights)
    elif fault == "ranks from 1":
        found, right = spoiled.logit_lens(model, TOKENS).rank, causes.logit_lens(model, TOKENS).rank
    else:
        found, right = spoiled.contributions(model, TOKENS).experts, causes.contributions(model, TOKENS).experts
    assert not np.allclose(found, right, rtol=1e-3, atol=1e-6)


def _rounded(model):
    once = lambda w: quantize(np.asarray(w, np.float32)).dequantize()
    twice = lambda packed: MXArray(packed.blocks, packed.scales + np.uint8(1))
    return causes.with_weights(model, {"blocks.attention.qkv.weight": once, "blocks.mlp.experts.down": twice})


def test_new_weights_enter_a_copy_and_leave_the_rest(model):
    before = gj.trace(model, TOKENS)
    changed = _rounded(model)
    qkv, down = model.blocks.attention.qkv.weight[...], model.blocks.mlp.experts.down_scales[...]
    np.testing.assert_array_equal(changed.blocks.attention.qkv.weight[...], quantize(qkv).dequantize())
    np.testing.assert_array_equal(changed.blocks.mlp.experts.down_scales[...], down + 1)
    assert changed.embedding.weight.get_value() is model.embedding.weight.get_value()  # shared, not copied
    np.testing.assert_array_equal(gj.trace(model, TOKENS).logits, before.logits)
    assert not np.array_equal(gj.trace(changed, TOKENS).logits, before.logits)
    nothing = causes.with_weights(model, {"blocks.mlp.experts.down": lambda packed: packed})
    np.testing.assert_array_equal(gj.trace(nothing, TOKENS).logits, before.logits)


def test_new_weights_are_the_same_in_both_layouts():
    plain = gj.GptOss(TINY, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    laid = gj.GptOss(TINY, rngs=nnx.Rngs(0), param_dtype=jnp.bfloat16)
    arrange_model(laid)
    a, b = (gj.trace(_rounded(model), TOKENS) for model in (plain, laid))
    np.testing.assert_allclose(a.logits, b.logits, rtol=1e-4, atol=1e-5)
    assert np.abs(a.logits - gj.trace(plain, TOKENS).logits).max() > 1e-3


def test_new_weights_that_do_not_fit_are_named(model):
    with pytest.raises(ValueError, match=r"'router'; known: .*blocks.mlp.router.weight"):
        causes.with_weights(model, {"router": lambda w: w})
    with pytest.raises(ValueError, match=r"norm.scale must stay \[64\], not become \[63\]"):
        causes.with_weights(model, {"norm.scale": lambda w: w[1:]})
