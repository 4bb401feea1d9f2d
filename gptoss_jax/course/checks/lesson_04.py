"""Exercises of lesson 04: RoPE and YaRN."""

import numpy as np

from gptoss_jax.course.checks import Student, exercise

# openai/gpt-oss torch/model.py in float64, for (32, 150000, 32, 4096, 32, 1)
PUBLISHED = """1 0.689044306 0.474782055 0.327145872 0.225418 0.155322989 0.107024421 0.0737445682 0.0508132748
0.0317056962 0.0193350011 0.0115920493 0.00679495949 0.00386035932 0.00209379238 0.0010526021 0.000456483919
0.000129318701 3.83088124e-05 2.6396469e-05 1.81883367e-05 1.25325698e-05 8.63549588e-06 5.95023926e-06 4.09997848e-06
2.82506683e-06 1.94659621e-06 1.34129104e-06 9.2420895e-07 6.36820915e-07 4.38797825e-07 3.02351143e-07"""


def _together(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.concatenate([first, second], axis=-1)


@exercise(
    "04",
    "rotate",
    hints={
        "neighbors-paired": "your pairs are neighbors. Which number is the partner of number 0 here?",
        "wrong-direction": "the angles are right, the sense is not: turn (1, 0) by a quarter and look where it points.",
        "mixed-up-turns": "is the first half already turned when you compute the second from it?",
        "first-angle-for-all": "every pair has an angle of its own.",
        "interleaved-result": "the numbers are right, their order is not: keep the layout of the input.",
        "not-turned": "these are the vectors as they came.",
    },
)
def rotate(student: Student) -> None:
    """Random vectors and angles of random sizes."""
    for _ in range(5):
        rng = student.rng
        T, half = (int(n) for n in rng.integers(2, 7, size=2))
        x, angle = rng.normal(size=(T, 2 * half)), rng.uniform(0.2, 3, size=(T, half))
        cos, sin = np.cos(angle), np.sin(angle)
        a, b = x[:, :half], x[:, half:]
        first, second = a * cos - b * sin, b * cos + a * sin
        even, odd = x[:, ::2], x[:, 1::2]
        near = np.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1).reshape(T, -1)
        one_cos, one_sin = cos[:, :1], sin[:, :1]
        student.equal(
            student.call(x, angle),
            _together(first, second),
            {
                "neighbors-paired": near,
                "wrong-direction": _together(a * cos + b * sin, b * cos - a * sin),
                "mixed-up-turns": _together(first, b * cos + first * sin),
                "first-angle-for-all": _together(a * one_cos - b * one_sin, b * one_cos + a * one_sin),
                "interleaved-result": np.stack([first, second], axis=-1).reshape(T, -1),
                "not-turned": x,
            },
            atol=1e-5,
        )


@exercise(
    "04",
    "yarn",
    hints={
        "all-divided": "every pair is slowed, also those that have turned often enough to know all angles.",
        "not-slowed": "these are the frequencies without YaRN.",
        "ramp-reversed": "your slow pairs are kept and your fast ones slowed. Which pairs make many turns?",
        "bounds-rounded": "the bounds need not fall on a pair. Did you round them?",
        "ramp-not-clipped": "the ramp goes beyond its ends. What happens to pairs outside the bounds?",
        "wavelengths-mixed": "is it the frequencies that are mixed, or the wavelengths?",
        "exponent": "the fastest pair is right and the rest are not: look at the exponent of the base.",
        "wavelengths": "wavelengths come back; frequencies were asked for.",
        "turns-without-pi": "how many radians has a full turn?",
    },
)
def yarn(student: Student) -> None:
    """The published table, then random settings."""
    published = np.array(PUBLISHED.split(), np.float64)
    for case in range(6):
        rng = student.rng
        half, base, factor, context, fast, slow = 32, 150_000, 32, 4096, 32, 1
        if case:
            half, factor = int(rng.integers(16, 65)), int(rng.integers(4, 65))
            base, context = int(rng.integers(20_000, 500_000)), int(rng.integers(2048, 8193))
            fast, slow = int(rng.integers(12, 33)), int(rng.integers(1, 4))
        i = np.arange(half)
        plain = base ** (-i / half)
        bounds = [half * np.log(context / (2 * np.pi * turns)) / np.log(base) for turns in (fast, slow)]
        no_pi = [half * np.log(context / turns) / np.log(base) for turns in (fast, slow)]

        def mix(ramp: np.ndarray, plain: np.ndarray = plain, factor: int = factor) -> np.ndarray:
            return plain / factor * ramp + plain * (1 - ramp)

        def slope(ends: list[float], i: np.ndarray = i) -> np.ndarray:
            return (i - ends[0]) / (ends[1] - ends[0])

        ramp = np.clip(slope(bounds), 0, 1)
        steep = base ** (-2 * i / half)
        student.equal(
            student.call(half, base, factor, context, fast, slow),
            mix(ramp) if case else published,
            {
                "all-divided": plain / factor,
                "not-slowed": plain,
                "ramp-reversed": mix(1 - ramp),
                "bounds-rounded": mix(np.clip(slope([np.floor(bounds[0]), np.ceil(bounds[1])]), 0, 1)),
                "ramp-not-clipped": mix(slope(bounds)),
                "wavelengths-mixed": 1 / (factor / plain * ramp + (1 - ramp) / plain),
                "exponent": mix(ramp, steep),
                "wavelengths": 2 * np.pi / mix(ramp),
                "turns-without-pi": mix(np.clip(slope(no_pi), 0, 1)),
            },
            rtol=1e-6,
            atol=1e-13,
        )


@exercise(
    "04",
    "length",
    hints={
        "no-concentration": "that is the length before. What multiplies every cosine and sine?",
        "squared-factor": "scores grow by the square of it. Does a single vector?",
        "no-root": "a length is the root of the sum of squares.",
        "other-logarithm": "logarithms are natural here, as everywhere in this course.",
        "depends-on-position": "does turning an arrow change its length?",
    },
)
def length(student: Student) -> None:
    """Random vectors at random positions."""
    for _ in range(5):
        rng = student.rng
        x, position = rng.normal(size=2 * int(rng.integers(2, 33))), int(rng.integers(1, 5000))
        factor = float(rng.uniform(2, 64))
        size = float(np.linalg.norm(x))
        by = 0.1 * np.log(factor) + 1
        got = student.call(x, position, factor)
        student.expect(np.allclose(got, student.call(x, position + 7, factor), rtol=1e-4), "depends-on-position")
        student.equal(
            got,
            size * by,
            {
                "no-concentration": size,
                "squared-factor": size * by**2,
                "no-root": size**2 * by,
                "other-logarithm": size * (0.1 * np.log2(factor) + 1),
            },
        )
