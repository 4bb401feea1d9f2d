"""From layer to layer: how the experts of one layer and the next share tokens.

Expert ids mean nothing across layers. Only what tokens do in both may be compared: a joint distribution, and
information computed from it.
"""

from typing import NamedTuple

import numpy as np

from gptoss_jax.routing.metrics.inputs import MetricError, Routed, chosen, weights_of
from gptoss_jax.routing.metrics.measure import LEVEL, Measure, entropy


class Flow(NamedTuple):
    """Weight that goes through expert a of layer l and expert b of layer l + 1.

    joint: [L-1, E, E], sums to 1 a layer; its margins are the masses of the two layers.
    shared: `Measure` [L-1], normalized mutual information of the joint, 0 .. 1, with shuffled baseline.
    tokens: T.
    """

    joint: np.ndarray
    shared: Measure
    tokens: int


def flow(
    routed: Routed,
    num_experts: int | None = None,
    mask: np.ndarray | None = None,
    weighted: bool = True,
    resamples: int = 20,
    seed: int = 0,
) -> Flow:
    """Cross-layer flow (definition 20).

    ``J_l[a, b] = (1 / T) sum_t w_l[t, a] w_(l+1)[t, b]`` over all X * X pairs of a token, and
    ``NMI = I(J) / ((H(row sums) + H(column sums)) / 2)``, 0 where both entropies are 0.

    Args:
      routed: a trace, or ids [T, L, X] with ``weighted=False``.
      num_experts: E, with plain ids.
      mask: bool [T], the tokens that count.
      weighted: use the weights; False gives every chosen expert 1 / X.
      resamples: shuffles (the next layer's tokens in another order) for the baseline.
      seed: of the shuffles.
    """
    ids, E = chosen(routed, num_experts, mask)
    w = weights_of(routed, "flow with weighted=True", mask) if weighted else np.full(ids.shape, 1 / ids.shape[2])
    T, L, _ = ids.shape
    if L < 2:
        raise MetricError(f"flow needs two layers, this trace has {L}")

    def joint(order: np.ndarray | slice) -> np.ndarray:
        J = np.empty((L - 1, E, E))
        for layer in range(L - 1):
            key = ids[:, layer, :, None] * E + ids[order, layer + 1, None, :]
            both = w[:, layer, :, None] * w[order, layer + 1, None, :]
            J[layer] = np.bincount(key.ravel(), both.ravel(), minlength=E * E).reshape(E, E) / T
        return J

    J = joint(slice(None))
    count = np.full(L - 1, T)
    if not resamples:
        return Flow(J, Measure(shared_information(J), count), T)
    rng = np.random.default_rng(seed)
    mixed = [shared_information(joint(rng.permutation(T))) for _ in range(resamples)]
    return Flow(J, Measure(shared_information(J), count, np.mean(mixed, 0), np.percentile(mixed, LEVEL, 0)), T)


def shared_information(joint: np.ndarray) -> np.ndarray:
    """Normalized mutual information of joint distributions [..., A, B]: [...] in 0 .. 1; no expert id enters."""
    a, b = entropy(joint.sum(-1)), entropy(joint.sum(-2))
    both = entropy(joint.reshape(*joint.shape[:-2], -1))
    return ((a + b - both) / np.where(a + b > 0, (a + b) / 2, 1)).clip(0, 1)


def strongest_links(joint: np.ndarray, n: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fold one layer's joint [E, E] onto its n largest experts on each side and "other" (last row and column).

    Returns:
      Ids of the rows, int [r]; of the columns, int [c]; the folded joint [r + 1, c + 1], which still sums to 1.
    """
    rows, columns = (np.sort(np.argsort(-joint.sum(axis), kind="stable")[:n]) for axis in (1, 0))
    groups = []
    for kept in (rows, columns):
        one = np.zeros((len(kept) + 1, len(joint)))
        one[np.arange(len(kept)), kept] = 1
        one[-1] = 1 - one.sum(0)
        groups.append(one)
    return rows, columns, groups[0] @ joint @ groups[1].T
