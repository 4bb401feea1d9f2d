"""Traces recorded by vLLM and by transformers."""

import numpy as np
import pytest
from routing_cases import from_logits, random_trace

from gptoss_jax.routing import foreign, metrics
from gptoss_jax.tracing import TraceError

TRACE = random_trace(12, 3, 8, 4)


class Tensor:
    """As much of a torch tensor as is needed."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def to(self, device):
        assert device == "cpu"
        return self

    def float(self):
        return self

    def numpy(self):
        return self.array


def test_vllm_ids_with_and_without_the_last_sampled_token():
    ids = TRACE.experts.astype(np.int16)
    for tokens in (range(12), range(13)):
        t = foreign.from_vllm(ids, 8, list(tokens)[:9], list(tokens)[9:], model="openai/gpt-oss-20b")
        assert np.array_equal(t.experts, TRACE.experts)
        assert t.generated.tolist() == [False] * 9 + [True] * 3
        assert (t.has_weights, t.router_logits, t.package_version, t.model) == (
            False,
            None,
            "vLLM",
            "openai/gpt-oss-20b",
        )
        assert np.array_equal(metrics.load(t).value, metrics.load(TRACE).value)


@pytest.mark.parametrize("wrap", [lambda z: z, lambda z: z[None], Tensor])
def test_transformers_logits(wrap):
    layers = tuple(wrap(TRACE.router_logits[:, layer]) for layer in range(3))
    t = foreign.from_transformers(layers, TRACE.tokens, 4)
    assert np.array_equal(t.experts, TRACE.experts)
    np.testing.assert_allclose(t.weights, TRACE.weights, atol=1e-6)
    assert np.array_equal(t.router_logits, TRACE.router_logits)
    assert t.has_weights


def test_transformers_4_scores_are_recognized():
    scores = np.zeros_like(TRACE.router_logits)
    np.put_along_axis(scores, TRACE.experts, TRACE.weights, -1)
    t = foreign.from_transformers([scores[:, layer] for layer in range(3)], TRACE.tokens, 4)
    assert t.router_logits is None
    assert np.array_equal(t.experts, TRACE.experts)
    np.testing.assert_allclose(t.weights, TRACE.weights, atol=1e-6)
    with pytest.raises(metrics.MetricError, match="margins needs router_logits"):
        metrics.margins(t)


def test_ties_go_to_the_lower_id():
    t = foreign.from_transformers([np.zeros((2, 8))], [1, 2], 4)
    assert t.experts.tolist() == [[[0, 1, 2, 3]]] * 2
    assert np.array_equal(t.experts, from_logits(np.zeros((2, 1, 8)), 4).experts)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: foreign.from_vllm(np.zeros((3, 2)), 8, [1, 2, 3]), r"must be integers \[tokens, layers, k\]"),
        (lambda: foreign.from_vllm(np.zeros((3, 2, 4), int), 8, [1, 2, 3, 4, 5]), "3 positions for 5 prompt and 0"),
        (lambda: foreign.from_vllm(np.full((1, 2, 4), -1), 8, [1]), "expert id -1 lies outside 0 .. 7"),
        (lambda: foreign.from_vllm(np.full((1, 2, 4), 8), 8, [1]), "expert id 8 lies outside 0 .. 7"),
        (lambda: foreign.from_transformers([], [1]), "router_logits is empty"),
        (lambda: foreign.from_transformers([np.zeros((2, 8))], [1]), r"router_logits\[0\] is \[2, 8\]"),
        (lambda: foreign.from_transformers([np.zeros((1, 8)), np.zeros((1, 9))], [1]), r"router_logits\[1\]"),
        (
            lambda: foreign.from_transformers([np.full((1, 8), np.nan)], [1]),
            r"\[0\] holds 8 values that are not finite",
        ),
        (lambda: foreign.from_transformers([np.zeros((1, 3))], [1], 4), "experts_per_token 4 lies outside 1 .. 3"),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(TraceError, match=message):
        call()
