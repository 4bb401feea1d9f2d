"""Who works together: experts that one token chose at the same time."""

import dataclasses

import numpy as np

from gptoss_jax.routing.metrics.inputs import Routed, chosen


@dataclasses.dataclass(frozen=True, eq=False)
class Coactivation:
    """Pairs of experts in one token's set; entries of experts below `min_count`, and the diagonal, are NaN.

    given: [L, E, E], ``C[a, b] = N_ab / N_a``, the share of a's tokens that also went to b. A row sums to X - 1.
    lift: [L, E, E], ``N_ab T / (N_a N_b)``: 1 where a and b meet as often as independent experts of their load would.
    jaccard: [L, E, E], ``N_ab / (N_a + N_b - N_ab)``, symmetric, 0 .. 1.
    pairs: int [L, E, E], N_ab; the diagonal holds N_a.
    count: int [L, E], N_a.
    tokens: T.
    baseline: (X - 1) / (E - 1), what `given` is for random sets.
    """

    given: np.ndarray
    lift: np.ndarray
    jaccard: np.ndarray
    pairs: np.ndarray
    count: np.ndarray
    tokens: int
    baseline: float


def coactivation(
    routed: Routed, num_experts: int | None = None, mask: np.ndarray | None = None, min_count: int = 1
) -> Coactivation:
    """How often two experts serve the same token (definition 11).

    All X (X - 1) / 2 pairs of a set count, not only neighbors in rank: with ``m[t, e] = [e in S(t)]`` the pair counts
    are ``N = m^T m``.

    Args:
      routed: a trace, or ids [T, L, X].
      num_experts: E, with plain ids.
      mask: bool [T], the tokens that count.
      min_count: experts with fewer tokens are NaN: their ratios are noise.

    Source: OLMoE (Muennighoff et al. 2024, arXiv 2409.02060, section 5.2) defines it; its script counts neighbors.
    """
    ids, E = chosen(routed, num_experts, mask)
    T, L, X = ids.shape
    pairs = np.zeros((L, E, E), np.int64)
    for layer in range(L):
        both = ids[:, layer, :, None] * E + ids[:, layer, None, :]
        pairs[layer] = np.bincount(both.ravel(), minlength=E * E).reshape(E, E)
    count = np.diagonal(pairs, axis1=1, axis2=2).copy()
    enough = count >= max(min_count, 1)
    shown = enough[:, :, None] & enough[:, None, :] & ~np.eye(E, dtype=bool)
    a, b = count[:, :, None], count[:, None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        given = np.where(enough[:, :, None] & ~np.eye(E, dtype=bool), pairs / a, np.nan)
        lift = np.where(shown, pairs * T / (a * b), np.nan)
        jaccard = np.where(shown, pairs / (a + b - pairs), np.nan)
    return Coactivation(given, lift, jaccard, pairs, count, T, (X - 1) / max(E - 1, 1))


def neighbor_order(similarity: np.ndarray) -> np.ndarray:
    """An order of the experts that puts similar ones side by side: int [E].

    Greedy: start with the most similar pair and go on appending, at either end, the expert most similar to that end.
    Ties go to the lower id, so the order is deterministic. NaN counts as the lowest similarity.

    Args:
      similarity: [E, E], symmetric, e.g. the Jaccard index of one layer.
    """
    s = np.where(np.isnan(similarity), np.finfo(float).min, similarity)
    np.fill_diagonal(s, -np.inf)
    E = len(s)
    if E < 2:
        return np.arange(E)
    order = [int(e) for e in np.unravel_index(s.argmax(), s.shape)]
    left = [e for e in range(E) if e not in order]
    while left:
        head, tail = s[order[0], left], s[order[-1], left]
        if head.max() > tail.max():
            order.insert(0, left.pop(int(head.argmax())))
        else:
            order.append(left.pop(int(tail.argmax())))
    return np.array(order, dtype=np.int64)
