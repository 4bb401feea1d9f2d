"""The parity suite must see every classic mistake: each is planted as a patch of the shipped function.

The empty patch passes; every other must fail.
"""

import math

import jax
import jax.numpy as jnp
import pytest

from gptoss_jax import attention, experts, model, mxfp4, rope, router
from gptoss_jax.norms import linear
from tests.parity import suite

MASK, SOFTMAX, ATTEND = attention.attention_mask, attention.softmax_with_sink, attention.attend
ROTATE, BOUNDS, SWIGLU, UNPACK = rope.rotate, rope.yarn_bounds, experts.swiglu, mxfp4.unpack


def wider(by):
    return lambda q, k, window: MASK(q, k, None if window is None else window + by)


def no_sink(scores, sink):
    return SOFTMAX(scores, jnp.full_like(sink, -jnp.inf))


def scaled_sink(scores, sink):
    return SOFTMAX(scores, sink * 0.125)


def sink_per_kv_head(query, key, value, sink, mask):
    return ATTEND(query, key, value, jnp.broadcast_to(sink[:, :1], sink.shape), mask)


def halves(gate_up, limit=7.0, alpha=1.702):
    gate, up = jnp.split(gate_up, 2, axis=-1)
    return SWIGLU(jnp.stack([gate, up], -1).reshape(gate_up.shape), limit, alpha)


def two_sided_gate(gate_up, limit=7.0, alpha=1.702):
    return SWIGLU(jnp.clip(gate_up, -limit, None), limit, alpha)


def softmax_first(logits, count):
    probs, chosen = jax.lax.top_k(jax.nn.softmax(logits.astype(jnp.float32)), count)
    return router.Routing(logits, chosen, probs)


def no_router_bias(self, x):
    return router.choose(linear(x, self.weight[...]), self.count)


def transposed_down(self, dtype=jnp.float32):
    values = mxfp4.dequantize(self.blocks, self.scales, dtype)
    return values.swapaxes(-1, -2) if values.shape[-1] == values.shape[-2] else values


def rounded_bounds(config):
    low, high = BOUNDS(config)
    return math.floor(low), math.ceil(high)


def interleaved_pairs(x, cos, sin):
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = ROTATE(jnp.concatenate([even, odd], -1), cos, sin)
    return jnp.stack(jnp.split(turned, 2, axis=-1), -1).reshape(x.shape)


def swapped_nibbles(blocks):
    return UNPACK((blocks >> 4) | (blocks << 4))


MUTANTS = {
    "window one key wider": (model, "attention_mask", wider(1)),
    "window one key narrower": (model, "attention_mask", wider(-1)),
    "sinks dropped": (attention, "softmax_with_sink", no_sink),
    "sinks scaled like scores": (attention, "softmax_with_sink", scaled_sink),
    "sinks per key/value head": (attention, "attend", sink_per_kv_head),
    "gate and up as halves": (experts, "swiglu", halves),
    "lower clamp on the gate": (experts, "swiglu", two_sided_gate),
    "softmax before top-k": (router, "choose", softmax_first),
    "router bias dropped": (router.Router, "__call__", no_router_bias),
    "down projection transposed": (mxfp4.MXArray, "dequantize", transposed_down),
    "YaRN bounds rounded": (rope, "yarn_bounds", rounded_bounds),
    "rotary pairs interleaved": (attention, "rotate", interleaved_pairs),
    "nibbles swapped": (mxfp4, "unpack", swapped_nibbles),
}


@pytest.fixture(autouse=True)
def fresh_programs():
    """Compiled programs remember the functions they were made of."""
    jax.clear_caches()
    yield
    jax.clear_caches()


def test_the_empty_patch_passes():
    suite.everything()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_fault_is_seen(name, monkeypatch):
    home, attribute, fault = MUTANTS[name]
    monkeypatch.setattr(home, attribute, fault)
    with pytest.raises(AssertionError):
        suite.everything()
