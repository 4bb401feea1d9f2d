"""What metrics say about input that cannot be answered."""

import subprocess
import sys

import numpy as np
import pytest
from routing_cases import random_trace

from gptoss_jax.routing import metrics
from gptoss_jax.routing.metrics import MetricError
from gptoss_jax.tracing import Trace, TraceError

TRACE = random_trace(20)
LABELS = ["a", "b"] * 10
EMPTY = Trace(np.zeros(0), np.zeros((0, 3, 2)), np.zeros((0, 3, 2)), 6, np.zeros((0, 3, 6)), np.zeros((0, 7)))
ONE = random_trace(1)
COMPACT = Trace(TRACE.tokens, TRACE.experts, TRACE.weights, 6)
IDS_ONLY = Trace(TRACE.tokens, TRACE.experts, TRACE.weights, 6, has_weights=False, package_version="vLLM")

ALL = {
    "load": lambda t, labels: metrics.load(t),
    "mass": lambda t, labels: metrics.mass(t),
    "first_choice": lambda t, labels: metrics.first_choice(t),
    "layer_weights": lambda t, labels: metrics.layer_weights(t, 0),
    "gate_entropy": lambda t, labels: metrics.gate_entropy(t),
    "router_entropy": lambda t, labels: metrics.router_entropy(t),
    "margins": lambda t, labels: metrics.margins(t),
    "balance": lambda t, labels: metrics.balance(t),
    "balance_loss": lambda t, labels: metrics.balance_loss(t),
    "coactivation": lambda t, labels: metrics.coactivation(t),
    "domain_specialization": lambda t, labels: metrics.domain_specialization(t, labels, resamples=3),
    "domain_divergence": lambda t, labels: metrics.domain_divergence(t, labels, resamples=3),
    "domain_information": lambda t, labels: metrics.domain_information(t, labels, resamples=3),
    "conditional_information": lambda t, labels: metrics.conditional_information(t, labels, resamples=3),
    "vocabulary_specialization": lambda t, labels: metrics.vocabulary_specialization(t, min_count=1, resamples=3),
    "top_tokens": lambda t, labels: metrics.top_tokens(t, 0, 0, min_count=1),
    "saturation": lambda t, labels: metrics.saturation(t, t),
    "repetition": lambda t, labels: metrics.repetition(t),
    "flow": lambda t, labels: metrics.flow(t),
    "standing_committee": lambda t, labels: metrics.standing_committee(t, labels),
    "by_part": lambda t, labels: metrics.by_part(t, "generated", resamples=3),
    "flips_by_margin": lambda t, labels: metrics.flips_by_margin(t, t),
}


@pytest.mark.parametrize("name", ALL)
def test_an_empty_trace_is_refused(name):
    with pytest.raises(MetricError, match=r"0 of 0 tokens are left|no token id occurs"):
        ALL[name](EMPTY, [])


@pytest.mark.parametrize("name", ALL)
def test_one_token_is_enough_for_all_but_repetition(name):
    if name == "repetition":
        with pytest.raises(MetricError, match="1 of 1 tokens are left, the metric needs 2"):
            ALL[name](ONE, ["a"])
    else:
        ALL[name](ONE, ["a"])


@pytest.mark.parametrize("name", ["router_entropy", "margins", "balance_loss", "flips_by_margin"])
def test_a_metric_that_needs_router_logits_says_so_by_name(name):
    field = "margins" if name == "flips_by_margin" else name
    with pytest.raises(MetricError, match=f"{field} needs router_logits, which a compact trace lacks"):
        ALL[name](COMPACT, LABELS)


@pytest.mark.parametrize(
    "name", ["mass", "first_choice", "layer_weights", "gate_entropy", "flow", "standing_committee"]
)
def test_a_metric_that_needs_weights_says_so_by_name(name):
    with pytest.raises(MetricError, match=f"{name}.* needs weights; vLLM kept the ids alone"):
        ALL[name](IDS_ONLY, LABELS)
    with pytest.raises(MetricError, match=f"{name}.* needs weights|num_experts is missing"):
        ALL[name](TRACE.experts, LABELS)


def test_vocabulary_logits_live_in_memory_only():
    with pytest.raises(MetricError, match="needs logits, which a saved trace lacks"):
        metrics.vocabulary_specialization(COMPACT, "predicted", min_count=1)


def test_parts_of_ids_alone_have_no_entropy_but_the_rest():
    parts = metrics.by_part(IDS_ONLY, "generated", resamples=0)
    assert np.isnan(parts.gate_entropy).all()
    assert np.isfinite(parts.load).all()


@pytest.mark.parametrize(
    ("ids", "experts", "message"),
    [
        (np.zeros((4, 2), int), 6, r"must be integers \[tokens, layers, k\], not int64 \[4, 2\]"),
        (np.zeros((4, 2, 1)), 6, "must be integers"),
        (np.full((4, 2, 1), 6), 6, r"expert id 6 lies outside 0 .. 5"),
        (np.full((4, 2, 1), -1), 6, r"expert id -1 lies outside 0 .. 5"),
        (np.zeros((4, 2, 2), int), 6, "token 0, layer 0 chose expert 0 twice"),
        (np.zeros((4, 2, 1), int), None, "num_experts is missing"),
    ],
)
def test_plain_ids_are_checked(ids, experts, message):
    with pytest.raises(MetricError, match=message):
        metrics.load(ids, experts)


def test_a_wrong_number_of_experts_and_wrong_masks_are_named():
    with pytest.raises(MetricError, match="num_experts is 7, but the trace was recorded with 6"):
        metrics.load(TRACE, 7)
    with pytest.raises(MetricError, match=r"mask must be bool \[20\]"):
        metrics.load(TRACE, mask=np.ones(19, bool))
    with pytest.raises(MetricError, match="0 of 20 tokens are left"):
        metrics.load(TRACE, mask=np.zeros(20, bool))
    with pytest.raises(MetricError, match=r"no token has channel 'commentary'; this trace has .*analysis"):
        metrics.token_mask(TRACE, channels="commentary")
    with pytest.raises(MetricError, match="has no roles"):
        metrics.token_mask(COMPACT, roles="user")
    with pytest.raises(MetricError, match="labels has 3 entries for 20 tokens"):
        metrics.domain_specialization(TRACE, ["a", "b", "c"])
    with pytest.raises(MetricError, match="a group holds tokens of two labels"):
        metrics.domain_specialization(TRACE, LABELS, groups=np.zeros(20), resamples=2)
    with pytest.raises(MetricError, match="threshold must lie above 0"):
        metrics.standing_committee(TRACE, LABELS, 0)
    with pytest.raises(MetricError, match=r"layer 3 lies outside 0 \.\. 2"):
        metrics.layer_weights(TRACE, 3)
    with pytest.raises(MetricError, match=r"expert 9 lies outside 0 \.\. 5"):
        metrics.top_tokens(TRACE, 0, 9, min_count=1)
    with pytest.raises(MetricError, match="no token id occurs 99 times among 20 tokens"):
        metrics.vocabulary_specialization(TRACE, min_count=99)
    with pytest.raises(MetricError, match="flow needs two layers"):
        metrics.flow(random_trace(5, 1))
    with pytest.raises(MetricError, match="known: 'top-k', 'switch'"):
        metrics.balance_loss(TRACE, "mixtral")
    with pytest.raises(MetricError, match="pass resamples > 0"):
        _ = metrics.domain_information(TRACE, LABELS, resamples=0).excess


def test_weights_and_rows_that_are_not_finite_are_refused():
    with pytest.raises(TraceError, match="weights hold 120 values that are not finite"):
        Trace(TRACE.tokens, TRACE.experts, TRACE.weights * np.nan, 6)
    with pytest.raises(MetricError, match="rows hold 1 values that are not finite"):
        metrics.row_similarity(np.array([[1.0, np.nan]]))


def test_traces_of_different_models_are_not_compared():
    other = random_trace(20, model="another")
    with pytest.raises(MetricError, match="different models, 'random' and 'another'"):
        metrics.saturation(TRACE, other)
    assert metrics.saturation(TRACE, other, across_checkpoints=True).value.shape == (3,)
    with pytest.raises(MetricError, match="different num_experts: 6 and 7"):
        metrics.saturation(TRACE, random_trace(20, E=7))
    with pytest.raises(MetricError, match="different num_layers: 3 and 2"):
        metrics.saturation(TRACE, random_trace(20, L=2))
    with pytest.raises(MetricError, match="of different tokens"):
        metrics.saturation(TRACE, random_trace(20, seed=9))
    with pytest.raises(MetricError, match="different models"):
        metrics.join({"a": TRACE, "b": other})
    with pytest.raises(MetricError, match="the traces differ"):
        metrics.saturation(TRACE.experts, TRACE.experts[:5], 6)


def test_join_keeps_everything_and_knows_where_it_came_from():
    a, b, c = random_trace(5), random_trace(7, seed=1), random_trace(3, seed=2)
    joined, labels, groups = metrics.join({"math": [a, b], "code": c})
    assert labels == ["math"] * 12 + ["code"] * 3
    assert groups.tolist() == [0] * 5 + [1] * 7 + [2] * 3
    for name in ("tokens", "experts", "weights", "router_logits", "logits", "generated", "special"):
        parts = [getattr(t, name) for t in (a, b, c)]
        np.testing.assert_array_equal(getattr(joined, name), np.concatenate(parts))
    assert joined.roles == a.roles + b.roles + c.roles
    compact = Trace(c.tokens, c.experts, c.weights, 6, model="random")
    assert metrics.join({"x": a, "y": compact})[0].router_logits is None
    with pytest.raises(MetricError, match="no traces to join"):
        metrics.join({})


def test_metrics_do_not_import_jax_or_matplotlib():
    code = "import sys; from gptoss_jax.routing import metrics, planted, foreign; "
    code += "assert not {'jax', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
