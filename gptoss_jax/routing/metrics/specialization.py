"""Who serves what: experts by domain and experts by token id, next to what shuffled labels give."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from gptoss_jax.routing.metrics.inputs import MetricError, Routed, chosen, label_codes
from gptoss_jax.routing.metrics.measure import LEVEL, Measure, resampled
from gptoss_jax.tracing import Trace


def domain_counts(ids: np.ndarray, E: int, codes: np.ndarray, D: int, amounts: np.ndarray) -> np.ndarray:
    """Sum of `amounts` ([n], or [n, L, X]) over the choices of each domain, layer and expert: [L, D, E]."""
    n, L, _ = ids.shape
    key = (codes[:, None, None] * L + np.arange(L)[:, None]) * E + ids
    each = np.broadcast_to(amounts.reshape(n, *[1] * (3 - amounts.ndim), *amounts.shape[1:]), ids.shape)
    return np.bincount(key.ravel(), each.ravel(), minlength=D * L * E).reshape(D, L, E).swapaxes(0, 1)


def domain_specialization(
    routed: Routed,
    labels: Sequence,
    num_experts: int | None = None,
    mask: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    resamples: int = 100,
    seed: int = 0,
) -> Measure:
    """Share of a domain's tokens that each expert serves (definition 12).

    ``DS_l(e, D) = N_(e, D) / N_D``: the share of the N_D tokens of domain D with e among their X experts. X / E for
    every expert when routing ignores the domain; small N_D strays far from that by chance alone.

    Args:
      routed: a trace, or ids [T, L, X].
      labels: T labels, one a token (domain, role, channel, ...).
      num_experts: E, with plain ids.
      mask: bool [T], the tokens that count.
      groups: int [T], the document of each token: shuffles and bootstrap then move whole documents.
      resamples: shuffles and bootstrap samples; 0 for neither.
      seed: of both.

    Returns:
      value [L, D, E], rows sum to X; count [L, D, E], N_(e, D); names, the D labels in order of appearance.

    Source: OLMoE (arXiv 2409.02060, section 5.3).
    """
    ids, E = chosen(routed, num_experts, mask)
    names, codes = label_codes(labels, len(routed), mask)
    D = len(names)

    def share(codes: np.ndarray, times: np.ndarray) -> np.ndarray:
        return domain_counts(ids, E, codes, D, times) / np.bincount(codes, times, minlength=D)[:, None]

    count = domain_counts(ids, E, codes, D, np.ones(len(ids))).astype(int)
    kept = None if groups is None else np.asarray(groups)[np.ones(len(routed), bool) if mask is None else mask]
    return resampled(share, codes, count, resamples=resamples, seed=seed, groups=kept, names=tuple(names))


@dataclasses.dataclass(frozen=True, eq=False)
class Pairing:
    """Expert counts by token id, for ids seen often enough.

    ids: int [U], token ids, ascending.
    count: int [U], N_x.
    row: int [n], the row of each token that counts.
    experts: int [n, L, X], their choices.
    num_experts: E.
    """

    ids: np.ndarray
    count: np.ndarray
    row: np.ndarray
    experts: np.ndarray
    num_experts: int

    def table(self, layer: int) -> np.ndarray:
        """N_(x, e) of one layer, int [U, E]."""
        U, E = len(self.ids), self.num_experts
        return np.bincount((self.row[:, None] * E + self.experts[:, layer]).ravel(), minlength=U * E).reshape(U, E)


TokenOf = Literal["input", "next", "predicted"]


def pair_tokens(
    routed: Routed,
    token: TokenOf | np.ndarray = "input",
    num_experts: int | None = None,
    mask: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    min_count: int = 10,
) -> Pairing:
    """Join the choices of each position with a token id.

    Args:
      routed: a trace; or ids [T, L, X], with `token` an array.
      token: ``input``, the token at the position; ``next``, the one after it; ``predicted``, the model's most likely
        next one (needs the vocabulary logits, which live in memory only); or any int [T].
      num_experts: E, with plain ids.
      mask: bool [T], positions that count.
      groups: int [T], the document of each position: the last one of a document has no next token.
      min_count: token ids seen less often are left out.
    """
    if isinstance(token, str) and not isinstance(routed, Trace):
        raise MetricError(f"token={token!r} needs a Trace; with plain expert ids pass the token ids, int [T]")
    keep = np.ones(len(routed), bool) if mask is None else np.asarray(mask, bool).copy()
    x = token
    if isinstance(token, str):
        assert isinstance(routed, Trace)
        if token not in ("input", "next", "predicted"):
            raise MetricError(f"token is {token!r}; known: 'input', 'next', 'predicted', or an array of ids")
        if token == "predicted" and routed.logits is None:
            raise MetricError("token='predicted' needs logits, which a saved trace lacks: trace the tokens again")
        x = routed.logits.argmax(-1) if token == "predicted" and routed.logits is not None else routed.tokens
        if token == "next":
            x = np.roll(x, -1)
            keep[-1:] = False
            if groups is not None:
                keep &= np.asarray(groups) == np.roll(groups, -1)
    x = np.asarray(x)
    if x.shape != (len(routed),):
        raise MetricError(f"token ids are {list(x.shape)} for {len(routed)} tokens")
    values, number, count = np.unique(x[keep], return_inverse=True, return_counts=True)
    often = count >= min_count
    if not often.any():
        raise MetricError(f"no token id occurs {min_count} times among {int(keep.sum())} tokens; lower min_count")
    position = np.flatnonzero(keep)[often[number]]
    experts, E = chosen(routed, num_experts, np.isin(np.arange(len(routed)), position))
    row = (np.cumsum(often) - 1)[number][often[number]]
    return Pairing(values[often], count[often], row, experts, E)


def vocabulary_specialization(
    routed: Routed,
    token: TokenOf | np.ndarray = "input",
    num_experts: int | None = None,
    mask: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    min_count: int = 10,
    resamples: int = 20,
    seed: int = 0,
) -> Measure:
    """How far a token id fixes one of its experts, per layer (definition 14).

    ``VS(e, x) = N_(x, e) / N_x``; the layer's score is the mean over ids x with ``N_x >= min_count`` of ``max_e VS``.
    A maximum over E noisy shares is far above X / E by chance: compare with the baseline, which shuffles the ids.

    Args: as for `pair_tokens`; `resamples` shuffles and bootstrap samples (over ids), with `seed`.

    Returns:
      value [L] in X/E .. 1, 1 where each id always meets one same expert; count [L], number of ids.

    Source: OLMoE (arXiv 2409.02060, section 5.4).
    """
    pairing = pair_tokens(routed, token, num_experts, mask, groups, min_count)
    L, U = pairing.experts.shape[1], len(pairing.ids)

    def best(p: Pairing) -> np.ndarray:
        return np.stack([p.table(layer).max(-1) for layer in range(L)], -1) / p.count[:, None]  # [U, L]

    each = best(pairing)
    count = np.full(L, U)
    if not resamples:
        return Measure(each.mean(0), count)
    rng = np.random.default_rng(seed)
    mixed = [best(dataclasses.replace(pairing, row=rng.permutation(pairing.row))).mean(0) for _ in range(resamples)]
    again = [each[rng.integers(U, size=U)].mean(0) for _ in range(max(resamples, 100))]
    return Measure(
        each.mean(0), count, np.mean(mixed, 0), np.percentile(mixed, LEVEL, 0), np.percentile(again, LEVEL, 0)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class TopTokens:
    """The ids that stand out at one expert, best first: ids, score, N_(x, e), N_x and the text where it is known."""

    ids: np.ndarray
    score: np.ndarray
    together: np.ndarray
    count: np.ndarray
    text: tuple[str, ...]


def top_tokens(
    routed: Routed,
    layer: int,
    expert: int,
    by: Literal["share", "pmi"] = "share",
    token: TokenOf | np.ndarray = "input",
    num_experts: int | None = None,
    mask: np.ndarray | None = None,
    min_count: int = 10,
    n: int = 10,
) -> TopTokens:
    """The token ids that one expert serves more than others do (definition 18).

    ``share`` ranks by ``N_(x, e) / N_x``; ``pmi`` by ``ln N_(x, e) T / (N_x N_e)``, in nats, which takes off the
    expert's own load. Ties go to the more frequent, then to the lower id. T and N_e count ids above `min_count` only.
    """
    pairing = pair_tokens(routed, token, num_experts, mask, None, min_count)
    L, E = pairing.experts.shape[1], pairing.num_experts
    for name, value, end in (("layer", layer, L), ("expert", expert, E)):
        if not 0 <= value < end:
            raise MetricError(f"{name} {value} lies outside 0 .. {end - 1}")
    if by not in ("share", "pmi"):
        raise MetricError(f"by is {by!r}; known: 'share', 'pmi'")
    together = pairing.table(layer)[:, expert]
    score = together / pairing.count
    if by == "pmi":
        with np.errstate(divide="ignore", invalid="ignore"):
            score = np.log(score * pairing.count.sum() / together.sum())
    seen = np.flatnonzero(together)
    best = seen[np.lexsort((pairing.ids[seen], -pairing.count[seen], -score[seen]))][:n]
    text: tuple[str, ...] = ()
    if isinstance(routed, Trace) and routed.token_text and isinstance(token, str):
        first = {int(x): routed.token_text[t] for t, x in reversed(list(enumerate(routed.tokens)))}
        text = tuple(first.get(int(x), "") for x in pairing.ids[best])
    return TopTokens(pairing.ids[best], score[best], together[best], pairing.count[best], text)
