"""Exercises of lesson 12, load, text and entropy."""

import numpy as np

from gptoss_jax.course.checks import Student, exercise


def _sets(student: Student, T: int, L: int, E: int, X: int) -> np.ndarray:
    """Sets of distinct experts [T, L, X], some experts far likelier than others."""
    score = student.rng.normal(size=(T, L, E)) + 1.5 * student.rng.normal(size=(L, E))
    return np.argsort(-score, axis=-1)[..., :X]


def _counts(ids: np.ndarray, E: int) -> np.ndarray:
    """Choices of each layer, int [L, E]."""
    return np.stack([np.bincount(ids[:, layer].ravel(), minlength=E) for layer in range(ids.shape[1])])


@exercise(
    "12",
    "load_of",
    hints={
        "counts-returned": "these are counts. How many choices does a layer make in all?",
        "divided-by-tokens": "add up a layer's loads: does a token make one choice, or several?",
        "divided-over-all-layers": "add up the loads of one layer, and then those of all. Which sum should be 1?",
        "layers-pooled": "every layer shows the same numbers: expert 3 of one layer is not expert 3 of another.",
        "first-choice-only": "a token has several experts, and each of its choices counts once.",
        "unused-left-out": "how many columns are there, if the experts with the highest numbers serve nobody?",
    },
)
def load_of(student: Student) -> None:
    """Uneven random routing in which the last expert is never chosen."""
    for _ in range(5):
        T, L, E, X = (int(n) for n in student.rng.integers((5, 2, 7, 2), (12, 5, 10, 4)))
        ids = _sets(student, T, L, E - 1, X)
        count = _counts(ids, E)
        got = student.call(ids, E)
        student.expect(np.shape(got) != (L, ids.max() + 1), "unused-left-out")
        student.equal(
            got,
            count / (T * X),
            {
                "counts-returned": count,
                "divided-by-tokens": count / T,
                "divided-over-all-layers": count / (T * X * L),
                "layers-pooled": np.tile(count.sum(0) / (T * X * L), (L, 1)),
                "first-choice-only": _counts(ids[..., :1], E) / T,
            },
        )


@exercise(
    "12",
    "wake",
    hints={
        "beats-the-best": "must the expert come first, or is it enough to be among the chosen?",
        "one-place-too-low": "put your amount in for two experts and one choice: whom does the dead one overtake?",
        "every-token": "with this amount every token chooses the expert. How many need to?",
        "on-average": "a mean over tokens: does the expert have to be chosen by an average token?",
        "wrong-sign": "the bias must rise: is your amount above zero?",
        "score-returned": "this is a score. How far is it from the one that it has to reach?",
    },
)
def wake(student: Student) -> None:
    """Random scores with one expert far below the chosen ones."""
    for _ in range(6):
        T, E = (int(n) for n in student.rng.integers((4, 6), (9, 11)))
        count, dead = int(student.rng.integers(2, 4)), int(student.rng.integers(E))
        z = student.rng.normal(size=(T, E))
        z[:, dead] -= 6
        falling = -np.sort(-z, axis=1)
        gap, own = falling[:, count - 1] - z[:, dead], z[:, dead]
        student.equal(
            student.call(z, count, dead),
            gap.min(),
            {
                "beats-the-best": (falling[:, 0] - own).min(),
                "one-place-too-low": (falling[:, count] - own).min(),
                "every-token": gap.max(),
                "on-average": gap.mean(),
                "wrong-sign": -gap.min(),
                "score-returned": falling[:, count - 1].min(),
            },
        )


@exercise(
    "12",
    "weight_of",
    hints={
        "chosen-or-not": "this says whether the expert was chosen. With what weight?",
        "first-choice-only": "an expert may also be a token's second or last choice.",
        "chosen-tokens-only": "one number for every token, also for those that went elsewhere.",
        "largest-weight": "this is the weight of the first choice, whoever it was.",
        "layer-mean": "one number for each token, not one for the text.",
    },
)
def weight_of(student: Student) -> None:
    """Random sets with random weights."""
    for _ in range(5):
        rng = student.rng
        T, E, X = (int(n) for n in rng.integers((9, 5, 2), (15, 8, 5)))
        ids = _sets(student, T, 1, E, X)[:, 0]
        weights = -np.sort(-rng.dirichlet(np.ones(X), size=T), axis=1)
        expert = int(ids[0, 1])
        hit = ids == expert
        right = (weights * hit).sum(1)
        got = student.call(ids, weights, expert)
        student.expect(np.shape(got) != (hit.sum(),) or hit.any(1).all(), "chosen-tokens-only")
        student.expect(np.shape(got) != (), "layer-mean")
        student.equal(
            got,
            right,
            {
                "chosen-or-not": hit.any(1),
                "first-choice-only": weights[:, 0] * hit[:, 0],
                "largest-weight": weights[:, 0],
            },
        )


@exercise(
    "12",
    "baseline",
    hints={
        "not-shuffled": "your result is the true distance: do the marks move to other tokens?",
        "loads-averaged-first": "nearly zero: do you take the distance in each shuffle, or of the averaged loads?",
        "one-shuffle": "only one of the orders enters: take the mean over all of them.",
        "largest-shuffle": "this is the largest distance. Which summary is asked for?",
        "counts-compared": "the parts have different sizes: compare shares of choices, not counts.",
        "not-halved": "two loads with no expert in common have distance 1. What do yours have?",
    },
)
def baseline(student: Student) -> None:
    """Random routing, a part of a quarter of the tokens, and eight orders."""
    for _ in range(5):
        rng = student.rng
        T, E, X = (int(n) for n in rng.integers((16, 6, 2), (30, 9, 4)))
        ids = _sets(student, T, 1, E, X)[:, 0]
        part = np.arange(T) < T // 4
        orders = np.stack([rng.permutation(T) for _ in range(8)])
        loads = np.stack([_loads(ids, part[order], E) for order in orders])
        raw = np.stack([_loads(ids, part[order], E, shares=False) for order in orders])
        each = _distance(loads)
        student.equal(
            student.call(ids, part, orders, E),
            each.mean(),
            {
                "not-shuffled": _distance(_loads(ids, part, E)),
                "loads-averaged-first": _distance(loads.mean(0)),
                "one-shuffle": each[0],
                "largest-shuffle": each.max(),
                "counts-compared": _distance(raw).mean(),
                "not-halved": 2 * each.mean(),
            },
        )


def _loads(ids: np.ndarray, part: np.ndarray, E: int, shares: bool = True) -> np.ndarray:
    """Load of the part and of the rest, [2, E]."""
    counts = np.stack([np.bincount(ids[side].ravel(), minlength=E) for side in (part, ~part)])
    return counts / counts.sum(-1, keepdims=True) if shares else counts


def _distance(loads: np.ndarray) -> np.ndarray:
    return np.abs(loads[..., 0, :] - loads[..., 1, :]).sum(-1) / 2
