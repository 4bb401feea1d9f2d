"""Right and wrong answers to the exercises of lesson 11."""

import numpy as np


def _append(ring, length, chunk):
    ring = np.array(ring)
    for c in range(len(chunk)):
        ring[(length + c) % len(ring)] = chunk[c]
    return ring


def _by_positions(ring, length, chunk):
    ring, window = np.array(ring), len(ring)
    positions = np.arange(length, length + len(chunk))[-window:]
    ring[positions % window] = chunk[-window:]
    return ring


def _changes_its_argument(ring, length, chunk):
    for c in range(len(chunk)):
        ring[(length + c) % len(ring)] = chunk[c]
    return ring


def _cut_without_its_positions(ring, length, chunk):
    return _append(ring, length, chunk[-len(ring) :])


def _softmax(x):
    weights = np.exp(x - np.max(x))
    return weights / weights.sum()


def _greedy(logits):
    return np.eye(len(logits))[np.argmax(logits)]


def _stable(logits, temperature):
    return _softmax((logits - np.max(logits)) / temperature) if temperature else _greedy(logits)


def _overflowing(logits, temperature):
    if temperature == 0:
        return _greedy(logits)
    with np.errstate(over="ignore", invalid="ignore"):
        weights = np.exp(logits / temperature)
        return weights / weights.sum()


def _shared_first_place(logits, temperature):
    if temperature == 0:
        first = (logits == logits.max()).astype(float)
        return first / first.sum()
    return _stable(logits, temperature)


def _divided_by_zero(logits, temperature):
    with np.errstate(divide="ignore", invalid="ignore"):
        return _softmax((logits - logits.max()) / np.float64(temperature))


def _cumulative(probs, p, side="left", extra=1):
    order = np.argsort(-probs)
    count = np.searchsorted(np.cumsum(probs[order]), p - 1e-12, side=side) + extra
    keep = np.zeros(len(probs), bool)
    keep[order[:count]] = True
    return keep


def _rank_order(probs, p):
    falling = np.sort(probs)[::-1]
    return np.cumsum(falling) - falling < p


def _rising(probs, p):
    order = np.argsort(probs)
    keep = np.zeros(len(probs), bool)
    keep[order] = np.cumsum(probs[order]) - probs[order] < p
    return keep


def _nothing_if_sure(probs, p):
    keep = _cumulative(probs, p)
    return np.zeros(len(probs), bool) if probs.max() > p else keep


def _write(next_logits, prompt, count, stop, *, pick=np.argmax, fed=True, heed=True):
    new = []
    for _ in range(count):
        new.append(int(pick(next_logits(list(prompt) + (new if fed else [])))))
        if heed and new[-1] in stop:
            break
    return new


def _without_stop(next_logits, prompt, count, stop):
    return [token for token in _write(next_logits, prompt, count, stop) if token not in stop]


def _appends_to_the_prompt(next_logits, prompt, count, stop):
    new = _write(next_logits, prompt, count, stop)
    prompt += new
    return new


ANSWERS = {
    "greedy_loop": {
        "right": [_write],
        "wrong": {
            "prompt-returned": lambda f, prompt, n, stop: list(prompt) + _write(f, prompt, n, stop),
            "stop-left-out": _without_stop,
            "goes-on": lambda f, prompt, n, stop: _write(f, prompt, n, stop, heed=False),
            "prompt-alone": lambda f, prompt, n, stop: _write(f, prompt, n, stop, fed=False),
            "least-likely": lambda f, prompt, n, stop: _write(f, prompt, n, stop, pick=np.argmin),
            "one-more": lambda f, prompt, n, stop: _write(f, prompt, n + 1, stop),
            "changed-input": _appends_to_the_prompt,
            "returns-nothing": lambda f, prompt, n, stop: None,
        },
        "blind": [("wrong-shape", lambda f, prompt, n, stop: _write(f, prompt, n, stop)[:1])],
    },
    "ring_append": {
        "right": [_by_positions, _append],
        "wrong": {
            "starts-at-slot-0": lambda ring, length, chunk: _append(ring, 0, chunk),
            "off-by-one": lambda ring, length, chunk: _append(ring, length - 1, chunk),
            "moved": lambda ring, length, chunk: np.concatenate([ring, chunk])[-len(ring) :],
            "first-kept": lambda ring, length, chunk: _append(ring, length, chunk[: len(ring)]),
            "old-forgotten": lambda ring, length, chunk: _append(np.zeros_like(ring), length, chunk),
            "long-chunk": _cut_without_its_positions,
            "changed-input": _changes_its_argument,
            "wrong-shape": lambda ring, length, chunk: np.concatenate([ring, chunk]),
            "returns-nothing": lambda ring, length, chunk: None,
        },
        "blind": [("wrong-values", lambda ring, length, chunk: _append(ring, length, chunk[::-1]))],
    },
    "tempered": {
        "right": [_stable],
        "wrong": {
            "multiplied": lambda logits, temperature: _softmax(logits * temperature),
            "ignored": lambda logits, temperature: _softmax(logits),
            "after-softmax": lambda logits, temperature: _softmax(logits) / temperature,
            "not-normalized": lambda logits, temperature: np.exp(logits / temperature),
            "zero": _divided_by_zero,
            "overflow": _overflowing,
            "ties": _shared_first_place,
            "returns-nothing": lambda logits, temperature: None,
        },
        "blind": [("wrong-shape", lambda logits, temperature: int(np.argmax(logits)))],
    },
    "top_p_mask": {
        "right": [_cumulative],
        "wrong": {
            "one-too-few": lambda probs, p: _cumulative(probs, p, extra=0),
            "none-left": _nothing_if_sure,
            "all-kept": lambda probs, p: np.ones(len(probs), bool),
            "threshold": lambda probs, p: probs >= 1 - p,
            "rising": _rising,
            "in-rank-order": _rank_order,
            "one-too-many": lambda probs, p: _cumulative(probs, p, extra=2),
            "returns-nothing": lambda probs, p: None,
        },
        "blind": [
            ("wrong-shape", lambda probs, p: np.flatnonzero(_cumulative(probs, p))),
            ("wrong-values", lambda probs, p: np.where(_cumulative(probs, p), probs, 0)),
        ],
    },
}
