"""Right and wrong answers to the exercises of lesson 13."""

from collections import Counter
from itertools import combinations, pairwise, permutations

import numpy as np

from gptoss_jax.routing import metrics


def _laid_anew(labels, passage, order):
    of = {p: x for p, x in zip(passage.tolist(), labels.tolist(), strict=True)}
    return np.array([of[order[p]] for p in passage])


def _scores(tokens, served):
    seen, met = Counter(tokens.tolist()), Counter(tokens[served].tolist())
    return seen, met


def _top(tokens, served, least, n, score=lambda seen, met: met / seen, keep=lambda seen, met, least: seen >= least):
    seen, met = _scores(tokens, served)
    kept = [x for x in seen if met[x] and keep(seen[x], met[x], least)]
    return np.array(sorted(kept, key=lambda x: -score(seen[x], met[x]))[:n])


def _package(tokens, served, least, n):
    ids = np.where(served, 0, 1)[:, None, None]
    return metrics.top_tokens(ids, 0, 0, by="pmi", token=tokens, num_experts=2, min_count=least, n=n).ids


def _with_silent(tokens, served, least, n):
    seen, met = _scores(tokens, served)
    return np.array(sorted((x for x in seen if seen[x] >= least), key=lambda x: -met[x] / seen[x]))


def _pairs(ids, E):
    table = np.zeros((E, E), int)
    for chosen in ids:
        for a, b in permutations(chosen, 2):
            table[a, b] += 1
    return table


def _partial(ids, E, pick, both):
    table = np.zeros((E, E), int)
    for chosen in ids:
        for a, b in pick(chosen.tolist()):
            table[a, b] += 1
            if both:
                table[b, a] += 1
    return table


def neighbors(chosen):
    return pairwise(chosen)


def _first(chosen):
    return ((chosen[0], other) for other in chosen[1:])


def _velocity(ids, E):
    q, p = (np.bincount(ids[:, layer].ravel(), minlength=E) / ids[:, layer].size for layer in (0, 1))
    return (p * np.log(p / q)).sum()


def _renamed(ids, names, layer=1):
    again = ids.copy()
    again[:, layer] = np.asarray(names)[ids[:, layer]]
    return again


def _searched(ids, E):
    rng = np.random.default_rng(0)
    tried = [_renamed(ids, rng.permutation(E)) for _ in range(200)]
    return max(tried, key=lambda again: abs(_velocity(again, E) - _velocity(ids, E)))


def _closest(ids, E):
    every = [np.arange(E) for _ in combinations(range(E), 2)]
    for names, (a, b) in zip(every, combinations(range(E), 2), strict=True):
        names[[a, b]] = b, a
    before = _velocity(ids, E)
    return min((_renamed(ids, names) for names in every), key=lambda again: abs(_velocity(again, E) - before))


def _merged(ids, E):
    return _renamed(ids, [0, 0, *range(2, E)])


def _tokens_moved(ids, E):
    again = ids.copy()
    again[:, 1] = again[::-1, 1]
    return again


ANSWERS = {
    "shuffle_passages": {
        "right": [_laid_anew, lambda *given: _laid_anew(*given).tolist()],
        "wrong": {
            "not-shuffled": lambda labels, passage, order: labels.copy(),
            "other-direction": lambda labels, passage, order: _laid_anew(labels, passage, np.argsort(order)),
            "numbers-returned": lambda labels, passage, order: order[passage],
            "one-a-passage": lambda labels, passage, order: labels[np.unique(passage, return_index=True)[1]][order],
            "torn-apart": lambda labels, passage, order: np.random.default_rng(0).permutation(labels),
            "returns-nothing": lambda *given: None,
        },
        "blind": [
            ("wrong-values", lambda labels, passage, order: 0 * labels),
            ("raises", lambda labels, passage, order: labels[passage + len(labels)]),
        ],
    },
    "top_by_pmi": {
        "right": [_top, _package],
        "wrong": {
            "by-count": lambda *g: _top(*g, score=lambda seen, met: met),
            "by-share-unfiltered": lambda *g: _top(*g, keep=lambda *_: True),
            "expert-count-compared": lambda *g: _top(*g, keep=lambda seen, met, least: met >= least),
            "worst-first": lambda *g: _top(*g, score=lambda seen, met: -met / seen),
            "positions-returned": lambda *g: np.searchsorted(np.unique(g[0]), _top(*g)),
            "never-served-included": _with_silent,
            "returns-nothing": lambda *g: None,
        },
        "blind": [
            ("wrong-shape", lambda tokens, served, least, n: _top(tokens, served, least, n - 3)),
            ("raises", lambda tokens, served, least, n: _top(tokens, served, least, n)[n + 3]),
        ],
    },
    "pair_counts": {
        "right": [_pairs, lambda ids, E: metrics.coactivation(ids[:, None], E).pairs[0] * (1 - np.eye(E, dtype=int))],
        "wrong": {
            "neighbors-only": lambda ids, E: _partial(ids, E, neighbors, False),
            "one-direction": lambda ids, E: _partial(ids, E, lambda c: combinations(c, 2), False),
            "diagonal-kept": lambda ids, E: metrics.coactivation(ids[:, None], E).pairs[0],
            "counted-twice": lambda ids, E: 2 * _pairs(ids, E),
            "shares-returned": lambda ids, E: np.nan_to_num(metrics.coactivation(ids[:, None], E).given[0]),
            "pairs-of-first-only": lambda ids, E: _partial(ids, E, _first, True),
            "raises": lambda ids, E: _pairs(ids + 1, E) + _pairs(ids, E + 1),
        },
        "blind": [
            ("neighbors-only", lambda ids, E: _partial(ids, E, neighbors, True)),
            ("wrong-shape", lambda ids, E: _pairs(ids, E).sum(1)),
        ],
    },
    "renumbered": {
        "right": [_searched],
        "wrong": {
            "unchanged": lambda ids, E: ids.copy(),
            "too-similar": _closest,
            "another-layer": lambda ids, E: _renamed(ids, np.arange(E)[::-1], layer=0),
            "not-a-renumbering": _merged,
            "positions-shuffled": _tokens_moved,
            "out-of-range": lambda ids, E: _renamed(ids, np.arange(E) + 1),
            "wrong-shape": lambda ids, E: ids[:, 1],
            "wrong-type": lambda ids, E: _searched(ids, E) / 1.0,
        },
        "blind": [
            ("returns-nothing", lambda ids, E: None),
            ("changed-input", lambda ids, E: np.copyto(ids, _searched(ids, E)) or ids),
        ],
    },
}
