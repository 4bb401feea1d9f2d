"""Right and wrong answers to the exercises of lesson 08."""

import numpy as np

from gptoss_jax.mxfp4 import E2M1_VALUES, dequantize, quantize, unpack


def _codes(blocks, scales, first="low", apart=False):
    low, high = blocks & 15, blocks >> 4
    pair = (low, high) if first == "low" else (high, low)
    joined = np.concatenate(pair, -1) if apart else np.stack(pair, -1)
    return joined.reshape(*scales.shape, 32)


def _decode(blocks, scales, bias=127, table=E2M1_VALUES, **options):
    values = table[_codes(blocks, scales, **options)] * 2.0 ** (scales.astype(int) - bias)[..., None]
    return values.reshape(len(blocks), -1)


def _decode_by_loop(blocks, scales):
    rows = []
    for row, row_scales in zip(blocks, scales, strict=True):
        values = []
        for group, scale in zip(row, row_scales, strict=True):
            for byte in group:
                values += [E2M1_VALUES[int(c)] * 2.0 ** (int(scale) - 127) for c in (byte % 16, byte // 16)]
        rows.append(values)
    return np.array(rows, np.float32)


def _apart(blocks, scales, x, y):
    return np.abs(dequantize(blocks, scales) @ x - y).max(1) / np.abs(y).max(1)


def _turn(blocks):
    return (blocks >> 4) | (blocks << 4)


def _swapped(blocks, scales, x, y):
    return np.flatnonzero(_apart(_turn(blocks), scales, x, y) < 0.03).tolist()


def _by_correlation(blocks, scales, x, y):
    other = dequantize(_turn(blocks), scales) @ x
    return [e for e in range(len(y)) if np.corrcoef(other[e], y[e])[0, 1] > 0.98]


def _quantize(values, plus=-2, pick=None, up=False, sign=True):
    values = np.asarray(values, float)
    if not values.any():
        return [0] * 32, 0
    largest = np.abs(values).max()
    power = int(np.ceil(np.log2(largest / 6)) if up else np.floor(np.log2(largest)) + plus)
    codes = [(pick or _even)(abs(v) / 2.0**power) + 8 * (v < 0 and sign) for v in values]
    return codes, power + 127


def _even(v):
    return min(range(8), key=lambda c: (abs(v - E2M1_VALUES[c]), c % 2))


def _down(v):
    return max(c for c in range(8) if E2M1_VALUES[c] <= v)


def _by_package(values):
    one = quantize(np.asarray(values, np.float32))
    return unpack(one.blocks), one.scales[0]


ANSWERS = {
    "decode": {
        "right": [_decode, _decode_by_loop, dequantize],
        "wrong": {
            "nibbles-swapped": lambda b, s: _decode(b, s, first="high"),
            "halves": lambda b, s: _decode(b, s, apart=True),
            "scale-of-another-group": lambda b, s: (
                E2M1_VALUES[unpack(b)].reshape(len(b), 32, -1) * 2.0 ** (s.astype(int) - 127)[:, None]
            ).reshape(len(b), -1),
            "bias-off": lambda b, s: _decode(b, s, bias=128),
            "scale-is-the-byte": lambda b, s: (E2M1_VALUES[_codes(b, s)] * s[..., None]).reshape(len(b), -1),
            "sign-lost": lambda b, s: _decode(b, s, table=np.abs(E2M1_VALUES)),
            "raises": lambda b, s: E2M1_VALUES[b] * s,
        },
        "blind": [
            ("wrong-shape", lambda b, s: _decode(b, s).reshape(len(b), -1, 32)),
            ("wrong-values", lambda b, s: _decode(b, s) + 1),
        ],
    },
    "find_swapped": {
        "right": [_swapped, _by_correlation, lambda *g: np.array(_swapped(*g))],
        "wrong": {
            "nothing-found": lambda b, s, x, y: np.flatnonzero((dequantize(_turn(b), s) @ x == y).all(1)).tolist(),
            "not-proven": lambda b, s, x, y: np.flatnonzero(_apart(b, s, x, y) > 0.03).tolist(),
            "sound-ones": lambda b, s, x, y: np.flatnonzero(_apart(b, s, x, y) < 0.03).tolist(),
            "missed-one": lambda *g: _swapped(*g)[:1],
            "mask": lambda b, s, x, y: _apart(_turn(b), s, x, y) < 0.03,
            "raises": lambda b, s, x, y: dequantize(s, b),
        },
        "blind": [
            (
                "not-proven",
                lambda b, s, x, y: [e for e in range(len(b)) if not np.allclose(dequantize(b, s)[e] @ x, y[e])],
            ),
            ("returns-nothing", lambda *g: print(end="")),
        ],
    },
    "quantize_block": {
        "right": [_quantize, _by_package],
        "wrong": {
            "not-a-pair": lambda v: _quantize(v)[0],
            "not-codes": lambda v: (E2M1_VALUES[_quantize(v)[0]], _quantize(v)[1]),
            "not-a-byte": lambda v: (_quantize(v)[0], _quantize(v)[1] - 127.5),
            "scale-without-the-two": lambda v: _quantize(v, plus=0),
            "scale-rounded-up": lambda v: _quantize(v, up=True),
            "scale-wrong": lambda v: _quantize(v, plus=-1),
            "ties-away-from-zero": lambda v: _quantize(
                v, pick=lambda a: min(range(8), key=lambda c: (abs(a - E2M1_VALUES[c]), -c))
            ),
            "ties-toward-zero": lambda v: _quantize(v, pick=lambda a: int(np.abs(a - E2M1_VALUES[:8]).argmin())),
            "cut-off": lambda v: _quantize(v, pick=_down),
            "sign-lost": lambda v: _quantize(v, sign=False),
            "raises": lambda v: _quantize(v)[2],
        },
        "blind": [
            ("wrong-values", lambda v: (np.zeros(32, int), _quantize(v)[1])),
            ("not-codes", lambda v: ([c - 8 for c in _quantize(v)[0]], _quantize(v)[1])),
        ],
    },
    "layer_bytes": {
        "right": [lambda d, f, e: round(e * (3 * d * f * 4.25 / 8 + 4 * f + 2 * d))],
        "wrong": {
            "scales-forgotten": lambda d, f, e: e * (3 * d * f / 2 + 4 * f + 2 * d),
            "biases-forgotten": lambda d, f, e: e * 3 * d * f * 17 / 32,
            "biases-packed": lambda d, f, e: e * (3 * d * f + 2 * f + d) * 17 / 32,
            "bits": lambda d, f, e: e * (3 * d * f * 4.25 + 16 * (2 * f + d)),
            "one-expert": lambda d, f, e: 3 * d * f * 17 // 32 + 4 * f + 2 * d,
            "two-matrices-of-equal-size": lambda d, f, e: e * (2 * d * f * 17 // 32 + 2 * f + 2 * d),
            "not-a-function": 3 * 2880 * 2880,
        },
        "blind": [("wrong-values", lambda d, f, e: 2 * e * (3 * d * f + 2 * f + d)), ("raises", lambda d, f: d * f)],
    },
}
