"""Right and wrong answers to the exercises of lesson 07."""

import numpy as np


def _act(gate, up, alpha=1.702, plus=1.0):
    return gate / (1 + np.exp(-alpha * gate)) * (up + plus)


def _clamped(gate, up, **options):
    return _act(np.minimum(gate, 7), np.clip(up, -7, 7), **options)


def _expert(x, w1, b1, w2, b2, act=_clamped, swap=False, halves=False):
    h = x @ w1.T + b1
    gate, up = np.split(h, 2, axis=1) if halves else (h[:, ::2], h[:, 1::2])
    return act(*((up, gate) if swap else (gate, up))) @ w2.T + b2


def _by_einsum(x, w1, b1, w2, b2):
    pairs = (np.einsum("td,id->ti", x, w1) + b1).reshape(len(x), -1, 2)
    gate = np.clip(pairs[..., 0], None, 7)
    return np.einsum("tf,df->td", gate / (1 + np.exp(-1.702 * gate)) * (pairs[..., 1].clip(-7, 7) + 1), w2) + b2


def _grouped(x, experts, weights, serve, combine="add", weigh=True):
    y = np.zeros_like(x)
    for e in range(experts.max() + 1):
        t, rank = np.nonzero(experts == e)
        if not len(t):
            continue
        factor = weights[t, rank if combine != "first" else 0][:, None] if weigh else 1.0
        added = factor * serve(e, x[t])
        y[t] = added if combine == "last" else y[t] + added
    return y


def _sorted(x, experts, weights, serve):
    X = experts.shape[1]
    order = np.argsort(experts.reshape(-1), kind="stable")
    ids = experts.reshape(-1)[order]
    rows = np.concatenate([serve(e, x[order[ids == e] // X]) for e in np.unique(ids)])
    y = np.empty_like(rows)
    y[order] = rows
    return (y.reshape(*experts.shape, -1) * weights[..., None]).sum(1)


def _dense(x, experts, weights, serve):
    return sum(((experts == e) * weights).sum(1)[:, None] * serve(e, x) for e in np.unique(experts))


def _pairs(x, experts, weights, serve):
    return np.stack(
        [sum(w * serve(e, x[t][None])[0] for e, w in zip(experts[t], weights[t], strict=True)) for t in range(len(x))]
    )


def _nobody(x, experts, weights, serve):
    return sum(
        np.where(mine.any(1)[:, None], (mine * weights).sum(1)[:, None], 0) * _served(x, mine, e, serve)
        for e in range(12)
        for mine in [experts == e]
    )


def _served(x, mine, e, serve):
    y = np.zeros_like(x)
    t = np.flatnonzero(mine.any(1))
    y[t] = serve(e, x[t])
    return y


WITNESS = {"a": (1.0, -20.0), "b": (1.0, 20.0), "c": None, "d": None}

ANSWERS = {
    "clamp_hunt": {
        "right": [{"a": (7, -8.5), "b": [2.0, 6.5], "c": None, "d": None}],
        "wrong": {
            "not-four": {"a": (1.0, -20.0)},
            "not-a-pair": WITNESS | {"a": 3.0},
            "out-of-range": WITNESS | {"b": (1.0, 90.0)},
            "pair-agrees": WITNESS | {"a": (1.0, 20.0)},
            "given-up": WITNESS | {"b": None},
        },
        "blind": [("pair-agrees", WITNESS | {"c": (-20.0, 7.0)}), ("not-four", [None] * 4)],
    },
    "expert_output": {
        "right": [_expert, _by_einsum],
        "wrong": {
            "halves": lambda *g: _expert(*g, halves=True),
            "gate-and-up-swapped": lambda *g: _expert(*g, swap=True),
            "no-plus-one": lambda *g: _expert(*g, act=lambda a, b: _clamped(a, b, plus=0)),
            "alpha-missing": lambda *g: _expert(*g, act=lambda a, b: _clamped(a, b, alpha=1)),
            "no-clamp": lambda *g: _expert(*g, act=_act),
            "up-not-clamped": lambda *g: _expert(*g, act=lambda a, b: _act(np.minimum(a, 7), b)),
            "bias-missing": lambda x, w1, b1, w2, b2: _expert(x, w1, 0, w2, 0),
            "raises": lambda x, w1, b1, w2, b2: x @ w1 + b1,
        },
        "blind": [
            ("wrong-values", lambda *g: _expert(*g, act=lambda a, b: _clamped(a, b) + 1)),
            ("wrong-shape", lambda x, w1, b1, w2, b2: x @ w1.T + b1),
        ],
    },
    "bytes_read": {
        "right": [lambda ids, E, size: (E * size, len(ids) * ids.shape[1] * size, len(set(ids.flat)) * size)],
        "wrong": {
            "order": lambda ids, E, size: [len(np.unique(ids)) * size, ids.size * size, E * size],
            "dense-by-token": lambda ids, E, size: [len(ids) * E * size, ids.size * size, len(set(ids.flat)) * size],
            "dense-touched": lambda ids, E, size: [
                len(set(ids.flat)) * size,
                ids.size * size,
                len(set(ids.flat)) * size,
            ],
            "gather-by-token": lambda ids, E, size: [E * size, len(ids) * size, len(set(ids.flat)) * size],
            "grouped-all": lambda ids, E, size: [E * size, ids.size * size, E * size],
            "in-experts": lambda ids, E, size: [E, ids.size, len(set(ids.flat))],
        },
        "blind": [
            ("wrong-shape", lambda ids, E, size: [ids.size * size, len(set(ids.flat)) * size]),
            ("wrong-values", lambda ids, E, size: [E * size, ids.size * size, ids.max() * size]),
        ],
    },
    "grouped": {
        "right": [_grouped, _sorted],
        "wrong": {
            "unweighted": lambda *g: _grouped(*g, weigh=False),
            "overwritten": lambda *g: _grouped(*g, combine="last"),
            "weights-of-first-choice": lambda *g: _grouped(*g, combine="first"),
            "runs-everyone": _dense,
            "once-per-pair": _pairs,
            "called-for-nobody": _nobody,
            "returns-nothing": lambda *g: None,
        },
        "blind": [
            ("wrong-shape", lambda x, experts, weights, serve: np.stack([serve(e, x) for e in experts[0]])),
            ("wrong-values", lambda x, experts, weights, serve: x + _grouped(x, experts, weights, serve)),
        ],
    },
}
