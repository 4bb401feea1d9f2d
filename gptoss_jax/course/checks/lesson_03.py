"""Exercises of lesson 03: embedding, norm and the residual stream."""

import numpy as np

from gptoss_jax.course.checks import Student, exercise


@exercise(
    "03",
    "rms_norm",
    hints={
        "sum-not-mean": "is it the sum of the squares that is wanted, or their average?",
        "mean-removed": "no mean is subtracted here: that would be the older LayerNorm.",
        "all-rows-together": "each row has a size of its own. Over which axis do you average?",
        "epsilon-outside": "look at the formula again: does epsilon stand under the root or beside it?",
        "epsilon-missing": "long vectors come out right, very short ones do not. Which argument did you not use?",
        "scale-missing": "the direction is right; one of the three arguments has no effect.",
        "root-missing": "the size of a result should not change when the input is doubled. Does yours?",
    },
)
def rms_norm(student: Student) -> None:
    """Random matrices, half of them so small that epsilon matters."""
    for case in range(6):
        rng = student.rng
        T, D = (int(n) for n in rng.integers((2, 5), (5, 9)))
        x = rng.normal(0.3, 1, size=(T, D)) * (0.003 if case % 2 else 2.0)
        scale, eps = rng.uniform(0.5, 2, size=D), 1e-5
        square = (x**2).mean(-1, keepdims=True)
        centered = x - x.mean(-1, keepdims=True)
        student.equal(
            student.call(x, scale, eps),
            scale * x / np.sqrt(square + eps),
            {
                "sum-not-mean": scale * x / np.sqrt(D * square + eps),
                "mean-removed": scale * centered / np.sqrt((centered**2).mean(-1, keepdims=True) + eps),
                "all-rows-together": scale * x / np.sqrt((x**2).mean() + eps),
                "epsilon-outside": scale * x / (np.sqrt(square) + eps),
                "epsilon-missing": scale * x / np.sqrt(square),
                "scale-missing": x / np.sqrt(square + eps),
                "root-missing": scale * x / (square + eps),
            },
        )


@exercise(
    "03",
    "breaking",
    hints={
        "not-four": "four numbers are asked for.",
        "input-not-finite": "your numbers themselves are not finite in float32.",
        "zeros": "zeros break it, but here none of the four may be zero, also after rounding to float32.",
        "too-large": "epsilon would not help here: the sum overflows with and without it. Look at the other end.",
        "survives": "without epsilon these numbers are still normalized to something finite. What happens to a square?",
    },
)
def breaking(student: Student) -> None:
    """Four numbers whose squares vanish in float32."""
    try:
        x = np.asarray(student.answer, np.float64)
    except (TypeError, ValueError):
        student.fail("not-four")
    student.expect(x.shape == (4,), "not-four")
    with np.errstate(all="ignore"):
        x = x.astype(np.float32)
        student.expect(np.isfinite(x).all(), "input-not-finite")
        student.expect((x != 0).all(), "zeros")
        square = np.mean(x * x)
        bare, guarded = x / np.sqrt(square), x / np.sqrt(square + np.float32(1e-5))
    student.expect(np.isfinite(square), "too-large")
    student.expect(not np.isfinite(bare).all() and np.isfinite(guarded).all(), "survives")
    student.cases = 1


@exercise(
    "03",
    "fold",
    hints={
        "rows-not-columns": "the scale belongs to the entries of the *input*. Is that the first or the second axis?",
        "divided": "the scale is to be moved into the matrix, not taken out of it.",
        "unchanged": "this is the matrix as it was.",
        "twice": "the scale acts once in the norm; in your matrix it acts twice.",
        "transposed": "a stored matrix is [output, input]; keep it that way.",
    },
)
def fold(student: Student) -> None:
    """Random matrices, square ones first, where a wrong axis does not raise."""
    for case in range(5):
        rng = student.rng
        rows, D = (6, 6) if case < 2 else (int(n) for n in rng.integers((2, 7), (6, 11)))
        weight, scale = rng.normal(size=(rows, D)), rng.uniform(0.5, 2, size=D)
        mistakes = {
            "divided": weight / scale,
            "unchanged": weight,
            "twice": weight * scale**2,
            "transposed": (weight * scale).T,
        }
        if rows == D:
            mistakes["rows-not-columns"] = weight * scale[:, None]
        student.equal(student.call(weight, scale), weight * scale, mistakes)
