"""Right and wrong answers to the exercises of lesson 03."""

import jax
import jax.numpy as jnp
import numpy as np


def _size(x, eps=0.0):
    return np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def _centered(x):
    return x - x.mean(-1, keepdims=True)


ANSWERS = {
    "rms_norm": {
        "right": [
            lambda x, scale, eps: np.stack([scale * r / np.sqrt(np.dot(r, r) / len(r) + eps) for r in x]),
            lambda x, scale, eps: x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + eps) * scale,
        ],
        "wrong": {
            "sum-not-mean": lambda x, scale, eps: scale * x / np.sqrt((x**2).sum(-1, keepdims=True) + eps),
            "mean-removed": lambda x, scale, eps: scale * _centered(x) / _size(_centered(x), eps),
            "all-rows-together": lambda x, scale, eps: scale * x / np.sqrt(np.mean(x**2) + eps),
            "epsilon-outside": lambda x, scale, eps: scale * x / (_size(x) + eps),
            "epsilon-missing": lambda x, scale, eps: scale * x / _size(x),
            "scale-missing": lambda x, scale, eps: x / _size(x, eps),
            "root-missing": lambda x, scale, eps: scale * x / _size(x, eps) ** 2,
            "raises": lambda x, scale, eps: scale * x / np.sqrt((x**2).mean(-1) + eps),
            "returns-nothing": lambda x, scale, eps: None,
        },
        "blind": [("wrong-values", lambda x, scale, eps: (1 + scale) * x / _size(x, eps))],
    },
    "breaking": {
        "right": [np.full(4, 1e-25, np.float32), (1e-24, -1e-24, 1e-30, 1e-26)],
        "wrong": {
            "not-four": [1e-30, 1e-30],
            "input-not-finite": [1e39, 1, 1, 1],
            "zeros": [0, 0, 0, 0],
            "too-large": [1e25, 1e25, 1e25, 1e25],
            "survives": [1e-10, 1e-10, 1e-10, 1e-10],
            "not-written": ...,
        },
        "blind": [("zeros", [1e-60, 1e-60, 1e-60, 1e-60]), ("not-four", 1e-30), ("survives", [1e-30, 1e-30, 1.0, 1.0])],
    },
    "fold": {
        "right": [
            lambda weight, scale: weight @ np.diag(scale),
            lambda weight, scale: jnp.einsum("od,d->od", weight, scale),
        ],
        "wrong": {
            "rows-not-columns": lambda weight, scale: weight * scale[:, None],
            "divided": lambda weight, scale: weight / scale,
            "unchanged": lambda weight, scale: weight,
            "twice": lambda weight, scale: weight * scale * scale,
            "transposed": lambda weight, scale: weight.T * scale[:, None],
            "returns-nothing": lambda weight, scale: None,
        },
        "blind": [("wrong-shape", lambda weight, scale: weight @ scale), ("wrong-values", lambda w, s: w + s)],
    },
}
