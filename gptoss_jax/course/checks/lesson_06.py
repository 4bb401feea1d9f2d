"""Exercises of lesson 06, the router."""

from typing import Any

import numpy as np

from gptoss_jax.course.checks import Student, exercise

PAIR = "two arrays are asked for, the experts and then their weights: `return experts, weights`."


def _softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _pair(student: Student, got: Any) -> np.ndarray:
    """Experts and weights as one array [2, T, X], or a hint."""
    student.expect(isinstance(got, list | tuple) and len(got) == 2, "not-a-pair")
    experts, weights = (np.asarray(part, np.float64) for part in got)
    if experts.shape != weights.shape:
        shapes = f"experts {list(experts.shape)} and weights {list(weights.shape)} differ"
        student.fail("wrong-shape", shapes)
    return np.stack([experts, weights])


def _take(ranking: np.ndarray, values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    experts = np.argsort(-ranking, axis=-1, kind="stable")[:, :count]
    return experts, np.take_along_axis(values, experts, -1)


@exercise(
    "06",
    "route",
    hints={
        "not-a-pair": PAIR,
        "bias-missing": "score an expert by hand, for a vector of zeros: what is left of its score?",
        "bias-chooses-only": "the bias is part of the score: does it matter for the choice alone?",
        "softmax-first": "add up your weights of one token: over which experts did the softmax run?",
        "lowest-first": "the expert with the highest score should come first.",
        "not-normalized": "these are the scores themselves: which function makes weights of them?",
    },
)
def route(student: Student) -> None:
    """Random routers with large biases."""
    for _ in range(6):
        rng = student.rng
        T, D, E = (int(n) for n in rng.integers((3, 3, 6), (7, 8, 12)))
        count = int(rng.integers(2, 5))
        x, router, bias = rng.normal(size=(T, D)), rng.normal(size=(E, D)), 2 * rng.normal(size=E)
        z = x @ router.T + bias
        experts, chosen = _take(z, z, count)
        plain, scores = _take(x @ router.T, x @ router.T, count)
        student.equal(
            _pair(student, student.call(x, router, bias, count)),
            np.stack([experts, _softmax(chosen)]),
            {
                "bias-missing": np.stack([plain, _softmax(scores)]),
                "bias-chooses-only": np.stack([experts, _softmax(np.take_along_axis(x @ router.T, experts, -1))]),
                "softmax-first": np.stack(_take(z, _softmax(z), count)),
                "lowest-first": np.stack([experts, _softmax(chosen)])[..., ::-1],
                "not-normalized": np.stack([experts, chosen]),
            },
        )


@exercise(
    "06",
    "repair",
    hints={
        "not-a-pair": PAIR,
        "not-repaired": "add up the weights of one token. What should they sum to?",
        "softmax-twice": "an exponential has been taken already: are these numbers scores or probabilities?",
        "divided-by-the-largest": "the best expert of every token has weight 1 in yours. What should a row add up to?",
        "lowest-first": "the expert with the highest probability should come first.",
    },
)
def repair(student: Student) -> None:
    """Softmax over all experts of random scores."""
    for _ in range(5):
        rng = student.rng
        T, E = (int(n) for n in rng.integers((3, 6), (7, 12)))
        count = int(rng.integers(2, 5))
        p = _softmax(1.5 * rng.normal(size=(T, E)))
        experts, kept = _take(p, p, count)
        right = np.stack([experts, kept / kept.sum(-1, keepdims=True)])
        student.equal(
            _pair(student, student.call(p, count)),
            right,
            {
                "not-repaired": np.stack([experts, kept]),
                "softmax-twice": np.stack([experts, _softmax(kept)]),
                "divided-by-the-largest": np.stack([experts, kept / kept.max(-1, keepdims=True)]),
                "lowest-first": right[..., ::-1],
            },
        )


@exercise(
    "06",
    "force_bias",
    hints={
        "first-place": "the expert has to be among the chosen: does it have to win?",
        "one-place-off": "which of the other experts does it have to reach, counted from the best?",
        "some-token": "some token still does not choose the expert. Which token needs the most?",
        "negative": "this expert is chosen by all already: what does the text say about numbers below zero?",
    },
)
def force_bias(student: Student) -> None:
    """Random scores; in one case every token chooses the expert already."""
    for case in range(6):
        rng = student.rng
        T, E = (int(n) for n in rng.integers((4, 7), (9, 12)))
        count, e = int(rng.integers(2, 5)), int(rng.integers(E))
        z = rng.normal(size=(T, E))
        if case == 3:
            z[:, e] += 20
        others = -np.sort(-np.delete(z, e, axis=1), axis=1)
        need = others - z[:, e : e + 1]
        student.equal(
            student.call(z, e, count),
            max(0.0, need[:, count - 1].max()),
            {
                "first-place": max(0.0, need[:, 0].max()),
                "one-place-off": max(0.0, need[:, count].max()),
                "some-token": max(0.0, need[:, count - 1].min()),
                "negative": need[:, count - 1].max(),
            },
        )


@exercise(
    "06",
    "nearest_tie",
    hints={
        "runner-up-only": "a nearer wall exists: is the pair with the smallest gap the one with the shortest step?",
        "last-chosen-only": "a nearer wall exists: can only the last of the chosen experts be overtaken?",
        "wrong-direction": "the gap has become wider: in which direction does it shrink?",
        "length-not-squared": "put your point into the router: are two scores equal there? Check the step's divisor.",
        "step-returned": "this is the step: where does it lead, starting from `x_D`?",
        "bias-missing": "the scores contain a bias, and the gap between two of them does too.",
    },
)
def nearest_tie(student: Student) -> None:
    """Random routers; in some the nearest wall is not that of the smallest gap."""
    for _ in range(8):
        rng = student.rng
        D, E, count = 4, 7, 3
        x, router, bias = rng.normal(size=D), rng.normal(size=(E, D)), rng.normal(size=E)
        router *= rng.uniform(0.3, 3, size=(E, 1))
        step = _shortest(x, router, bias, count)
        student.equal(
            student.call(x, router, bias, count),
            x - step,
            {
                "runner-up-only": x - _shortest(x, router, bias, count, last=True, best=True),
                "last-chosen-only": x - _shortest(x, router, bias, count, last=True),
                "wrong-direction": x + step,
                "length-not-squared": x - _shortest(x, router, bias, count, power=1),
                "step-returned": step,
                "bias-missing": x - _shortest(x, router, 0 * bias, count),
            },
        )


def _shortest(
    x: np.ndarray,
    router: np.ndarray,
    bias: np.ndarray,
    count: int,
    last: bool = False,
    best: bool = False,
    power: int = 2,
) -> np.ndarray:
    """The shortest step to a wall, over all pairs or over those of the last chosen, the best rejected expert."""
    z = router @ x + bias
    order = np.argsort(-z)
    inside = order[count - 1 : count] if last else order[:count]
    outside = order[count : count + 1] if best else order[count:]
    pairs = [(z[a] - z[b], router[a] - router[b]) for a in inside for b in outside]
    gap, difference = min(pairs, key=lambda pair: pair[0] / np.linalg.norm(pair[1]))
    return gap / np.linalg.norm(difference) ** power * difference
