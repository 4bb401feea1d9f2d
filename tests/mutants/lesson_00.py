"""Right and wrong answers to the exercises of lesson 00."""

import jax
import jax.numpy as jnp
import numpy as np

SHAPES = [(32, 2880), (7, 32), (7, 4)]


def _loop(x_TD):
    return jnp.stack([row / row.sum() for row in x_TD])


ANSWERS = {
    "predict_shapes": {
        "right": [tuple(map(list, SHAPES))],
        "wrong": {
            "not-three": SHAPES[:2],
            "letters-swapped": [(2880, 32), (7, 32), (7, 4)],
            "all-experts-kept": [(32, 2880), (7, 32), (7, 32)],
            "depends-on-position": [(7, 2880), (7, 32), (7, 4)],
            "not-written": ...,
        },
        "blind": [("wrong-values", [(4, 2880), (7, 4), (7, 4)]), ("not-three", (7, 4))],
    },
    "rowwise": {
        "right": [_loop, lambda x: x / x.sum(1, keepdims=True), lambda x: np.asarray(x) / np.sum(x, -1)[:, None]],
        "wrong": {
            "one-sum-for-all": lambda x: x / jnp.sum(x),
            "columns": lambda x: jax.vmap(lambda c: c / c.sum(), in_axes=1, out_axes=1)(x),
            "softmax": lambda x: jax.vmap(jax.nn.softmax)(x),
            "not-divided": lambda x: x,
            "returns-nothing": lambda x: None,
            "raises": lambda x: x / x.sum(1),
        },
        "blind": [("wrong-shape", lambda x: jax.vmap(lambda c: c / c.sum(), in_axes=1)(x))],
    },
    "count_experts": {
        "right": [lambda hidden, width, experts: experts * (2 * width * (hidden + 1) + hidden * (width + 1))],
        "wrong": {
            "forgot-biases": lambda d, f, e: e * 3 * d * f,
            "gate-counted-once": lambda d, f, e: e * (2 * d * f + f + d),
            "one-expert": lambda d, f, e: 3 * d * f + 2 * f + d,
            "down-bias-width": lambda d, f, e: e * (3 * d * f + 3 * f),
            "not-a-function": 3 * 2880 * 2880,
        },
        "blind": [("wrong-values", lambda d, f, e: e * (4 * d * f + 2 * f + d)), ("raises", lambda d, f: d * f)],
    },
}
