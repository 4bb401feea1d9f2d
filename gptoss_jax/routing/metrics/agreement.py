"""Same token, another time: two traces of the same tokens, and one trace from token to token."""

import dataclasses
from collections.abc import Mapping
from math import comb
from typing import NamedTuple

import numpy as np

from gptoss_jax.routing.metrics.confidence import margins
from gptoss_jax.routing.metrics.inputs import MetricError, Routed, chosen, same_model
from gptoss_jax.routing.metrics.measure import LEVEL, Measure
from gptoss_jax.tracing import Trace


def overlap(
    a: Routed,
    b: Routed,
    num_experts: int | None = None,
    mask: np.ndarray | None = None,
    across_checkpoints: bool = False,
) -> np.ndarray:
    """Share of a token's experts that both traces chose: ``|S_a(t) & S_b(t)| / X``, float64 [T, L] in 0 .. 1.

    Args:
      a, b: two traces of the same tokens, or ids [T, L, X].
      num_experts: E, with plain ids.
      mask: bool [T], the tokens that count.
      across_checkpoints: allow two model names: both are checkpoints of one training run.
    """
    if isinstance(a, Trace) and isinstance(b, Trace):
        same_model(a, b, across_checkpoints)
        if not np.array_equal(a.tokens, b.tokens):
            raise MetricError("the traces are of different tokens; record both from the same ones")
    first, E = chosen(a, num_experts, mask)
    second, other = chosen(b, num_experts, mask)
    if first.shape != second.shape or other != E:
        raise MetricError(
            f"the traces differ: {list(first.shape)} of {E} experts and {list(second.shape)} of {other} experts"
        )
    return (first[..., :, None] == second[..., None, :]).sum((-2, -1)) / first.shape[-1]


def saturation(
    a: Routed,
    b: Routed,
    num_experts: int | None = None,
    mask: np.ndarray | None = None,
    across_checkpoints: bool = False,
    resamples: int = 200,
    seed: int = 0,
) -> Measure:
    """Mean `overlap` per layer: between checkpoints, dtypes, or a model and its quantized self (definition 15).

    Returns:
      value [L], 1 for equal routing; count [L], tokens; baseline X / E, two random sets; interval over tokens.

    Source: router saturation, OLMoE (arXiv 2409.02060, section 5.1).
    """
    each = overlap(a, b, num_experts, mask, across_checkpoints)
    ids, E = chosen(a, num_experts, mask)
    n, L = each.shape
    interval = None
    if resamples:
        rng = np.random.default_rng(seed)
        times = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
        interval = np.percentile(times @ each / n, LEVEL, 0)
    return Measure(each.mean(0), np.full(L, n), np.full(L, ids.shape[-1] / E), interval=interval)


def agreement_curves(base: Routed, others: Mapping[str, Routed], **options) -> Measure:
    """`saturation` of `base` with each of several perturbed traces (definition 16).

    Returns:
      value [P, L], count [P, L], baseline [P, L], interval [2, P, L]; names, the P keys of `others`.
    """
    if not others:
        raise MetricError("no traces to compare with")
    each = [saturation(base, other, **options) for other in others.values()]
    interval = None if each[0].interval is None else np.stack([m.interval for m in each], 1)  # type: ignore[misc]
    return Measure(
        np.stack([m.value for m in each]),
        np.stack([m.count for m in each]),
        np.stack([m.baseline for m in each]),  # type: ignore[misc]
        interval=interval,
        names=tuple(others),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Flips:
    """Share of tokens whose set changed, by how near it was to changing.

    edges: [B + 1], bounds of the margin, in logits; quantiles over all layers.
    rate: [L, B], share that flipped; NaN where a bin is empty.
    count: int [L, B], tokens in the bin.
    """

    edges: np.ndarray
    rate: np.ndarray
    count: np.ndarray


def flips_by_margin(base: Trace, other: Routed, bins: int = 8, **options) -> Flips:
    """Does the margin of `base` foretell which sets a perturbation changes? Needs router logits of `base` alone."""
    flipped = overlap(base, other, **options) < 1
    margin = margins(base, options.get("mask")).of_set
    if not np.isfinite(margin).all():
        raise MetricError("every expert is chosen: a set that cannot change has no margin")
    edges = np.quantile(margin, np.linspace(0, 1, bins + 1))
    at = np.clip(np.searchsorted(edges, margin, side="right") - 1, 0, bins - 1)
    L = margin.shape[1]
    key = (at + np.arange(L) * bins).ravel()
    count = np.bincount(key, minlength=L * bins).reshape(L, bins)
    hits = np.bincount(key, flipped.ravel(), minlength=L * bins).reshape(L, bins)
    return Flips(edges, np.where(count, hits / np.maximum(count, 1), np.nan), count)


class Repetition(NamedTuple):
    """Does the next token meet the same experts? Both `Measure` [L], counts are pairs, baselines are chance."""

    first: Measure
    any: Measure


def repetition(
    routed: Routed,
    num_experts: int | None = None,
    mask: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> Repetition:
    """Consecutive repetition (definition 17).

    ``first``: P(first choice of t + 1 = first choice of t), 1 / E by chance. ``any``: P(the sets of t and t + 1 meet),
    ``1 - C(E - X, X) / C(E, X)`` by chance (46 % for Mixtral's E = 8, X = 2).

    Args:
      routed: a trace, or ids [T, L, X], highest weight first.
      num_experts: E, with plain ids.
      mask: bool [T]; a pair counts when both of its tokens do.
      groups: int [T], the document of each token; a pair never spans two.

    Source: Mixtral (Jiang et al. 2024, arXiv 2401.04088, table 5).
    """
    ids, E = chosen(routed, num_experts, None, least=2)
    keep = np.ones(len(ids), bool) if mask is None else np.asarray(mask, bool)
    pair = keep[1:] & keep[:-1]
    if groups is not None:
        pair &= np.asarray(groups)[1:] == np.asarray(groups)[:-1]
    if not pair.any():
        raise MetricError("no two neighboring tokens are left: widen the mask")
    before, after = ids[:-1][pair], ids[1:][pair]
    X, L = ids.shape[2], ids.shape[1]
    count = np.full(L, len(before))
    meet = (before[..., :, None] == after[..., None, :]).any((-2, -1))
    chance = 1 - comb(E - X, X) / comb(E, X)
    return Repetition(
        Measure((before[..., 0] == after[..., 0]).mean(0), count, np.full(L, 1 / E)),
        Measure(meet.mean(0), count, np.full(L, chance)),
    )
