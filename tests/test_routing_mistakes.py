"""Seven mistakes found in published routing code, planted here and caught by the checks of the definitions."""

from itertools import pairwise

import numpy as np
import pytest
from routing_cases import from_logits, random_trace, relabeled

from gptoss_jax.routing import foreign, metrics
from gptoss_jax.tracing import TraceError


def test_1_coactivation_that_counts_only_neighbors_in_rank():
    """OLMoE's script pairs adjacent ranks: X - 1 pairs of a set instead of X (X - 1) / 2."""
    trace = random_trace(300, 1, 10, 4)
    N = np.zeros((10, 10))
    for ids in trace.experts[:, 0]:
        for a, b in pairwise(ids):
            N[a, b] += 1
            N[b, a] += 1
    c = metrics.coactivation(trace)
    wrong = (N / c.count[0][:, None]).sum(-1)
    np.testing.assert_allclose(np.nansum(c.given[0], -1), 3)  # a row sums to X - 1
    assert wrong.max() < 2.1
    assert abs((wrong * c.count[0]).sum() / c.count[0].sum() - 1.5) < 1e-9  # 2 * 3 pairs over 4 choices


def test_2_flow_that_pairs_equal_ranks():
    """Zipping flattened ids pairs rank r with rank r: X pairs a token instead of X * X."""
    trace = random_trace(200, 2, 6, 3)
    J = metrics.flow(trace, weighted=False, resamples=0).joint[0]
    zipped = np.zeros((6, 6))
    for a, b in zip(trace.experts[:, 0].ravel(), trace.experts[:, 1].ravel(), strict=True):
        zipped[a, b] += 1 / (200 * 3)
    assert (J > 0).sum() > (zipped > 0).sum() or np.abs(J - zipped).max() > 0.01
    # the margins agree, so only the joint itself can tell: a token's pairs are the product of its two sets
    one = random_trace(1, 2, 6, 3)
    expected = np.zeros((6, 6))
    expected[np.ix_(one.experts[0, 0], one.experts[0, 1])] = 1 / 9
    np.testing.assert_allclose(metrics.flow(one, weighted=False, resamples=0).joint[0], expected)


def test_3_vocabulary_specialization_with_swapped_ids_or_an_unwritten_minimum():
    """Predicted and next ids are different arrays, and the minimum count changes the answer, so it is an argument."""
    T = 60
    ids = np.arange(T)[:, None, None] % 3
    logits = np.eye(3)[np.random.default_rng(0).integers(3, size=T)]
    trace = from_logits(np.eye(3)[ids[..., 0]] * 9, 1, tokens=np.roll(ids[:, 0, 0], 1), logits=logits)
    score = {
        which: metrics.vocabulary_specialization(trace, which, resamples=0).value[0] for which in ("next", "predicted")
    }
    assert score["next"] == 1
    assert score["predicted"] < 0.7
    rare = random_trace(40)
    loose, strict = (metrics.vocabulary_specialization(rare, min_count=n, resamples=0) for n in (1, 9))
    assert loose.count[0] > strict.count[0]
    assert loose.value[0] != strict.value[0]
    # a label stands at its own id: expert 2's best token is the one it serves
    assert metrics.top_tokens(trace, 0, 2, token="next", min_count=1).ids[0] == trace.tokens[3]


def test_4_a_recorder_that_loses_the_prompt():
    """Counting tokens per layer call drops every prompt row; rows that do not fit the tokens are an error here."""
    L, prompt, generated = 4, 70, 20
    ids = np.tile(np.arange(2), (prompt + generated, L, 1))
    decode_only = ids[-(generated - 1) :]
    with pytest.raises(TraceError, match="19 positions for 70 prompt and 20 generated"):
        foreign.from_vllm(decode_only, 8, range(prompt), range(generated))
    trace = foreign.from_vllm(ids, 8, range(prompt), range(generated))
    assert (~trace.generated).sum() == prompt


def test_5_a_router_without_its_bias_and_a_softmax_before_the_top_k():
    """Logits without the bias choose other sets; weights kept from a softmax over all do not sum to 1."""
    rng = np.random.default_rng(0)
    without = rng.normal(size=(400, 1, 32)) * 0.5
    bias = rng.normal(size=32) * 0.5
    right, wrong = from_logits(without + bias, 4), from_logits(without, 4)
    assert (metrics.overlap(right, wrong) == 1).mean() < 0.5
    p = np.exp(right.router_logits) / np.exp(right.router_logits).sum(-1, keepdims=True)
    kept = np.take_along_axis(p, right.experts, -1).sum(-1)
    assert kept.mean() < 0.6
    np.testing.assert_allclose(right.weights.sum(-1), 1, atol=1e-6)
    # a trace whose weights and logits do not belong together is visible: w is the softmax of its own chosen logits
    z = np.take_along_axis(right.router_logits, right.experts, -1)
    np.testing.assert_allclose(np.log(right.weights[..., 0] / right.weights[..., 1]), z[..., 0] - z[..., 1], atol=1e-4)
    assert (metrics.margins(right).of_set >= 0).all()


def test_6_routing_velocity_compares_ids_of_two_layers():
    """KL(load_l || load_(l-1)) moves under relabeling, the shared information of the flow does not."""
    trace = random_trace(200, 2, 8, 2)

    def velocity(t):
        p, q = metrics.load(t).value + 1e-9
        return (p * np.log(p / q)).sum()

    draws = [relabeled(trace, seed)[0] for seed in range(5)]
    assert np.ptp([velocity(t) for t in draws]) > 0.05
    assert np.ptp([metrics.flow(t, resamples=0).shared.value[0] for t in draws]) < 1e-9


def test_7_balance_loss_that_pools_the_layers_first():
    """Two layers that each collapse onto other experts look balanced when pooled."""
    z = np.full((20, 2, 4), -9.0)
    z[:, 0, :2], z[:, 1, 2:] = 9, 9
    trace = from_logits(z, 2)
    f = np.bincount(trace.experts.ravel(), minlength=4) / trace.experts.size
    p = (np.exp(z) / np.exp(z).sum(-1, keepdims=True)).mean((0, 1))
    assert 4 * (f * p).sum() == pytest.approx(1)  # pooled: perfect balance
    np.testing.assert_allclose(metrics.balance_loss(trace).value, 2, atol=1e-6)  # per layer: collapsed
