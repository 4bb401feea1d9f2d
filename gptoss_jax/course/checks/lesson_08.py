"""Exercises of lesson 08, four bits a weight."""

from typing import Any

import numpy as np

from gptoss_jax.course.checks import Student, exercise
from gptoss_jax.mxfp4 import E2M1_VALUES, dequantize, pack, quantize, unpack


@exercise(
    "08",
    "decode",
    hints={
        "nibbles-swapped": "the byte 2A stands for two values. Which one comes first?",
        "halves": "are the two nibbles of a byte neighbors in your result, or 16 places apart?",
        "scale-of-another-group": "each scale belongs to 32 values in a row: does it, in yours?",
        "bias-off": "your values are off by a constant factor: what does the scale byte 127 stand for?",
        "scale-is-the-byte": "the scale byte is an exponent, not a factor.",
        "sign-lost": "sixteen codes: what do the upper eight stand for?",
    },
)
def decode(student: Student) -> None:
    """Random blocks with several rows and groups and scales on both sides of 127."""
    for _ in range(5):
        rng = student.rng
        rows, groups = (int(n) for n in rng.integers(2, 5, size=2))
        blocks = rng.integers(0, 256, (rows, groups, 16)).astype(np.uint8)
        scales = rng.integers(118, 134, (rows, groups)).astype(np.uint8)
        codes = unpack(blocks)
        right = dequantize(blocks, scales)
        far = np.stack([blocks & 15, blocks >> 4], axis=2).reshape(rows, -1)
        factors = np.repeat(np.exp2(scales - 127.0), 32, axis=1)
        student.equal(
            student.call(blocks, scales),
            right,
            {
                "nibbles-swapped": dequantize((blocks >> 4) | (blocks << 4), scales),
                "halves": E2M1_VALUES[far] * factors,
                "scale-of-another-group": E2M1_VALUES[codes] * np.tile(np.exp2(scales - 127.0), (1, 32)),
                "bias-off": right / 2,
                "scale-is-the-byte": E2M1_VALUES[codes] * np.repeat(scales, 32, axis=1),
                "sign-lost": np.abs(right),
            },
        )


@exercise(
    "08",
    "find_swapped",
    hints={
        "nothing-found": "swapped experts are there. Do the outputs have to agree in every digit?",
        "not-proven": "an expert whose outputs are wrong need not be a swapped one: how could you prove the swap?",
        "sound-ones": "these are the experts that are in order.",
        "missed-one": "there are more: does your comparison look at every expert on its own?",
        "mask": "the numbers of the experts are asked for, as a list, not one entry for each expert.",
    },
)
def find_swapped(student: Student) -> None:
    """Packed experts of different sizes; some swapped, one damaged in another way, outputs rounded to 8 bits."""
    for _ in range(5):
        rng = student.rng
        E, rows, groups = 8, 12, 3
        weights = rng.normal(size=(E, rows, groups * 32)) * rng.uniform(0.01, 30, size=(E, 1, 1))
        sound = quantize(weights.astype(np.float32))
        x = rng.normal(size=groups * 32).astype(np.float32)
        y = sound.dequantize() @ x
        y = y * (1 + rng.uniform(-1, 1, y.shape).astype(np.float32) / 256)
        order = rng.permutation(E)
        swapped, damaged = sorted(order[: rng.integers(2, 4)].tolist()), int(order[-1])
        blocks = sound.blocks.copy()
        blocks[swapped] = (blocks[swapped] >> 4) | (blocks[swapped] << 4)
        blocks[damaged] ^= 0x08  # the sign of every second value
        got = student.call(blocks, sound.scales, x, y)
        answer = np.asarray(got)
        student.expect(answer.dtype != bool and not (answer.shape == (E,) and set(answer) <= {0, 1}), "mask")
        found = sorted(answer.reshape(-1).astype(int).tolist())
        if found == swapped:
            continue
        student.expect(found, "nothing-found")
        student.expect(damaged not in found or not set(swapped) <= set(found), "not-proven")
        student.expect(set(found) & set(swapped), "sound-ones")
        student.expect(not set(found) < set(swapped), "missed-one")
        student.equal(found, swapped)


def _rounded(values: np.ndarray, power: int, order: tuple[int, ...] = (0, 2, 4, 6, 1, 3, 5, 7)) -> np.ndarray:
    """What `values` become with the scale 2^power; `order` says which of two equally near codes wins."""
    codes = np.array(order)
    distance = np.abs(np.abs(values / 2.0**power)[:, None] - E2M1_VALUES[codes])
    return np.sign(values) * E2M1_VALUES[codes[distance.argmin(1)]] * 2.0**power


def _toward_zero(values: np.ndarray, power: int) -> np.ndarray:
    at = np.searchsorted(E2M1_VALUES[:8], np.abs(values / 2.0**power), side="right") - 1
    return np.sign(values) * E2M1_VALUES[at] * 2.0**power


def _tell(student: Student, got: Any) -> tuple[np.ndarray, int]:
    """Codes and byte of an answer, or a hint."""
    student.expect(isinstance(got, list | tuple) and len(got) == 2, "not-a-pair")
    codes, scale = np.asarray(got[0], np.float64), np.asarray(got[1], np.float64)
    student.expect(codes.shape == (32,) and scale.size == 1, "not-a-pair")
    whole = np.isfinite(codes).all() and (codes == np.round(codes)).all() and codes.min() >= 0 and codes.max() <= 15
    student.expect(whole, "not-codes")
    byte = float(scale.item())
    student.expect(np.isfinite(byte) and byte == round(byte) and 0 <= byte <= 254, "not-a-byte")
    return codes.astype(int), int(byte)


@exercise(
    "08",
    "quantize_block",
    hints={
        "not-a-pair": "two things are asked for: 32 codes, and the scale byte.",
        "not-codes": "codes are whole numbers from 0 to 15, the places in the table and not its entries.",
        "not-a-byte": "the scale byte is a whole number from 0 to 254: by how much is the exponent shifted?",
        "scale-without-the-two": "the largest number of the block became 1 or 1.5 times the scale: is the range used?",
        "scale-rounded-up": "in which direction does step 1 round, and does step 2 divide by 6?",
        "scale-wrong": "compute the scale byte of a block whose largest number is 4.",
        "ties-away-from-zero": "look at a number exactly halfway between two codes, such as 2.5 times the scale.",
        "ties-toward-zero": "look at a number exactly halfway between two codes, such as 3.5 times the scale.",
        "cut-off": "a number between two codes takes the nearer one, not the lower one.",
        "sign-lost": "your values are all positive: which bit of a code is the sign?",
    },
)
def quantize_block(student: Student) -> None:
    """Blocks with many ties and with values beyond 6 scales, ordinary blocks, and zeros."""
    for case in range(8):
        rng = student.rng
        values = rng.integers(-31, 32, 32) / 4 if case % 2 else rng.normal(size=32)
        if case % 2:
            values[:4] = 7.75, 2.5, 3.5, 5.0  # the largest stays below 8, so that the others are ties
        if case == 0:
            values *= 5 / np.abs(values).max()  # nothing is cut off: both ways to round the scale agree
        values = values * 2.0 ** int(rng.integers(-9, 9))
        power = int(np.floor(np.log2(np.abs(values).max()))) - 2
        codes, byte = _tell(student, student.call(values))
        largest = float(np.abs(values).max())
        if byte != power + 127:
            student.expect(byte != power + 129, "scale-without-the-two")
            student.expect(byte != 127 + int(np.ceil(np.log2(largest / 6))), "scale-rounded-up")
            student.fail("scale-wrong")
        right = _rounded(values, power)
        student.equal(
            E2M1_VALUES[codes] * 2.0**power,
            right,
            {
                "ties-away-from-zero": _rounded(values, power, (7, 6, 5, 4, 3, 2, 1, 0)),
                "ties-toward-zero": _rounded(values, power, (0, 1, 2, 3, 4, 5, 6, 7)),
                "cut-off": _toward_zero(values, power),
                "sign-lost": np.abs(right),
            },
            atol=0,
        )
    codes, byte = _tell(student, student.call(np.zeros(32)))
    student.equal(dequantize(pack(codes[None]), np.array([[byte]], np.uint8))[0], np.zeros(32), atol=0)
    student.expect(byte == 0, "scale-wrong")


@exercise(
    "08",
    "layer_bytes",
    hints={
        "scales-forgotten": "four bits a weight, and what else does a group of 32 need?",
        "biases-forgotten": "the biases are small, but they are part of the layer.",
        "biases-packed": "in which format are the biases stored?",
        "bits": "that is the number of bits.",
        "one-expert": "that is a single expert; a layer has several.",
        "two-matrices-of-equal-size": "how many rows does the matrix up have?",
    },
)
def layer_bytes(student: Student) -> None:
    """Random sizes, multiples of 32, D different from F."""
    for _ in range(5):
        D, F, E = (int(n) for n in student.rng.integers((10, 2, 2), (20, 9, 9)))
        D, F = 32 * D, 32 * F
        packed, biases = 3 * D * F // 32 * 17, 2 * F + D
        right = E * (packed + 2 * biases)
        student.equal(
            student.call(D, F, E),
            right,
            {
                "scales-forgotten": E * (3 * D * F // 2 + 2 * biases),
                "biases-forgotten": E * packed,
                "biases-packed": E * (packed + biases * 17 / 32),
                "bits": 8 * right,
                "one-expert": packed + 2 * biases,
                "two-matrices-of-equal-size": E * (2 * D * F // 32 * 17 + 2 * (F + D)),
            },
            rtol=0,
        )
