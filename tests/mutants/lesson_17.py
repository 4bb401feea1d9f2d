"""Right and wrong answers to the exercises of lesson 17."""

import numpy as np


def _token_bytes(dense, expert, layers, chosen, bits):
    per_expert = expert * bits / 8
    return dense * 2 + sum(per_expert for _ in range(layers) for _ in range(chosen))


def _bound(nbytes, flops, bytes_per_second, flops_per_second):
    tokens = [(bytes_per_second / nbytes, "memory"), (flops_per_second / flops, "arithmetic")]
    return min(tokens)


def _times(nbytes, flops, bytes_per_second, flops_per_second):
    return nbytes / bytes_per_second, flops / flops_per_second


def _labeled(number):
    def answer(*args):
        return number(*_times(*args)), _bound(*args)[1]

    return answer


ANSWERS = {
    "token_bytes": {
        "right": [_token_bytes],
        "wrong": {
            "bits": lambda dense, expert, layers, chosen, bits: 2 * dense + layers * chosen * expert * bits,
            "dense-missing": lambda dense, expert, layers, chosen, bits: layers * chosen * expert * bits / 8,
            "dense-packed": lambda dense, expert, layers, chosen, bits: (dense + layers * chosen * expert) * bits / 8,
            "dense-one-byte": lambda dense, expert, layers, chosen, bits: dense + layers * chosen * expert * bits / 8,
            "one-layer": lambda dense, expert, layers, chosen, bits: 2 * dense + chosen * expert * bits / 8,
            "one-expert": lambda dense, expert, layers, chosen, bits: 2 * dense + layers * expert * bits / 8,
            "dense-per-layer": lambda dense, expert, layers, chosen, bits: (
                layers * (2 * dense + chosen * expert * bits / 8)
            ),
            "returns-nothing": lambda dense, expert, layers, chosen, bits: None,
        },
        "blind": [
            (
                "wrong-values",
                lambda dense, expert, layers, chosen, bits: 2 * dense + layers * chosen * expert * bits // 16,
            )
        ],
    },
    "speed_bound": {
        "right": [_bound],
        "wrong": {
            "added": _labeled(lambda moving, computing: 1 / (moving + computing)),
            "faster-one": _labeled(lambda moving, computing: 1 / min(moving, computing)),
            "seconds": _labeled(max),
            "memory-only": _labeled(lambda moving, computing: 1 / moving),
            "arithmetic-only": _labeled(lambda moving, computing: 1 / computing),
            "label": lambda *args: (_bound(*args)[0], "memory"),
            "wrong-type": lambda *args: _bound(*args)[0],
        },
        "blind": [("label", lambda *args: (_bound(*args)[0], "bandwidth"))],
    },
    "bandwidth_share": {
        "right": [lambda stamps, nbytes, bandwidth: nbytes / np.mean(np.diff(stamps)) / bandwidth],
        "wrong": {
            "first-included": lambda stamps, nbytes, bandwidth: len(stamps) / stamps[-1] * nbytes / bandwidth,
            "one-too-many": lambda stamps, nbytes, bandwidth: (
                len(stamps) / (stamps[-1] - stamps[0]) * nbytes / bandwidth
            ),
            "not-a-share": lambda stamps, nbytes, bandwidth: nbytes / np.median(np.diff(stamps)),
            "upside-down": lambda stamps, nbytes, bandwidth: bandwidth * np.mean(np.diff(stamps)) / nbytes,
            "tokens-only": lambda stamps, nbytes, bandwidth: 1 / np.mean(np.diff(stamps)) / bandwidth,
            "wrong-shape": lambda stamps, nbytes, bandwidth: nbytes / np.diff(stamps) / bandwidth,
        },
        "blind": [("wrong-values", lambda stamps, nbytes, bandwidth: nbytes / stamps[0] / bandwidth)],
    },
}
