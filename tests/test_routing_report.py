"""The folder of figures: complete for a full trace, without what a poorer one lacks."""

import dataclasses

import numpy as np
import pytest
from routing_cases import random_trace

from gptoss_jax.routing import metrics
from gptoss_jax.routing.figures import Drawing
from gptoss_jax.routing.report import drawings

FULL = random_trace(60, 3, 8, 2)
ONE_LAYER = {"layers": [1], "resamples": 2}


def test_a_full_trace_gives_every_figure():
    labels = ["math" if t % 3 else "code" for t in range(60)]
    made = dict(drawings(FULL, labels, **ONE_LAYER))
    assert set(made) == {
        "load", "evenness", "mass", "first_choices", "gate_entropy", "tokens_layer_01", "router_entropy",
        "balance_loss", "margin", "together_layer_01", "repetition", "vocabulary", "flow", "flow_layer_01", "parts",
        "prompt_and_generated", "domain_information", "domain_information_given_token", "domains_layer_01",
        "divergence_layer_01", "committee", "committee_overlap",
    }  # fmt: skip
    assert all(isinstance(drawing, Drawing) and drawing.summary for drawing in made.values())


@pytest.mark.parametrize(
    ("poorer", "missing"),
    [
        ({"router_logits": None}, {"router_entropy", "balance_loss", "margin"}),
        ({"has_weights": False}, {"mass", "first_choices", "gate_entropy", "tokens_layer_01"}),
        ({"roles": (), "channels": ()}, {"parts"}),
        ({"generated": None}, {"prompt_and_generated"}),
        ({"tokens": np.arange(60)}, {"vocabulary"}),
    ],
)
def test_what_a_trace_lacks_is_left_out(poorer, missing):
    trace = dataclasses.replace(FULL, **poorer)
    names = [name for name, _ in drawings(trace, **ONE_LAYER)]
    everything = {
        "load", "evenness", "mass", "first_choices", "gate_entropy", "tokens_layer_01", "router_entropy",
        "balance_loss", "margin", "together_layer_01", "repetition", "vocabulary", "flow", "flow_layer_01", "parts",
        "prompt_and_generated",
    }  # fmt: skip
    assert everything - set(names) == missing


def test_one_token_and_no_token():
    one = dict(drawings(random_trace(1, 2, 4, 2), resamples=2))
    assert "load" in one
    assert "repetition" not in one
    with pytest.raises(metrics.MetricError, match="0 of 0 tokens"):
        next(drawings(FULL_EMPTY))


FULL_EMPTY = dataclasses.replace(
    FULL,
    **{
        name: getattr(FULL, name)[:0]
        for name in ("tokens", "experts", "weights", "router_logits", "logits", "generated")
    },
    **{name: getattr(FULL, name)[:0] for name in ("special", "roles", "channels", "token_text")},
)


def test_documents_too_few_to_shuffle_fall_back_to_tokens():
    joined, labels, groups = metrics.join({"a": FULL, "b": random_trace(60, 3, 8, 2, seed=1)})
    made = dict(drawings(joined, labels, groups, **ONE_LAYER))
    assert "against" in made["domain_information"].summary
