"""Whether experts differ: dead ones, entropy of the load, what an expert tells about the kind of text."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from gptoss_jax.nano.evaluation.text import Reading
from gptoss_jax.routing import metrics

RESAMPLES = 40


@dataclasses.dataclass(frozen=True)
class Experts:
    """Per layer, over all kinds of held-out text together; information in nats.

    Attributes:
      dead: int [L], experts that served no token.
      least, most: [L], smallest and largest load, 1 where even.
      entropy: [L], of the load, over ln E.
      information: [L], I(expert; domain), every domain with the same weight.
      shuffled: [L], the same with the documents' domains dealt out anew.
      untrained: [L], the same of a network with random weights on the same tokens.
      given_token: [L], I(expert; domain | token id).
      given_token_low, given_token_shuffled_high: [L], lower end of its 95 % interval, and upper end of the shuffles.
    """

    dead: np.ndarray
    least: np.ndarray
    most: np.ndarray
    entropy: np.ndarray
    information: np.ndarray
    shuffled: np.ndarray
    untrained: np.ndarray
    given_token: np.ndarray
    given_token_low: np.ndarray
    given_token_shuffled_high: np.ndarray


def measure(readings: Mapping[str, Reading], untrained: Mapping[str, Reading], num_experts: int) -> Experts:
    """Measure the routing of held-out text against chance and against an untrained network."""
    ids, labels, tokens, groups = together(readings)
    load = np.stack([np.bincount(ids[:, layer].ravel(), minlength=num_experts) for layer in range(ids.shape[1])])
    share = load / load.sum(1, keepdims=True)
    entropy = -np.sum(share * np.log(np.maximum(share, 1e-300)), axis=1) / np.log(num_experts)
    options: dict[str, Any] = {"num_experts": num_experts, "groups": groups, "resamples": RESAMPLES}
    plain = metrics.domain_information(ids, labels, **options)
    given = metrics.conditional_information(ids, labels, tokens, **options)
    before = metrics.domain_information(together(untrained)[0], labels, num_experts=num_experts, resamples=0)
    assert plain.baseline is not None and given.interval is not None and given.baseline_range is not None
    return Experts(
        (load == 0).sum(1),
        share.min(1) * num_experts,
        share.max(1) * num_experts,
        entropy,
        plain.value,
        plain.baseline,
        before.value,
        given.value,
        given.interval[0],
        given.baseline_range[1],
    )


def together(readings: Mapping[str, Reading]) -> tuple[np.ndarray, list[str], np.ndarray, np.ndarray]:
    """Expert ids, domain of every token, token ids, and number of the document that every token belongs to."""
    ids = np.concatenate([reading.experts for reading in readings.values()])
    labels = [name for name, reading in readings.items() for _ in range(len(reading.tokens))]
    tokens = np.concatenate([reading.tokens for reading in readings.values()])
    groups, last = [], 0
    for reading in readings.values():
        groups.append(reading.document + last)
        last += int(reading.document.max()) + 1
    return ids, labels, tokens, np.concatenate(groups)
