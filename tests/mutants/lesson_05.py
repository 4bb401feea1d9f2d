"""Right and wrong answers to the exercises of lesson 05."""

import jax
import jax.numpy as jnp
import numpy as np


def _mask(allowed):
    """A mask from a rule on (distance, window)."""
    return lambda queries, keys, window: allowed(queries[:, None] - keys[None, :], window)


def _by_loops(queries, keys, window):
    return [[j in range(i - window + 1, i + 1) for j in keys] for i in queries]


def _places(queries, keys, window):
    return _mask(lambda d, w: (d >= 0) & (d < w))(np.arange(len(queries)), np.arange(len(keys)), window)


def _right(d, w):
    return (d >= 0) & (d < w)


def _column(scores, sink):
    column = np.full((len(scores), 1), sink)
    return jax.nn.softmax(jnp.concatenate([column, scores], axis=1), axis=1)


def _guarded(scores, sink, *, floor=True):
    top = scores.max(1, keepdims=True)
    top = np.maximum(top, sink) if floor else top
    with np.errstate(all="ignore"):
        e = np.exp(scores - top)
        return e / (e.sum(1, keepdims=True) + np.exp(sink - top))


def _bare(scores, extra):
    with np.errstate(all="ignore"):
        e = np.exp(scores)
        return e / (e.sum(1, keepdims=True) + extra)


def _bare_mass(scores, sink):
    with np.errstate(all="ignore"):
        return np.exp(sink) / (np.exp(scores).sum() + np.exp(sink))


ANSWERS = {
    "window_mask": {
        "right": [_by_loops, _mask(lambda d, w: np.isin(d, np.arange(w)))],
        "wrong": {
            "one-too-many": _mask(lambda d, w: (d >= 0) & (d <= w)),
            "one-too-few": _mask(lambda d, w: (d >= 0) & (d < w - 1)),
            "reads-ahead": _mask(lambda d, w: d < w),
            "no-window": _mask(lambda d, w: d >= 0),
            "both-sides": _mask(lambda d, w: abs(d) < w),
            "places-not-positions": _places,
            "axes-swapped": lambda queries, keys, window: _mask(_right)(queries, keys, window).T,
            "inverted": _mask(lambda d, w: ~_right(d, w)),
            "returns-nothing": lambda queries, keys, window: None,
        },
        "blind": [
            ("one-too-few", _mask(lambda d, w: (d > 0) & (d < w))),
            ("wrong-shape", lambda queries, keys, window: _right(queries - keys, window)),
        ],
    },
    "cache_size": {
        "right": [
            lambda context, full, sliding, window, kv, dim: sum(
                4 * kv * dim * n for n in [context] * full + [min(context, window)] * sliding
            )
        ],
        "wrong": {
            "numbers-not-bytes": lambda c, f, s, w, k, d: 2 * k * d * (f * c + s * min(c, w)),
            "keys-alone": lambda c, f, s, w, k, d: k * d * (f * c + s * min(c, w)),
            "window-ignored": lambda c, f, s, w, k, d: 4 * k * d * (f + s) * c,
            "window-always-full": lambda c, f, s, w, k, d: 4 * k * d * (f * c + s * w),
            "window-everywhere": lambda c, f, s, w, k, d: 4 * k * d * (f + s) * min(c, w),
            "one-layer": lambda c, f, s, w, k, d: 4 * k * d * (c + min(c, w)),
            "not-a-function": 2048,
        },
        "blind": [("wrong-values", lambda c, f, s, w, k, d: 4 * k * d * (f * c + s * (w - 1)))],
    },
    "sink_softmax": {
        "right": [_guarded, lambda scores, sink: np.asarray(_column(scores, sink))[:, 1:]],
        "wrong": {
            "sink-without-effect": lambda scores, sink: jax.nn.softmax(scores, axis=1),
            "column-kept": _column,
            "sink-not-exponentiated": lambda scores, sink: _bare(scores, sink),
            "over-queries": lambda scores, sink: np.asarray(_column(scores.T, sink))[:, 1:].T,
            "sink-once-for-all": lambda scores, sink: np.exp(scores) / (np.exp(scores).sum() + np.exp(sink)),
            "overflow": lambda scores, sink: _bare(scores, float(np.exp(np.longdouble(sink)))),
            "empty-row": lambda scores, sink: _guarded(scores, sink, floor=False),
            "returns-nothing": lambda scores, sink: None,
        },
        "blind": [
            ("sink-without-effect", lambda scores, sink: jax.nn.softmax(scores + sink, axis=1)),
            ("wrong-values", lambda scores, sink: _guarded(scores, sink / np.sqrt(scores.shape[1]))),
            ("raises", lambda scores, sink: np.concatenate([scores, sink], axis=1)),
        ],
    },
    "sink_mass": {
        "right": [
            lambda scores, sink: 1 / (1 + jnp.exp(jax.nn.logsumexp(scores) - sink)),
            lambda scores, sink: 1 - _guarded(scores[None], sink).sum(),
        ],
        "wrong": {
            "kept-share": lambda scores, sink: jax.nn.sigmoid(jax.nn.logsumexp(scores) - sink),
            "best-key-only": lambda scores, sink: jax.nn.sigmoid(sink - scores.max()),
            "number-of-keys": lambda scores, sink: jax.nn.sigmoid(sink - np.log(np.mean(np.exp(scores)))),
            "scores-added": lambda scores, sink: jax.nn.sigmoid(sink - scores.sum()),
            "exponential-alone": lambda scores, sink: np.exp(sink - jax.nn.logsumexp(scores)),
            "overflow": _bare_mass,
            "returns-nothing": lambda scores, sink: None,
        },
        "blind": [("wrong-values", lambda scores, sink: jax.nn.sigmoid(sink - scores.mean()))],
    },
}
