"""Who works: how evenly a layer spreads its tokens over its experts."""

from typing import Literal, NamedTuple

import numpy as np

from gptoss_jax.routing.metrics.inputs import MetricError, Routed, chosen, logits_of, weights_of
from gptoss_jax.routing.metrics.measure import Measure, entropy


def count_experts(ids: np.ndarray, E: int, amounts: np.ndarray | None = None) -> np.ndarray:
    """Sum of `amounts` (ones when None; [n, L, X]) that each expert of each layer received: [L, E]."""
    L = ids.shape[1]
    flat = (ids + np.arange(L)[:, None] * E).ravel()
    return np.bincount(flat, None if amounts is None else amounts.ravel(), minlength=L * E).reshape(L, E)


def load(routed: Routed, num_experts: int | None = None, mask: np.ndarray | None = None) -> Measure:
    """Share of a layer's choices that went to each expert (definition 1).

    ``load[l, e] = (1 / (X T)) sum_t [e in S_l(t)]``. Drawn as ``E * load``: 1 is an even share.

    Args:
      routed: a trace, or ids [T, L, X].
      num_experts: E, with plain ids.
      mask: bool [T], the tokens that count.

    Returns:
      value [L, E] in 0 .. 1/X, rows sum to 1; count [L, E], tokens served; baseline 1 / E.

    Source: expert load, Fedus et al. 2022 (arXiv 2101.03961), for top-k routing.
    """
    ids, E = chosen(routed, num_experts, mask)
    count = count_experts(ids, E)
    return Measure(count / (ids.shape[0] * ids.shape[2]), count, baseline=np.full(count.shape, 1 / E))


def mass(trace: Routed, mask: np.ndarray | None = None) -> Measure:
    """Share of a layer's weight that went to each expert (definition 2).

    ``mass[l, e] = (1 / T) sum_t w_l[t, e]``. Equals `load` exactly when every weight is 1 / X.

    Returns:
      value [L, E], rows sum to 1 where the weights do; count [L, E], tokens served; baseline 1 / E.
    """
    w = weights_of(trace, "mass", mask)
    ids, E = chosen(trace, mask=mask)
    count = count_experts(ids, E)
    return Measure(count_experts(ids, E, w) / len(w), count, baseline=np.full(count.shape, 1 / E))


class Balance(NamedTuple):
    """Evenness of each layer; every field [L].

    effective: exp of the entropy of the load; X (one fixed set) .. E (even).
    gini: Gini coefficient of the load; 0 (even) .. 1.
    variation: standard deviation of the load over its mean; 0 when even.
    violation: max_e E * load - 1, the overload of the busiest expert.
    dead: number of experts that served no token.
    tokens: how many tokens were counted; few tokens make experts look dead.
    """

    effective: np.ndarray
    gini: np.ndarray
    variation: np.ndarray
    violation: np.ndarray
    dead: np.ndarray
    tokens: np.ndarray


def balance(routed: Routed, num_experts: int | None = None, mask: np.ndarray | None = None) -> Balance:
    """Five numbers for one layer's load (definition 9); arguments as for `load`.

    Source: max violation, Wang et al. 2024 (arXiv 2408.15664); the others are textbook measures of inequality.
    """
    ids, E = chosen(routed, num_experts, mask)
    share = load(routed, num_experts, mask).value
    return Balance(
        effective=np.exp(entropy(share)),
        gini=gini(share),
        variation=share.std(-1) * E,
        violation=share.max(-1) * E - 1,
        dead=(share == 0).sum(-1),
        tokens=np.full(len(share), len(ids)),
    )


def gini(amounts: np.ndarray) -> np.ndarray:
    """Gini coefficient along the last axis: mean absolute difference of two entries over twice the mean; [...]."""
    n = amounts.shape[-1]
    rank = 2 * np.arange(1, n + 1) - n - 1
    return (np.sort(amounts, -1) * rank).sum(-1) / (n * amounts.sum(-1))


def balance_loss(trace: Routed, kind: Literal["top-k", "switch"] = "top-k", mask: np.ndarray | None = None) -> Measure:
    """The auxiliary loss that training adds to keep experts busy, per layer and never pooled over layers (10).

    ``E sum_e f_e P_e`` with ``P_e`` the mean over tokens of the softmax over all E logits, and

    * ``switch``: ``f_e`` the share of tokens whose first choice is e (arXiv 2101.03961, eq. 4);
    * ``top-k``: ``f_e`` the load. ``E * load`` is DeepSeekMoE's f (arXiv 2401.06066, eq. 13); X times this is the loss
      of Mixtral in transformers, which pools the layers first.

    Returns:
      value [L], 1 when f or P is even; count [L], tokens.
    """
    p = all_probabilities(logits_of(trace, "balance_loss", mask)).mean(0, dtype=np.float64)
    ids, E = chosen(trace, mask=mask)
    if kind not in ("top-k", "switch"):
        raise MetricError(f"kind is {kind!r}; known: 'top-k', 'switch'")
    ids = ids[..., :1] if kind == "switch" else ids
    f = count_experts(ids, E) / (ids.shape[0] * ids.shape[2])
    return Measure(E * (f * p).sum(-1), np.full(len(p), len(ids)), baseline=np.ones(len(p)))


def all_probabilities(z: np.ndarray) -> np.ndarray:
    """Softmax over all experts, float32 [..., E]; a masked expert's -inf gives 0."""
    e = np.exp(z - z.max(-1, keepdims=True))
    e /= e.sum(-1, keepdims=True)
    return e
