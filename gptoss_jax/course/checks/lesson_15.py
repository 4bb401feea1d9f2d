"""Exercises of lesson 15, rounding and routing."""

import math

import numpy as np

from gptoss_jax.course.checks import Student, exercise


def falling(logits_TE: np.ndarray) -> np.ndarray:
    """Each row from the highest to the lowest."""
    return -np.sort(-np.asarray(logits_TE, np.float64), axis=-1)


@exercise(
    "15",
    "certain",
    hints={
        "one-moves": "you let one of the two scores move. What if the other comes to meet it?",
        "first-choice": "this says whether the *first* expert stays first. Between which two does the set end?",
        "one-place-too-low": "count the places: which is the lowest expert chosen, and which the best that is not?",
        "one-place-too-high": "two chosen experts that trade places leave the set as it is. Which two matter?",
        "at-risk": "these are the tokens at risk. Which ones are asked for?",
        "tie-is-safe": "where the scores can just meet, is the set safe?",
    },
)
def certain(student: Student) -> None:
    """Random scores, half of them on a grid, so that some can just meet."""
    for case in range(8):
        rng = student.rng
        E = int(rng.integers(6, 10))
        count = int(rng.integers(3, 5))
        logits = rng.normal(size=(40, E))
        error = 0.125
        if case % 2:
            logits = np.round(logits * 16) / 16
        z = falling(logits)
        gap = z[:, :-1] - z[:, 1:]
        right = gap[:, count - 1] > 2 * error
        student.equal(
            student.call(logits, count, error),
            right,
            {
                "one-moves": gap[:, count - 1] > error,
                "first-choice": gap[:, 0] > 2 * error,
                "one-place-too-low": gap[:, count] > 2 * error,
                "one-place-too-high": gap[:, count - 2] > 2 * error,
                "at-risk": ~right,
                "tie-is-safe": gap[:, count - 1] >= 2 * error,
            },
        )


def chance(gap: np.ndarray, spread: float) -> np.ndarray:
    """P(a difference with this mean and this standard deviation is negative)."""
    return np.vectorize(math.erfc)(gap / (spread * math.sqrt(2))) / 2


@exercise(
    "15",
    "flip_chance",
    hints={
        "one-error": "both scores of a pair have an error. How large is the standard deviation of their difference?",
        "two-sided": "twice too much: a pair trades places when its difference falls below zero, not when it grows.",
        "bounds-equal": "the upper bound counts one pair only. Which others could change the set?",
        "not-capped": "a chance above 1?",
        "last-chosen-only": "is the last of the chosen the only one that can fall out?",
        "first-rejected-only": "is the best of the rejected the only one that can get in?",
        "chosen-among-themselves": "two chosen experts that trade places leave the set as it is.",
        "first-choice": "the lower bound looks at the two highest scores. Where does the set end?",
        "swapped": "the lower bound comes first.",
    },
)
def flip_chance(student: Student) -> None:
    """Random scores, errors from small to as large as the margins."""
    for case in range(6):
        rng = student.rng
        T, E, count = 12, int(rng.integers(6, 9)), int(rng.integers(2, 5))
        logits, sigma = rng.normal(size=(T, E)), (0.05, 0.2, 0.6)[case % 3]
        z = falling(logits)
        gap = z[:, :count, None] - z[:, None, count:]
        spread = sigma * math.sqrt(2)
        pairs, single = chance(gap, spread), chance(gap, sigma)
        low, high = pairs[:, -1, 0], np.minimum(pairs.sum((1, 2)), 1)
        inner = np.triu(np.ones((count, count)), 1) * chance(z[:, :count, None] - z[:, None, :count], spread)
        student.equal(
            student.call(logits, count, sigma),
            [low, high],
            {
                "one-error": [single[:, -1, 0], np.minimum(single.sum((1, 2)), 1)],
                "two-sided": [2 * low, np.minimum(2 * pairs.sum((1, 2)), 1)],
                "bounds-equal": [low, low],
                "not-capped": [low, pairs.sum((1, 2))],
                "last-chosen-only": [low, np.minimum(pairs[:, -1].sum(1), 1)],
                "first-rejected-only": [low, np.minimum(pairs[:, :, 0].sum(1), 1)],
                "chosen-among-themselves": [low, np.minimum(pairs.sum((1, 2)) + inner.sum((1, 2)), 1)],
                "first-choice": [chance(z[:, 0] - z[:, 1], spread), high],
                "swapped": [high, low],
            },
        )


@exercise(
    "15",
    "first_flip",
    hints={
        "order-counts": "the same experts in another order are the same set.",
        "none-is-zero": "a token that never differs seems to differ in layer 0. What should it get?",
        "none-is-minus-one": "what should a token get that differs in no layer?",
        "last-flip": "this is the last layer that differs.",
        "how-many": "this counts the layers that differ. Where is the first?",
        "whether": "whether a token ever differs is not yet where.",
        "first-choice-only": "a set may differ although its first expert is the same, and agree although it is not.",
    },
)
def first_flip(student: Student) -> None:
    """Runs that differ in some sets, and everywhere in the order."""
    for _ in range(6):
        rng = student.rng
        T, L, E, X = 14, int(rng.integers(3, 6)), 8, 3
        a = rng.permuted(np.tile(np.arange(E), (T, L, 1)), axis=-1)[..., :X]
        b = rng.permuted(a, axis=-1)
        changed = rng.random((T, L)) < 0.4
        changed[:3] = False
        for t, layer in np.argwhere(changed):
            new = rng.choice(np.setdiff1d(np.arange(E), a[t, layer]))
            b[t, layer, int(rng.integers(X))] = new
        ever = changed.any(1)
        first = changed.argmax(1)
        in_order = (a != b).any(-1)
        of_first = a[..., 0] != b[..., 0]
        student.equal(
            student.call(a, b),
            np.where(ever, first, L),
            {
                "order-counts": np.where(in_order.any(1), in_order.argmax(1), L),
                "none-is-zero": first,
                "none-is-minus-one": np.where(ever, first, -1),
                "last-flip": np.where(ever, L - 1 - changed[:, ::-1].argmax(1), L),
                "how-many": changed.sum(1),
                "whether": ever,
                "first-choice-only": np.where(of_first.any(1), of_first.argmax(1), L),
            },
        )
