"""Right and wrong answers to the exercises of lesson 14."""

import jax
import jax.numpy as jnp
import numpy as np

from gptoss_jax.router import choose


def _softmax(z):
    return np.exp(z) / np.exp(z).sum(-1, keepdims=True)


def _dense(logits, count):
    routing = choose(jnp.asarray(logits), count)
    one_hot = jax.nn.one_hot(routing.experts, logits.shape[-1])
    return np.asarray((one_hot * routing.weights[..., None]).sum(-2))


def _without(logits, count, expert, how, names=("renormalize", "zero", "mask"), bar=-np.inf):
    if how == names[2]:
        return _dense(np.where(np.arange(logits.shape[1]) == expert, bar, logits), count)
    kept = _dense(logits, count) * (np.arange(logits.shape[1]) != expert)
    return kept / kept.sum(-1, keepdims=True) if how == names[0] else kept


def _row_by_row(logits, count, expert, how):
    rows = []
    for z in logits:
        ids = [e for e in np.argsort(-z, kind="stable") if how != "mask" or e != expert][:count]
        powers = {e: np.exp(z[e]) for e in ids}
        total = sum(p for e, p in powers.items() if how != "renormalize" or e != expert)
        rows.append([powers.get(e, 0) / total * (e != expert) for e in range(len(z))])
    return rows


def _everyone(logits, count, expert, how):
    kept = np.exp(logits) * (np.arange(logits.shape[1]) != expert)
    return kept / (np.exp(logits) if how == "zero" else kept).sum(-1, keepdims=True)


def _kl(base, changed):
    p, q = _softmax(base), _softmax(changed)
    return (p * np.log(p / q)).sum(-1)


def _left(weights, output):
    base = weights @ output
    return base, [base - weights[:, [e]] * output[e] for e in range(len(output))]


def _effects(weights, output, measure=lambda base, z: _kl(base, z).mean()):
    base, left = _left(weights, output)
    return np.array([measure(base, z) for z in left])


def _renormalized(weights, output):
    found = []
    for e in range(len(output)):
        kept = weights * (np.arange(len(output)) != e)
        total = kept.sum(-1, keepdims=True)
        found.append(_kl(weights @ output, kept / np.where(total > 0, total, 1) @ output).mean())
    return found


def _direct(parts, scale, row, eps):
    final = parts.sum(0)
    return parts @ (scale * row) / np.sqrt(np.mean(final * final) + eps)


ANSWERS = {
    "without": {
        "right": [_without, _row_by_row],
        "wrong": {
            "ways-swapped": lambda *a: _without(*a, names=("zero", "renormalize", "mask")),
            "mask-leaves-a-gap": lambda z, n, e, how: _without(z, n, e, "renormalize" if how == "mask" else how),
            "masked-by-zero": lambda *a: _without(*a, bar=0.0),
            "never-removed": lambda z, n, e, how: _dense(z, n),
            "all-experts": _everyone,
            "wrong-shape": lambda z, n, e, how: np.delete(_without(z, n, e, how), e, axis=1),
            "returns-nothing": lambda z, n, e, how: None,
            "raises": lambda z, n, e: _dense(z, n),
        },
        "blind": [
            ("wrong-values", lambda z, n, e, how: _without(z, n - 1, e, how)),
            ("wrong-values", lambda z, n, e, how: _without(z, n, 0, how)),
        ],
    },
    "effects": {
        "right": [
            _effects,
            lambda w, o: [_kl(w @ o, w @ o - w[:, [e]] * o[e]).mean() for e in range(len(o))],
            lambda w, o: _effects(w, o, lambda b, z: np.mean([_kl(b[t : t + 1], z[t : t + 1]) for t in range(len(b))])),
        ],
        "wrong": {
            "direction": lambda w, o: _effects(w, o, lambda b, z: _kl(z, b).mean()),
            "only-served": lambda w, o: _effects(w, o) * len(w) / np.maximum((w > 0).sum(0), 1),
            "summed": lambda w, o: _effects(w, o) * len(w),
            "renormalized": _renormalized,
            "load": lambda w, o: (w > 0).sum(0) / (w > 0).sum(),
            "no-softmax": lambda w, o: _effects(w, o, lambda b, z: (np.exp(b) * (b - z)).sum(-1).mean()),
            "wrong-shape": lambda w, o: np.stack([_kl(w @ o, z) for z in _left(w, o)[1]]),
        },
        "blind": [
            ("wrong-values", lambda w, o: _effects(w, o, lambda b, z: np.abs(b - z).sum(-1).mean())),
            ("wrong-shape", lambda w, o: _effects(w, o).mean()),
        ],
    },
    "direct": {
        "right": [
            _direct,
            lambda parts, scale, row, eps: [
                sum(p * scale * row) / np.sqrt((parts.sum(0) ** 2).mean() + eps) for p in parts
            ],
        ],
        "wrong": {
            "own-norm": lambda parts, scale, row, eps: [_direct(p[None], scale, row, eps)[0] for p in parts],
            "not-normed": lambda parts, scale, row, eps: parts @ (scale * row),
            "scale-missing": lambda parts, scale, row, eps: _direct(parts, np.ones_like(scale), row, eps),
            "epsilon-missing": lambda parts, scale, row, eps: _direct(parts, scale, row, 0),
            "norm-of-sum": lambda parts, scale, row, eps: (
                parts @ (scale * row) / np.sqrt((parts.sum(0) ** 2).sum() + eps)
            ),
            "wrong-shape": lambda parts, scale, row, eps: _direct(parts, scale, row, eps).sum(),
        },
        "blind": [
            ("wrong-values", lambda parts, scale, row, eps: _direct(parts, scale, row, eps) / len(parts)),
            ("wrong-shape", lambda parts, scale, row, eps: parts * scale * row),
        ],
    },
}
