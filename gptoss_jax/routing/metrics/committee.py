"""Experts that serve everybody: a standing committee, and the conversation part by part."""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from gptoss_jax.routing.metrics.confidence import gate_entropy
from gptoss_jax.routing.metrics.inputs import MetricError, Routed, chosen, label_codes, names_of, weights_of
from gptoss_jax.routing.metrics.loads import gini, load
from gptoss_jax.routing.metrics.measure import LEVEL, Measure, shuffle
from gptoss_jax.routing.metrics.specialization import domain_counts, domain_specialization
from gptoss_jax.tracing import Trace


class Committee(NamedTuple):
    """The smallest set of experts that carries a share of the weight, domain by domain.

    members: bool [L, D, E].
    size: int [L, D].
    mass: [L, D], the weight that the members carry, at least the threshold.
    gini: [L, D], inequality of the domain's mass.
    jaccard: `Measure` [L], mean over pairs of domains of |A & B| / |A | B|: 1 when every domain has the same members.
      Its baseline shuffles the labels: for small n it lies well below 1.
    standing: bool [L, E], members in every domain.
    tokens: int [D].
    names: the D labels.
    """

    members: np.ndarray
    size: np.ndarray
    mass: np.ndarray
    gini: np.ndarray
    jaccard: Measure
    standing: np.ndarray
    tokens: np.ndarray
    names: tuple


def standing_committee(
    routed: Routed,
    labels: Sequence,
    threshold: float = 0.5,
    num_experts: int | None = None,
    mask: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    weighted: bool = True,
    resamples: int = 20,
    seed: int = 0,
) -> Committee:
    """Which experts carry at least `threshold` of each domain's weight, and are they the same ones? (definition 21)

    Experts are taken by falling mass (ties: lower id) until their sum reaches the threshold, which gives the smallest
    set; size and mass grow with the threshold. This is a simplification of our own: the committee of arXiv 2601.03425,
    to which the idea belongs, is found by another procedure.

    Args:
      routed: a trace, or ids [T, L, X] with ``weighted=False``.
      labels: T domains.
      threshold: share of the weight, above 0 and at most 1.
      num_experts, mask, groups, resamples, seed: as for `domain_specialization`.
      weighted: use the weights; False gives every chosen expert 1 / X.
    """
    if not 0 < threshold <= 1:
        raise MetricError(f"threshold must lie above 0 and at most at 1, not {threshold}")
    ids, E = chosen(routed, num_experts, mask)
    w = weights_of(routed, "standing_committee with weighted=True", mask) if weighted else np.ones(ids.shape)
    names, codes = label_codes(labels, len(routed), mask)
    D = len(names)
    if groups is not None:
        groups = np.asarray(groups)[np.ones(len(routed), bool) if mask is None else mask]

    def choose(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        m = domain_counts(ids, E, codes, D, w)
        m /= m.sum(-1, keepdims=True)
        order = np.argsort(-m, axis=-1, kind="stable")
        before = np.cumsum(np.take_along_axis(m, order, -1), -1) - np.take_along_axis(m, order, -1)
        members = np.zeros(m.shape, bool)
        np.put_along_axis(members, order, before < threshold - 1e-12, -1)
        return m, members

    def jaccard(members: np.ndarray) -> np.ndarray:
        pairs = [(members[:, a], members[:, b]) for a, b in combinations(range(D), 2)]
        each = [(a & b).sum(-1) / (a | b).sum(-1) for a, b in pairs]
        return np.mean(each, 0) if each else np.ones(len(members))

    m, members = choose(codes)
    tokens = np.bincount(codes, minlength=D)
    same = Measure(jaccard(members), np.full(len(m), len(ids)))
    if resamples:
        rng = np.random.default_rng(seed)
        mixed = [jaccard(choose(shuffle(codes, groups, rng))[1]) for _ in range(resamples)]
        same = Measure(same.value, same.count, np.mean(mixed, 0), np.percentile(mixed, LEVEL, 0))
    mass = (m * members).sum(-1)
    return Committee(members, members.sum(-1), mass, gini(m), same, np.all(members, axis=1), tokens, tuple(names))


class Parts(NamedTuple):
    """A trace split by role, by channel, or into prompt and generated text.

    names: the P parts, in order of appearance.
    tokens: int [P]; sums to T.
    load: [P, L, E], definition 1 within each part; its average weighted by `tokens` is the load of the whole.
    gate_entropy: [P, L], mean of definition 6 within each part; NaN without weights.
    specialization: `Measure` [L, P, E], definition 12 with the parts as domains.
    """

    names: tuple
    tokens: np.ndarray
    load: np.ndarray
    gate_entropy: np.ndarray
    specialization: Measure


def part_labels(trace: Trace, by: Literal["role", "channel", "generated", "role and channel"]) -> list[str]:
    """The part that each token belongs to, T strings; "none" where it has no role or channel."""
    if by == "generated":
        return ["generated" if g else "prompt" for g in trace.generated]  # type: ignore[union-attr]
    if by not in ("role", "channel", "role and channel"):
        raise MetricError(f"by is {by!r}; known: 'role', 'channel', 'role and channel', 'generated'")
    columns = [names_of(trace, f"{field}s") for field in by.split(" and ")]
    return [" ".join(filter(None, row)) or "none" for row in zip(*columns, strict=True)]


def by_part(
    trace: Trace,
    by: Literal["role", "channel", "generated", "role and channel"] = "role and channel",
    mask: np.ndarray | None = None,
    resamples: int = 100,
    seed: int = 0,
) -> Parts:
    """Load, gate entropy and specialization of each part of a Harmony conversation (definition 28)."""
    labels = part_labels(trace, by)
    special = domain_specialization(trace, labels, mask=mask, resamples=resamples, seed=seed)
    keep = np.ones(len(trace), bool) if mask is None else np.asarray(mask)
    masks = [keep & np.array([label == name for label in labels]) for name in special.names]
    silent = np.full(trace.num_layers, np.nan)
    return Parts(
        special.names,
        np.array([m.sum() for m in masks]),
        np.stack([load(trace, mask=m).value for m in masks]),
        np.stack([gate_entropy(trace, m).value.mean(0) if trace.has_weights else silent for m in masks]),
        special,
    )
