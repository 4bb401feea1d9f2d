"""How much an expert tells about the domain, in nats, and how much of that is only the words."""

from collections.abc import Sequence

import numpy as np

from gptoss_jax.routing.metrics.inputs import MetricError, Routed, chosen, label_codes
from gptoss_jax.routing.metrics.measure import Measure, entropy, resampled
from gptoss_jax.routing.metrics.specialization import domain_counts
from gptoss_jax.tracing import Trace


def _prepare(routed: Routed, labels: Sequence, num_experts: int | None, mask: np.ndarray | None, groups):
    ids, E = chosen(routed, num_experts, mask)
    names, codes = label_codes(labels, len(routed), mask)
    keep = np.ones(len(routed), bool) if mask is None else mask
    return ids, E, tuple(names), codes, keep, None if groups is None else np.asarray(groups)[keep]


def _loads(ids: np.ndarray, E: int, codes: np.ndarray, D: int, times: np.ndarray) -> np.ndarray:
    counts = domain_counts(ids, E, codes, D, times)
    return counts / counts.sum(-1, keepdims=True)


def domain_divergence(
    routed: Routed,
    labels: Sequence,
    num_experts: int | None = None,
    mask: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    resamples: int = 100,
    seed: int = 0,
) -> Measure:
    """Jensen-Shannon divergence between the loads of every two domains (definition 13).

    ``JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2`` in nats. Arguments as for `domain_specialization`.

    Returns:
      value [L, D, D], 0 for equal loads .. ln 2 for disjoint ones; count [D], tokens; names.

    Source: Lin 1991, IEEE Trans. Inf. Theory 37(1).
    """
    ids, E, names, codes, _, groups = _prepare(routed, labels, num_experts, mask, groups)

    def divergence(codes: np.ndarray, times: np.ndarray) -> np.ndarray:
        p = _loads(ids, E, codes, len(names), times)
        H = entropy(p)
        D = len(names)
        jsd = np.zeros((len(p), D, D))
        for a in range(D):
            for b in range(a):
                jsd[:, a, b] = jsd[:, b, a] = entropy((p[:, a] + p[:, b]) / 2) - (H[:, a] + H[:, b]) / 2
        return jsd.clip(0)

    count = np.bincount(codes, minlength=len(names))
    return resampled(divergence, codes, count, resamples=resamples, seed=seed, groups=groups, names=names)


def domain_information(
    routed: Routed,
    labels: Sequence,
    num_experts: int | None = None,
    mask: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    resamples: int = 100,
    seed: int = 0,
) -> Measure:
    """I(expert; domain), every domain given the same prior, per layer (definition 13).

    ``H(mean_D load_D) - mean_D H(load_D)`` in nats: one choice out of the X of a token, drawn evenly. The estimate is
    biased upward by about ``(E - 1)(D - 1) / 2n`` for n independent choices; the shuffled baseline measures that bias,
    and `excess` takes it off. Arguments as for `domain_specialization`.

    Returns:
      value [L] in 0 .. ln min(D, E); count [L], tokens; names.
    """
    ids, E, names, codes, _, groups = _prepare(routed, labels, num_experts, mask, groups)

    def information(codes: np.ndarray, times: np.ndarray) -> np.ndarray:
        p = _loads(ids, E, codes, len(names), times)
        return (entropy(p.mean(1)) - entropy(p).mean(1)).clip(0)

    count = np.full(ids.shape[1], len(ids))
    return resampled(information, codes, count, resamples=resamples, seed=seed, groups=groups, names=names)


def conditional_information(
    routed: Routed,
    labels: Sequence,
    tokens: np.ndarray | None = None,
    num_experts: int | None = None,
    mask: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    resamples: int = 100,
    seed: int = 0,
) -> Measure:
    """I(expert; domain | token id): what the domain adds once the word is known, per layer.

    Domains use different words, and a router that looks at nothing but the word already carries information on the
    domain. ``sum_x p(x) I(expert; domain | x)`` in nats removes that; what is left is context. The baseline shuffles
    the domains among the positions of the same token id, which keeps every count but the one in question.

    Args:
      routed: a trace, or ids [T, L, X].
      labels: T domains.
      tokens: int [T], with plain ids; a trace has its own.
      num_experts, mask, resamples, seed: as for `domain_specialization`.
      groups: int [T], the document of each token; the bootstrap then draws whole documents.

    Returns:
      value [L] in 0 .. ln min(D, E); count [L], tokens whose id occurs in at least two domains: no other token can
      contribute; names.
    """
    ids, E, names, codes, keep, groups = _prepare(routed, labels, num_experts, mask, groups)
    if tokens is None:
        if not isinstance(routed, Trace):
            raise MetricError("tokens is missing: plain expert ids do not say which words they served")
        tokens = routed.tokens
    if np.shape(tokens) != (len(routed),):
        raise MetricError(f"tokens is {list(np.shape(tokens))} for {len(routed)} tokens")
    x = np.unique(np.asarray(tokens)[keep], return_inverse=True)[1]
    n, L, X = ids.shape
    D, U = len(names), x.max() + 1
    keys = x[:, None, None] * E + ids
    word_expert = [np.unique(keys[:, layer], return_inverse=True)[1].reshape(n, X) for layer in range(L)]

    def information(codes: np.ndarray, times: np.ndarray) -> np.ndarray:
        every = np.repeat(times, X)
        # a word's choices are X times its tokens; the X ln X terms cancel in the difference
        of_word = X * (_n_log_n(x, times, U) - _n_log_n(x * D + codes, times, U * D))
        values = []
        for pairs in word_expert:
            size = int(pairs.max()) + 1
            with_domain = _n_log_n((pairs * D + codes[:, None]).ravel(), every, size * D)
            values.append(with_domain - _n_log_n(pairs.ravel(), every, size) + of_word)
        return (np.array(values) / (X * times.sum())).clip(0)

    shared = np.bincount(np.unique(x * D + codes) // D, minlength=U)[x] > 1
    order = np.argsort(x, kind="stable")
    return resampled(
        information,
        codes,
        np.full(L, shared.sum()),
        resamples=resamples,
        seed=seed,
        groups=groups,
        shuffler=lambda rng: _shuffle_within(codes, x, order, rng),
        names=names,
    )


def _n_log_n(key: np.ndarray, amounts: np.ndarray, size: int) -> float:
    count = np.bincount(key, amounts, minlength=size)
    return float((count * np.log(np.where(count > 0, count, 1))).sum())


def _shuffle_within(codes: np.ndarray, x: np.ndarray, order: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Permute `codes` among the positions of equal `x`; `order` sorts x."""
    mixed = np.empty_like(codes)
    mixed[order] = codes[np.lexsort((rng.random(len(x)), x))]
    return mixed
