"""How sure the router is: weights, entropies, and how near a token's set is to changing."""

from typing import NamedTuple

import numpy as np

from gptoss_jax.routing.metrics.inputs import MetricError, Routed, chosen, logits_of, weights_of
from gptoss_jax.routing.metrics.measure import Measure, entropy


class Top(NamedTuple):
    """First choice of every token in every layer: id int [T, L] and weight float64 [T, L] in 1/X .. 1."""

    expert: np.ndarray
    weight: np.ndarray


def first_choice(trace: Routed, mask: np.ndarray | None = None) -> Top:
    """The expert with the highest weight and that weight, token by layer (definition 3)."""
    w = weights_of(trace, "first_choice", mask)
    ids, _ = chosen(trace, mask=mask)
    at = w.argmax(-1, keepdims=True)
    return Top(np.take_along_axis(ids, at, -1)[..., 0], np.take_along_axis(w, at, -1)[..., 0])


def layer_weights(trace: Routed, layer: int, mask: np.ndarray | None = None) -> np.ndarray:
    """Weights of one layer as a table, float64 [T, E]: X entries a row, 0 elsewhere, rows sum to 1 (definition 4)."""
    w = weights_of(trace, "layer_weights", mask)
    ids, E = chosen(trace, mask=mask)
    if not 0 <= layer < ids.shape[1]:
        raise MetricError(f"layer {layer} lies outside 0 .. {ids.shape[1] - 1}")
    table = np.zeros((len(ids), E))
    np.put_along_axis(table, ids[:, layer], w[:, layer], -1)
    return table


def gate_entropy(trace: Routed, mask: np.ndarray | None = None, normalized: bool = True) -> Measure:
    """Entropy of the weights over the chosen experts (definition 6).

    ``Hs[t, l] = -sum_(e in S) w ln w``, divided by ln X when normalized. 0: one expert has all the weight; 1 (or ln X):
    the chosen share it evenly. It says nothing about the experts left out: see `router_entropy`.

    Returns:
      value [T, L]; count [T, L], ones: an entry is one token.
    """
    w = weights_of(trace, "gate_entropy", mask)
    H = entropy(w)
    if normalized and w.shape[-1] > 1:
        H /= np.log(w.shape[-1])
    return Measure(H, np.ones(H.shape, int))


def router_entropy(trace: Routed, mask: np.ndarray | None = None, normalized: bool = True) -> Measure:
    """Entropy of the softmax over all E experts (definition 7).

    ``Hf[t, l] = -sum_e p ln p``, divided by ln E when normalized; 1 for even logits. Needs the full router logits.

    Returns:
      value [T, L]; count [T, L], ones.
    """
    z = logits_of(trace, "router_entropy", mask)
    H = np.empty(z.shape[:2])
    for layer in range(z.shape[1]):  # one layer at a time stays in the cache
        centered = np.maximum(z[:, layer] - z[:, layer].max(-1, keepdims=True), -1e4)  # exp(-1e4) = 0, as exp(-inf)
        e = np.exp(centered)
        total = e.sum(-1, dtype=np.float64)
        H[:, layer] = np.log(total) - (e * centered).sum(-1, dtype=np.float64) / total
    if normalized and z.shape[-1] > 1:
        H /= np.log(z.shape[-1])
    return Measure(H.clip(0), np.ones(H.shape, int))


class Margins(NamedTuple):
    """Distances between router logits; both float32 [T, L].

    of_set: lowest chosen logit minus the highest one left out: how far the set is from changing. Shifting every logit
      by less than half of it leaves the set as it is. inf where every expert is chosen; negative only where an
      intervention overruled the router.
    of_first: highest logit minus the second highest: how far the first choice is from changing.
    """

    of_set: np.ndarray
    of_first: np.ndarray


def margins(trace: Routed, mask: np.ndarray | None = None) -> Margins:
    """How near each token is to another set and to another first choice (definition 8); needs full router logits."""
    z = logits_of(trace, "margins", mask)
    ids, _ = chosen(trace, mask=mask)
    of_set, of_first = np.empty((2, *z.shape[:2]), np.float32)
    for layer in range(z.shape[1]):
        inside = np.take_along_axis(z[:, layer], ids[:, layer], -1)
        outside = z[:, layer].copy()
        np.put_along_axis(outside, ids[:, layer], -np.inf, -1)
        best_out = outside.max(-1)
        with np.errstate(invalid="ignore"):  # -inf minus -inf: a masked expert that was forced
            of_set[:, layer] = inside.min(-1) - best_out
            two = np.sort(np.concatenate([inside, best_out[:, None]], -1), -1)
            of_first[:, layer] = two[:, -1] - two[:, -2]
    return Margins(of_set, of_first)
