"""Right and wrong answers to the exercises of lesson 04."""

import jax.numpy as jnp
import numpy as np


def _complex(x, angle):
    half = x.shape[1] // 2
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], axis=1)


def _in_place(x, angle):
    out, half = np.array(x), x.shape[1] // 2
    out[:, :half] = x[:, :half] * np.cos(angle) - x[:, half:] * np.sin(angle)
    out[:, half:] = x[:, half:] * np.cos(angle) + out[:, :half] * np.sin(angle)
    return out


def _neighbors(x, angle):
    out = np.empty_like(x)
    out[:, ::2] = x[:, ::2] * np.cos(angle) - x[:, 1::2] * np.sin(angle)
    out[:, 1::2] = x[:, 1::2] * np.cos(angle) + x[:, ::2] * np.sin(angle)
    return out


def _interleaved(x, angle):
    out, right = np.empty_like(x), _complex(x, angle)
    out[:, ::2], out[:, 1::2] = np.split(right, 2, axis=1)
    return out


def _yarn(half, base, factor, context, fast, slow, *, ends=lambda low, high: (low, high), clip=True, turn=2 * np.pi):
    plain = np.array([base ** (-i / half) for i in range(half)])
    low, high = ends(*(half * np.log(context / (turn * n)) / np.log(base) for n in (fast, slow)))
    ramp = (np.arange(half) - low) / (high - low)
    ramp = np.minimum(np.maximum(ramp, 0), 1) if clip else ramp
    return plain * (1 - ramp + ramp / factor)


def _of_wavelengths(half, base, factor, context, fast, slow):
    plain = base ** (-np.arange(half) / half)
    share = _yarn(half, base, 2, context, fast, slow) / plain * 2 - 1  # 1 keeps, 0 interpolates
    return 1 / (share / plain + (1 - share) * factor / plain)


def _steep(half, base, factor, context, fast, slow):
    kept = base ** (-np.arange(half) / half)
    return _yarn(half, base, factor, context, fast, slow) * kept


def _by_turns(half, base, factor, context, fast, slow):
    plain = base ** (-np.arange(half) / half)
    turns = context * plain / (2 * np.pi)
    keep = np.clip((turns - slow) / (fast - slow), 0, 1)
    return plain * keep + plain / factor * (1 - keep)


ANSWERS = {
    "rotate": {
        "right": [
            _complex,
            lambda x, angle: (
                jnp.tile(jnp.cos(angle), 2) * x
                + jnp.tile(jnp.sin(angle), 2)
                * jnp.concatenate([-x[:, angle.shape[1] :], x[:, : angle.shape[1]]], axis=1)
            ),
        ],
        "wrong": {
            "neighbors-paired": _neighbors,
            "wrong-direction": lambda x, angle: _complex(x, -angle),
            "mixed-up-turns": _in_place,
            "first-angle-for-all": lambda x, angle: _complex(x, angle[:, :1]),
            "interleaved-result": _interleaved,
            "not-turned": lambda x, angle: x,
            "raises": lambda x, angle: x * np.cos(angle),
            "returns-nothing": lambda x, angle: None,
        },
        "blind": [("wrong-values", lambda x, angle: _complex(x, np.degrees(angle)))],
    },
    "yarn": {
        "right": [_yarn, lambda *settings: jnp.asarray(_yarn(*settings), jnp.float32)],
        "wrong": {
            "all-divided": lambda half, base, factor, *rest: base ** (-np.arange(half) / half) / factor,
            "not-slowed": lambda half, base, *rest: base ** (-np.arange(half) / half),
            "ramp-reversed": lambda *settings: _yarn(*settings, ends=lambda low, high: (high, low)),
            "bounds-rounded": lambda *settings: _yarn(*settings, ends=lambda low, high: (np.floor(low), np.ceil(high))),
            "ramp-not-clipped": lambda *settings: _yarn(*settings, clip=False),
            "wavelengths-mixed": _of_wavelengths,
            "exponent": _steep,
            "wavelengths": lambda *settings: 2 * np.pi / _yarn(*settings),
            "turns-without-pi": lambda *settings: _yarn(*settings, turn=1),
            "wrong-shape": lambda *settings: np.tile(_yarn(*settings), 2),
        },
        "blind": [("wrong-values", _by_turns)],
    },
    "length": {
        "right": [lambda x, position, factor: (1 + np.log(factor) / 10) * np.sqrt(np.sum(np.square(x)))],
        "wrong": {
            "no-concentration": lambda x, position, factor: np.linalg.norm(x),
            "squared-factor": lambda x, position, factor: np.linalg.norm(x) * (0.1 * np.log(factor) + 1) ** 2,
            "no-root": lambda x, position, factor: np.sum(x**2) * (0.1 * np.log(factor) + 1),
            "other-logarithm": lambda x, position, factor: np.linalg.norm(x) * (0.1 * np.log2(factor) + 1),
            "depends-on-position": lambda x, position, factor: np.linalg.norm(x) * np.cos(position),
            "returns-nothing": lambda x, position, factor: None,
        },
        "blind": [("wrong-values", lambda x, position, factor: np.linalg.norm(x) * factor)],
    },
}
