"""Packed means packed: compiled at the published sizes, no program holds more than two unpacked experts beside its
weights. Nothing is allocated here; the compiler says what it would."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from gptoss_jax import lanes, roofline
from gptoss_jax.cache import KVCache
from gptoss_jax.config import GPT_OSS_20B, SLIDING
from gptoss_jax.experts import ExpertWeights, moe
from gptoss_jax.lanes import PackedLanes
from gptoss_jax.model import GptOss
from gptoss_jax.mxfp4 import MXArray
from gptoss_jax.router import Routing

CONFIG = dataclasses.replace(
    GPT_OSS_20B.first_layers(4), vocab_size=1024, num_tokens=1024, eos_token_id=1023, pad_token_id=1023
)
D, F, E, X = CONFIG.hidden_size, CONFIG.intermediate_size, CONFIG.num_experts, CONFIG.experts_per_token
EXPERT_VALUES = 2 * F * D + D * F


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def experts(layout):
    if layout == "lanes":
        packed = lambda rows, inputs: PackedLanes(
            shape(4 * E, inputs // 32, 8, rows, dtype=jnp.uint16),
            shape(4 * E, inputs // 32, rows, dtype=jnp.uint8),
            shape(dtype=jnp.int32),
        )
    else:
        packed = lambda rows, inputs: MXArray(
            shape(4 * E, rows, inputs // 32, 16, dtype=jnp.uint8), shape(4 * E, rows, inputs // 32, dtype=jnp.uint8)
        )
    return ExpertWeights(packed(2 * F, D), shape(4 * E, 2 * F), packed(D, F), shape(4 * E, D))


def temporary(compiled):
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("layout", ["checkpoint", "lanes"])
@pytest.mark.parametrize(("tokens", "dispatch"), [(1, "gather"), (8, "gather"), (64, "scan"), (64, "dense")])
def test_experts_are_unpacked_one_at_a_time(layout, tokens, dispatch):
    routing = Routing(shape(tokens, E), shape(tokens, X, dtype=jnp.int32), shape(tokens, X))
    serve = jax.jit(lambda x, routing, weights, first: moe(x, routing, weights, CONFIG, first, dispatch))
    used = temporary(serve.lower(shape(tokens, D), routing, experts(layout), E).compile())
    assert used < 2 * 4 * EXPERT_VALUES  # in the float32 of these activations
    if layout == "lanes" and dispatch != "dense":
        assert used < 4 * EXPERT_VALUES / 4  # a tile of one matrix, never a whole expert


def abstract_model():
    model = nnx.eval_shape(lambda: GptOss(CONFIG, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        leaf = ".".join(map(str, path))
        sizes = lanes.arranged_shape(leaf, variable.get_value().shape)
        variable.set_value(shape(*sizes, dtype=lanes.arranged_dtype(leaf)))
    return model


@pytest.mark.parametrize("tokens", [1, 64])
def test_no_step_of_the_model_copies_its_weights(tokens):
    """As a large checkpoint is loaded on a CPU; this counts attention, norms and the cache's update as well."""
    cache = jax.eval_shape(lambda: KVCache.create(CONFIG, 1, 1024))
    run = jax.jit(lambda m, ids, n, cache: m.run(ids, n, cache)[:2], donate_argnums=3)
    ids, counts = shape(1, tokens, dtype=jnp.int32), shape(1, dtype=jnp.int32)
    assert temporary(run.lower(abstract_model(), ids, counts, cache).compile()) < 4 * EXPERT_VALUES / 2


def test_a_sliding_layer_costs_the_same_at_any_context():
    """Bytes accessed by the compiled decode step, with room for 1,024 tokens and for 32,768."""
    config = dataclasses.replace(CONFIG, num_layers=1, layer_types=(SLIDING,))
    model = nnx.eval_shape(lambda: GptOss(config, rngs=nnx.Rngs(0)))
    accessed = []
    for context in (1024, 32_768):
        cache = jax.eval_shape(lambda context=context: KVCache.create(config, 1, context))
        run = jax.jit(lambda m, ids, n, cache: m.run(ids, n, cache)[:2], donate_argnums=3)
        ids, counts = shape(1, 1, dtype=jnp.int32), shape(1, dtype=jnp.int32)
        analysis = run.lower(model, ids, counts, cache).compile().cost_analysis()
        accessed.append(analysis["bytes accessed"])
    assert accessed[0] == accessed[1] > 0


@pytest.mark.parametrize("context", [1024, 32_768])
def test_memory_is_what_the_roofline_says(context):
    """The arguments of the compiled decode step are the weights and the cache."""
    model, cache = abstract_model(), jax.eval_shape(lambda: KVCache.create(CONFIG, 1, context))
    run = jax.jit(lambda m, ids, n, cache: m.run(ids, n, cache)[:2], donate_argnums=3)
    ids, counts = shape(1, 1, dtype=jnp.int32), shape(1, dtype=jnp.int32)
    found = run.lower(model, ids, counts, cache).compile().memory_analysis().argument_size_in_bytes
    unembedding = 2 * CONFIG.vocab_size * CONFIG.hidden_size  # `run` ends before it
    weights = roofline.checkpoint_bytes(CONFIG) - unembedding
    assert found == pytest.approx(weights + roofline.cache_bytes(CONFIG, context, itemsize=4), rel=0.05)
