"""The dispatch for accelerators against the definition, on the CPU, where both run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gptoss_jax import batched, sharding
from gptoss_jax.checkpoint import load
from gptoss_jax.config import TINY
from gptoss_jax.decoding import Decoder
from gptoss_jax.experts import Experts, dense
from gptoss_jax.model import Record, prepare, run_recorded
from gptoss_jax.mxfp4 import MXArray
from gptoss_jax.router import Routing, choose
from gptoss_jax.sampling import Sampling

E, X, D = TINY.num_experts, TINY.experts_per_token, TINY.hidden_size


@pytest.fixture(scope="module")
def experts():
    return Experts(TINY, stack=(2,), dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_codes_of_every_byte_are_exact():
    blocks = np.arange(256, dtype=np.uint8).reshape(16, 1, 16)
    values = np.asarray(MXArray(blocks, np.full((16, 1), 127, np.uint8)).dequantize()).reshape(-1, 2)
    for got, expected in zip(batched.codes(jnp.asarray(blocks)), values.T, strict=True):
        np.testing.assert_array_equal(np.asarray(got).reshape(-1) * 2.0**14, expected)


@pytest.mark.parametrize("scale", [15, 60, 127, 200, 240])
def test_scales_are_powers_of_two(scale):
    weight = MXArray(np.full((1, 1, 1, 16), 0x22, np.uint8), np.full((1, 1, 1), scale, np.uint8))  # every value is 1
    x = np.zeros((1, 32), np.float32)
    x[0, 7] = 1
    got = batched.multiply_pairs(jax.tree.map(jnp.asarray, weight), jnp.zeros(1, int), jnp.asarray(x))
    assert float(got[0, 0]) == 2.0 ** (scale - 127)


def cases() -> dict[str, Routing]:
    rng = np.random.default_rng(1)
    found = {f"{T} tokens": choose(jnp.asarray(rng.normal(size=(T, E)), jnp.float32), X) for T in (1, 3, 8, 9, 40, 130)}
    same = jnp.zeros((50, E)).at[:, :X].set(1.0)
    found["all tokens choose the same"] = choose(same, X)
    some = found["40 tokens"]
    found["the last seven are padding"] = Routing(some.logits, some.experts.at[-7:].set(E), some.weights.at[-7:].set(0))
    found["all are padding"] = Routing(some.logits, jnp.full_like(some.experts, E), jnp.zeros_like(some.weights))
    return found


@pytest.mark.parametrize("name", cases())
@pytest.mark.parametrize("serve", [batched.pairs, batched.tiles])
def test_equal_to_the_definition(serve, name, experts):
    routing = cases()[name]
    x = jnp.asarray(np.random.default_rng(2).normal(size=(len(routing.experts), D)), jnp.float32)
    expected = dense(x, routing, experts.weights(), TINY, E)  # the second layer
    got = jax.jit(lambda x, routing, weights: serve(x, routing, weights, TINY, E))(x, routing, experts.weights())
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_half_precision_result_is_near(experts):
    routing = cases()["40 tokens"]
    x = jnp.asarray(np.random.default_rng(2).normal(size=(40, D)), jnp.bfloat16)
    expected = dense(x.astype(jnp.float32), routing, experts.weights(), TINY)
    for serve in (batched.pairs, batched.tiles):
        got = serve(x, routing, experts.weights(), TINY)
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(got.astype(jnp.float32), expected, atol=0.02 * float(jnp.abs(expected).max()))


def test_a_layout_of_another_kind_is_refused(experts):
    weights = experts.weights()
    strange = type(weights)("lanes", weights.gate_up_bias, weights.down, weights.down_bias)
    with pytest.raises(TypeError, match="experts must be MXArray, the checkpoint's bytes, not str"):
        batched.pairs(jnp.zeros((1, D)), cases()["1 tokens"], strange, TINY)


@pytest.mark.parametrize("on_a_mesh", [False, True])
def test_golden_logits_routing_and_tokens(golden_folder, on_a_mesh):
    folder = golden_folder / "small"
    model, _ = load(folder, dtype="float32")
    if on_a_mesh:
        mesh = sharding.make_mesh(devices=jax.devices()[:1])
        model = sharding.shard(model, mesh)
        model.dispatch = sharding.ExpertParallel(model.config, mesh, at_once=True)
    else:
        model.dispatch = batched.Batched(model.config)
    tokens, padded, counts = prepare(model.config, np.load(folder / "tokens.npy"))
    output, logits = run_recorded(model, jnp.asarray(padded), jnp.asarray(counts), record=Record(routing=True))
    expected = np.load(folder / "logits_f32_openai.npy")
    assert np.abs(np.asarray(logits)[0, : len(tokens)] - expected).max() < 1e-4
    router = np.load(folder / "router_logits_f32.npy")
    chosen = np.argsort(-router, axis=-1, kind="stable")[..., :X]
    np.testing.assert_array_equal(np.asarray(output.routing.experts)[:, 0, : len(tokens)], chosen)
    if not on_a_mesh:  # one token at a time, from the cache
        decoder = Decoder(model, [tokens[:-3].tolist()], 4, sampling=Sampling.checked(), record=True)
        assert decoder.tokens[0] == expected[len(tokens) - 4].argmax()
        assert decoder.step(2).tokens.shape == (1, 2)
