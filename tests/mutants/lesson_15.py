"""Right and wrong answers to the exercises of lesson 15."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jax.scipy.stats import norm


def _certain(logits, count, error, place=0, factor=2):
    top, _ = jax.lax.top_k(jnp.asarray(logits), count + place + 1)
    return np.asarray(top[:, -2] - top[:, -1]) > factor * error


def _certain_slowly(logits, count, error):
    safe = []
    for scores in logits:
        chosen = np.argsort(-scores)[:count]
        rejected = [e for e in range(len(scores)) if e not in chosen]
        safe.append(all(scores[a] - error > scores[b] + error for a in chosen for b in rejected))
    return safe


def _tie_is_safe(logits, count, error):
    z = np.sort(logits, axis=-1)[:, ::-1]
    return ~(z[:, count - 1] - z[:, count] < 2 * error)


def _chance(logits, count, sigma, pairs=None, cap=1.0, times=1.0):
    """Bounds from the gaps of all pairs that `pairs`, a mask [chosen, rejected], lets through."""
    z = np.sort(logits, axis=-1)[:, ::-1]
    p = times * np.asarray(erfc((z[:, :count, None] - z[:, None, count:]) / (2 * sigma))) / 2
    keep = np.ones(p.shape[1:]) if pairs is None else pairs(*p.shape[1:])
    return p[:, -1, 0], np.minimum((p * keep).sum((1, 2)), cap)


def _chance_slowly(logits, count, sigma):
    low, high = [], []
    for scores in logits:
        ranked = sorted(scores, reverse=True)
        trade = lambda a, b: norm.cdf((b - a) / math.hypot(sigma, sigma))
        low.append(float(trade(ranked[count - 1], ranked[count])))
        high.append(min(1.0, float(sum(trade(a, b) for a in ranked[:count] for b in ranked[count:]))))
    return low, high


def _only(rows, columns):
    def mask(chosen, rejected):
        keep = np.zeros((chosen, rejected))
        keep[rows, columns] = 1
        return keep

    return mask


def _all_pairs(logits, count, sigma):
    z = np.sort(logits, axis=-1)[:, ::-1]
    total = 0
    for a in range(count):
        for b in range(a + 1, logits.shape[1]):
            total = total + np.asarray(erfc((z[:, a] - z[:, b]) / (2 * sigma))) / 2
    return _chance(logits, count, sigma)[0], np.minimum(total, 1)


def _top_pair(logits, count, sigma):
    return _chance(logits, 1, sigma)[0], _chance(logits, count, sigma)[1]


def _differs(a, b):
    return (np.sort(a) != np.sort(b)).any(-1)


def _first(differs, none):
    return np.where(differs.any(1), differs.argmax(1), none)


def _first_slowly(a, b):
    found = []
    for token_a, token_b in zip(a, b, strict=True):
        layers = [i for i, (x, y) in enumerate(zip(token_a, token_b, strict=True)) if set(x) != set(y)]
        found.append(layers[0] if layers else a.shape[1])
    return found


ANSWERS = {
    "certain": {
        "right": [_certain, _certain_slowly],
        "wrong": {
            "one-moves": lambda z, n, e: _certain(z, n, e, factor=1),
            "first-choice": lambda z, n, e: _certain(z, 1, e),
            "one-place-too-low": lambda z, n, e: _certain(z, n, e, place=1),
            "one-place-too-high": lambda z, n, e: _certain(z, n, e, place=-1),
            "at-risk": lambda z, n, e: ~_certain(z, n, e),
            "tie-is-safe": _tie_is_safe,
            "wrong-shape": lambda z, n, e: _certain(z, n, e).all(),
            "returns-nothing": lambda z, n, e: None,
        },
        "blind": [
            ("wrong-values", lambda z, n, e: _certain(z, n, e, factor=4)),
            ("wrong-values", lambda z, n, e: np.abs(np.sort(z)[:, n - 1] - np.sort(z)[:, n]) > 2 * e),
        ],
    },
    "flip_chance": {
        "right": [_chance, _chance_slowly],
        "wrong": {
            "one-error": lambda z, n, s: _chance(z, n, s / math.sqrt(2)),
            "two-sided": lambda z, n, s: _chance(z, n, s, times=2),
            "bounds-equal": lambda z, n, s: (_chance(z, n, s)[0],) * 2,
            "not-capped": lambda z, n, s: _chance(z, n, s, cap=np.inf),
            "last-chosen-only": lambda z, n, s: _chance(z, n, s, _only(-1, slice(None))),
            "first-rejected-only": lambda z, n, s: _chance(z, n, s, _only(slice(None), 0)),
            "chosen-among-themselves": _all_pairs,
            "first-choice": _top_pair,
            "swapped": lambda z, n, s: _chance(z, n, s)[::-1],
            "wrong-shape": lambda z, n, s: _chance(z, n, s)[0],
        },
        "blind": [
            ("wrong-values", lambda z, n, s: _chance(z, n, 2 * s)),
            ("wrong-shape", lambda z, n, s: [bound.mean() for bound in _chance(z, n, s)]),
        ],
    },
    "first_flip": {
        "right": [lambda a, b: _first(_differs(a, b), a.shape[1]), _first_slowly],
        "wrong": {
            "order-counts": lambda a, b: _first((a != b).any(-1), a.shape[1]),
            "none-is-zero": lambda a, b: _differs(a, b).argmax(1),
            "none-is-minus-one": lambda a, b: _first(_differs(a, b), -1),
            "last-flip": lambda a, b: np.array(
                [max(np.flatnonzero(row), default=a.shape[1]) for row in _differs(a, b)]
            ),
            "how-many": lambda a, b: _differs(a, b).sum(1),
            "whether": lambda a, b: _differs(a, b).any(1),
            "first-choice-only": lambda a, b: _first(a[..., 0] != b[..., 0], a.shape[1]),
            "wrong-shape": _differs,
        },
        "blind": [
            ("wrong-values", lambda a, b: _first(_differs(a, b), a.shape[1] - 1)),
            ("wrong-values", lambda a, b: 1 + _first(_differs(a, b), a.shape[1])),
        ],
    },
}
