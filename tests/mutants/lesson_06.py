"""Right and wrong answers to the exercises of lesson 06."""

import jax
import jax.numpy as jnp
import numpy as np

from gptoss_jax.norms import linear
from gptoss_jax.router import choose


def _softmax(z):
    return np.asarray(jax.nn.softmax(jnp.asarray(z), axis=-1))


def _take(ranking, values, count):
    experts = np.argsort(-np.asarray(ranking), axis=-1)[:, :count]
    return experts, np.take_along_axis(np.asarray(values), experts, -1)


def _route(x, router, bias, count):
    experts, chosen = _take(x @ router.T + bias, x @ router.T + bias, count)
    return experts, _softmax(chosen)


def _package(x, router, bias, count):
    routing = choose(linear(jnp.asarray(x), jnp.asarray(router), jnp.asarray(bias)), count)
    return routing.experts, routing.weights


def _bias_chooses(x, router, bias, count):
    experts, scores = _take(x @ router.T + bias, x @ router.T, count)
    return experts, _softmax(scores)


def _softmax_first(x, router, bias, count):
    p = _softmax(x @ router.T + bias)
    return _take(p, p, count)


def _repair(p, count):
    experts, kept = _take(p, p, count)
    return experts, kept / kept.sum(-1, keepdims=True)


def _steps(x, router, bias, count, inside=slice(None), outside=slice(None), power=2):
    z = router @ x + bias
    order = np.argsort(-z)
    a, b = np.meshgrid(order[:count][inside], order[count:][outside], indexing="ij")
    difference = router[a] - router[b]
    length = np.linalg.norm(difference, axis=-1)
    at = np.unravel_index(np.argmin((z[a] - z[b]) / length), length.shape)
    return ((z[a] - z[b]) / length**power)[at] * difference[at]


def _need(z, e, count):
    return np.sort(np.delete(z, e, axis=1), axis=1)[:, -count] - z[:, e]


def _by_bisection(z, e, count):
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = (low + high) / 2
        raised = z + middle * (np.arange(z.shape[1]) == e)
        chosen = ((raised > raised[:, e : e + 1]).sum(1) < count).all()
        low, high = (low, middle) if chosen else (middle, high)
    return high if high > 1e-9 else 0.0


LAST, BEST = slice(-1, None), slice(0, 1)

ANSWERS = {
    "route": {
        "right": [_route, _package],
        "wrong": {
            "not-a-pair": lambda *given: _route(*given)[1],
            "bias-missing": lambda x, router, bias, count: _route(x, router, 0 * bias, count),
            "bias-chooses-only": _bias_chooses,
            "softmax-first": _softmax_first,
            "lowest-first": lambda *given: tuple(part[:, ::-1] for part in _route(*given)),
            "not-normalized": lambda x, router, bias, count: _take(*[x @ router.T + bias] * 2, count),
            "raises": lambda x, router, bias, count: (x @ router + bias, None),
            "returns-nothing": lambda *given: None,
        },
        "blind": [
            ("wrong-shape", lambda x, router, bias, count: (_route(x, router, bias, count)[0], _softmax(x @ router.T))),
            ("wrong-values", lambda x, router, bias, count: _take(*[1 / (1 + np.exp(-x @ router.T))] * 2, count)),
        ],
    },
    "repair": {
        "right": [_repair, lambda p, count: choose(jnp.log(jnp.asarray(p)), count)[1:]],
        "wrong": {
            "not-a-pair": lambda p, count: _repair(p, count)[1],
            "not-repaired": lambda p, count: _take(p, p, count),
            "softmax-twice": lambda p, count: choose(jnp.asarray(p), count)[1:],
            "divided-by-the-largest": lambda p, count: (lambda e, w: (e, w / w[:, :1]))(*_take(p, p, count)),
            "lowest-first": lambda p, count: tuple(part[:, ::-1] for part in _repair(p, count)),
        },
        "blind": [
            ("wrong-shape", lambda p, count: (_repair(p, count)[0], p / p.sum(-1, keepdims=True))),
            ("raises", lambda p, count: p / p[count].sum(-2)),
        ],
    },
    "force_bias": {
        "right": [lambda z, e, count: np.maximum(_need(z, e, count), 0).max(), _by_bisection],
        "wrong": {
            "first-place": lambda z, e, count: max(0.0, _need(z, e, 1).max()),
            "one-place-off": lambda z, e, count: max(0.0, _need(z, e, count + 1).max()),
            "some-token": lambda z, e, count: max(0.0, _need(z, e, count).min()),
            "negative": lambda z, e, count: _need(z, e, count).max(),
            "returns-nothing": lambda z, e, count: None,
        },
        "blind": [
            ("wrong-shape", _need),
            ("wrong-values", lambda z, e, count: max(0.0, _need(z, e, count).mean())),
        ],
    },
    "nearest_tie": {
        "right": [lambda x, router, bias, count: x - _steps(x, router, bias, count)],
        "wrong": {
            "runner-up-only": lambda *g: g[0] - _steps(*g, inside=LAST, outside=BEST),
            "last-chosen-only": lambda *g: g[0] - _steps(*g, inside=LAST),
            "wrong-direction": lambda *g: g[0] + _steps(*g),
            "length-not-squared": lambda *g: g[0] - _steps(*g, power=1),
            "step-returned": _steps,
            "bias-missing": lambda x, router, bias, count: x - _steps(x, router, 0 * bias, count),
            "returns-nothing": lambda *g: None,
        },
        "blind": [
            ("wrong-values", lambda x, router, bias, count: x),
            ("runner-up-only", lambda *g: g[0] - _steps(*g, outside=BEST)),
        ],
    },
}
