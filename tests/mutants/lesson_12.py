"""Right and wrong answers to the exercises of lesson 12."""

import numpy as np

from gptoss_jax.routing import metrics


def _load(ids, E):
    table = np.zeros((ids.shape[1], E))
    for token in ids:
        for layer, chosen in enumerate(token):
            table[layer, chosen] += 1
    return table / (ids.shape[0] * ids.shape[2])


def _wake(z, count, dead, place=1, summary=np.min):
    return summary(np.partition(z, -count - 1 + place, axis=1)[:, -count - 1 + place] - z[:, dead])


def _distances(ids, part, orders, E):
    found = []
    for order in orders:
        inside, outside = ids[part[order]], ids[~part[order]]
        hits = [np.array([(side == e).mean() for e in range(E)]) for side in (inside, outside)]
        found.append(np.abs(hits[0] - hits[1]).sum() / 2)
    return np.array(found)


def _averaged(ids, part, orders, E):
    inside = np.mean([[(ids[part[o]] == e).mean() for e in range(E)] for o in orders], axis=0)
    outside = np.mean([[(ids[~part[o]] == e).mean() for e in range(E)] for o in orders], axis=0)
    return np.abs(inside - outside).sum() / 2


def _counts(ids, part, orders, E):
    each = [[(ids[part[o]] == e).sum() - (ids[~part[o]] == e).sum() for e in range(E)] for o in orders]
    return np.abs(each).sum(1).mean() / 2


def _relabeled(ids, part, orders, E):
    return np.mean([_distances(ids[order], part[order], [np.arange(len(ids))], E)[0] for order in orders])


ANSWERS = {
    "load_of": {
        "right": [_load, lambda ids, E: metrics.load(ids, num_experts=E).value],
        "wrong": {
            "counts-returned": lambda ids, E: _load(ids, E) * ids.shape[0] * ids.shape[2],
            "divided-by-tokens": lambda ids, E: _load(ids, E) * ids.shape[2],
            "divided-over-all-layers": lambda ids, E: _load(ids, E) / ids.shape[1],
            "layers-pooled": lambda ids, E: np.tile(_load(ids, E).mean(0), (ids.shape[1], 1)),
            "first-choice-only": lambda ids, E: _load(ids[..., :1], E),
            "unused-left-out": lambda ids, E: _load(ids, ids.max() + 1),
            "returns-nothing": lambda ids, E: None,
        },
        "blind": [
            ("wrong-shape", lambda ids, E: _load(ids, E).mean(0)),
            ("wrong-shape", lambda ids, E: _load(ids, E).T),
        ],
    },
    "wake": {
        "right": [_wake, lambda z, count, dead: min(sorted(row)[-count] - row[dead] for row in z)],
        "wrong": {
            "beats-the-best": lambda z, count, dead: _wake(z, 1, dead),
            "one-place-too-low": lambda z, count, dead: _wake(z, count, dead, place=0),
            "every-token": lambda z, count, dead: _wake(z, count, dead, summary=np.max),
            "on-average": lambda z, count, dead: _wake(z, count, dead, summary=np.mean),
            "wrong-sign": lambda z, count, dead: -_wake(z, count, dead),
            "score-returned": lambda z, count, dead: np.sort(z, axis=1)[:, -count].min(),
            "wrong-shape": lambda z, count, dead: np.sort(z, axis=1)[:, -count] - z[:, dead],
        },
        "blind": [
            ("wrong-values", lambda z, count, dead: -z[:, dead].max()),
            ("raises", lambda z, count, dead: z[:, dead + 100]),
        ],
    },
    "weight_of": {
        "right": [
            lambda ids, w, e: [
                float(sum(x for i, x in zip(*row, strict=True) if i == e)) for row in zip(ids, w, strict=True)
            ]
        ],
        "wrong": {
            "chosen-or-not": lambda ids, w, e: (ids == e).any(1),
            "first-choice-only": lambda ids, w, e: np.where(ids[:, 0] == e, w[:, 0], 0),
            "chosen-tokens-only": lambda ids, w, e: w[ids == e],
            "largest-weight": lambda ids, w, e: w.max(1),
            "layer-mean": lambda ids, w, e: np.where(ids == e, w, 0).sum() / len(ids),
            "wrong-shape": lambda ids, w, e: np.where(ids == e, w, 0),
        },
        "blind": [
            ("raises", lambda ids, w, e: w[:, e + 20]),
            ("wrong-values", lambda ids, w, e: 1 - np.where(ids == e, w, 0).sum(1)),
        ],
    },
    "baseline": {
        "right": [lambda *given: _distances(*given).mean()],
        "wrong": {
            "not-shuffled": _relabeled,
            "loads-averaged-first": _averaged,
            "one-shuffle": lambda *given: _distances(*given)[0],
            "largest-shuffle": lambda *given: _distances(*given).max(),
            "counts-compared": _counts,
            "not-halved": lambda *given: 2 * _distances(*given).mean(),
            "wrong-shape": _distances,
        },
        "blind": [
            ("wrong-values", lambda *given: np.median(_distances(*given)) / 3),
            ("wrong-values", lambda ids, part, orders, E: 0.0),
        ],
    },
}
