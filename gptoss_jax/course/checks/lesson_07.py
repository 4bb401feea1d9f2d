"""Exercises of lesson 07, the experts."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gptoss_jax.course.checks import Student, exercise

LIMIT, ALPHA = 7.0, 1.702


def _gated(gate: Any, up: Any) -> Any:
    return gate / (1 + np.exp(-ALPHA * gate)) * (up + 1)


def _swiglu(gate: Any, up: Any) -> Any:
    return _gated(np.minimum(gate, LIMIT), np.clip(up, -LIMIT, LIMIT))


PORTS: dict[str, Callable[[float, float], float]] = {
    "a": lambda g, u: _gated(min(g, LIMIT), min(u, LIMIT)),
    "b": lambda g, u: _gated(min(g, LIMIT), np.clip(u + 1, -LIMIT, LIMIT) - 1),
    "c": lambda g, u: _gated(np.clip(g, -LIMIT, LIMIT), np.clip(u, -LIMIT, LIMIT)),
    "d": lambda g, u: min(g, LIMIT) / (1 + np.exp(-ALPHA * g)) * (np.clip(u, -LIMIT, LIMIT) + 1),
}
HARMFUL = ("a", "b")


@exercise(
    "07",
    "clamp_hunt",
    hints={
        "not-four": 'a dictionary with the keys "a" to "d" is asked for.',
        "not-a-pair": "the entry of {detail} is neither None nor two numbers.",
        "out-of-range": "the pair of {detail} leaves -50 .. 50.",
        "pair-agrees": "on your pair {detail} is right, or nearly so. Where do its limits leave the definition?",
        "given-up": "one that you call harmless is not: {detail}. Which part of it moved, and who feels it?",
    },
)
def clamp_hunt(student: Student) -> None:
    """The four ports of the lesson."""
    answer = student.answer
    student.expect(isinstance(answer, dict) and set(answer) == set(PORTS), "not-four")
    for name, pair in answer.items():
        if pair is None:
            continue
        numbers = isinstance(pair, list | tuple) and len(pair) == 2 and all(np.isscalar(x) for x in pair)
        student.expect(numbers and not any(isinstance(x, str) for x in pair), "not-a-pair", name)
        gate, up = (float(x) for x in pair)
        student.expect(max(abs(gate), abs(up)) <= 50, "out-of-range", name)
        student.expect(abs(PORTS[name](gate, up) - _swiglu(gate, up)) > 0.1, "pair-agrees", name)
    for name in HARMFUL:
        student.expect(answer[name] is not None, "given-up", name)


def _expert(
    x: np.ndarray,
    gate_up: np.ndarray,
    gate_up_bias: np.ndarray,
    down: np.ndarray,
    down_bias: np.ndarray,
    *,
    split: Callable[[np.ndarray], Any] = lambda h: (h[:, 0::2], h[:, 1::2]),
    act: Callable[[Any, Any], Any] = _swiglu,
) -> np.ndarray:
    return act(*split(x @ gate_up.T + gate_up_bias)) @ down.T + down_bias


def _halves(h: np.ndarray) -> Any:
    return h[:, : h.shape[1] // 2], h[:, h.shape[1] // 2 :]


@exercise(
    "07",
    "expert_output",
    hints={
        "halves": "where in the 2F numbers is the second gate: at index 1, or at index 2?",
        "gate-and-up-swapped": "entry 0 is one of the two, entry 1 the other. Which is which?",
        "no-plus-one": "an up value of 0 should pass the gate unchanged. Does it, in yours?",
        "alpha-missing": "compare your sigmoid's argument with the definition: is a factor missing?",
        "no-clamp": "what does the definition do with a gate of 50?",
        "up-not-clamped": "one of the two inputs has two limits. Does yours?",
        "bias-missing": "both matrices have a bias: does a token of zeros get anything from your expert?",
    },
)
def expert_output(student: Student) -> None:
    """Random experts, D different from F, with values on both sides of every limit."""
    for _ in range(6):
        rng = student.rng
        T, D, F = (int(n) for n in rng.integers((2, 3, 4), (6, 7, 8)))
        given = (
            rng.normal(size=(T, D)) * 2,
            rng.normal(size=(2 * F, D)) * 2.5,
            rng.normal(size=2 * F),
            rng.normal(size=(D, F)) / 8,
            rng.normal(size=D),
        )
        x, gate_up, first, down, second = given
        student.equal(
            student.call(*given),
            _expert(*given),
            {
                "halves": _expert(*given, split=_halves),
                "gate-and-up-swapped": _expert(*given, split=lambda h: (h[:, 1::2], h[:, 0::2])),
                "no-plus-one": _expert(
                    *given, act=lambda g, u: _gated(np.minimum(g, LIMIT), np.clip(u, -LIMIT, LIMIT) - 1)
                ),
                "alpha-missing": _expert(
                    *given,
                    act=lambda g, u: np.minimum(g, 7) / (1 + np.exp(-np.minimum(g, 7))) * (np.clip(u, -7, 7) + 1),
                ),
                "no-clamp": _expert(*given, act=_gated),
                "up-not-clamped": _expert(*given, act=lambda g, u: _gated(np.minimum(g, LIMIT), u)),
                "bias-missing": _expert(x, gate_up, 0 * first, down, second * 0),
            },
        )


@exercise(
    "07",
    "bytes_read",
    hints={
        "order": "the right numbers in another order: dense, gather, grouped.",
        "dense-by-token": "dense runs every expert on every token: how often does it have to read an expert's weights?",
        "dense-touched": "dense runs the experts that nobody chose, too.",
        "gather-by-token": "gather goes through the pairs: how many pairs does one token have?",
        "grouped-all": "grouped passes over the experts that nobody chose.",
        "in-experts": "how many experts are read is only half of the answer: how large is one?",
    },
)
def bytes_read(student: Student) -> None:
    """Random routings in which some experts are chosen by nobody."""
    for _ in range(5):
        rng = student.rng
        E, T, X = int(rng.integers(20, 40)), int(rng.integers(3, 7)), int(rng.integers(2, 4))
        experts = np.argsort(rng.random((T, E - 5)), axis=1)[:, :X]
        size = int(rng.integers(100, 1000))
        counts = np.array([E, T * X, len(np.unique(experts))])
        dense, gather, touched = counts * size
        student.equal(
            student.call(experts, E, size),
            [dense, gather, touched],
            {
                "dense-by-token": [dense * T, gather, touched],
                "dense-touched": [touched, gather, touched],
                "gather-by-token": [dense, T * size, touched],
                "grouped-all": [dense, gather, dense],
                "in-experts": counts,
                "order": [touched, gather, dense],
            },
            rtol=0,
        )


@exercise(
    "07",
    "grouped",
    hints={
        "unweighted": "the outputs of a token's experts are added, but each with a factor of its own.",
        "overwritten": "a token has several experts: what happens to the first one's output when the second arrives?",
        "weights-of-first-choice": "the weight belongs to a pair: in which column of its token does this expert stand?",
        "runs-everyone": "the sums are right, but experts were run on tokens that did not choose them: {detail}.",
        "once-per-pair": "the sums are right, but some expert was called more than once: {detail}.",
        "called-for-nobody": "an expert that nobody chose was called.",
    },
)
def grouped(student: Student) -> None:
    """Random routings with unpopular experts; counts the calls of `serve` and their tokens."""
    for _ in range(5):
        rng = student.rng
        T, E, X, D = 9, 12, 3, 4
        popularity = np.linspace(0, 4, E)
        experts = np.argsort(-(popularity + rng.gumbel(size=(T, E))), axis=-1)[:, :X]
        weights = rng.dirichlet(np.ones(X), size=T)
        x, matrices = rng.normal(size=(T, D)), rng.normal(size=(E, D, D))
        calls: list[tuple[int, int]] = []

        def serve(e: int, x_ND: np.ndarray, matrices: np.ndarray = matrices, calls: list = calls) -> np.ndarray:
            x_ND = np.asarray(x_ND)
            calls.append((int(e), len(x_ND) if x_ND.ndim == 2 else 1))
            return np.tanh(x_ND @ matrices[int(e)])

        got = student.call(x, experts, weights, serve)
        seen = list(calls)
        y = np.stack([[np.tanh(x[t] @ matrices[e]) for e in experts[t]] for t in range(T)])
        last = experts.argmax(axis=1)
        student.equal(
            got,
            (weights[..., None] * y).sum(axis=1),
            {
                "unweighted": y.sum(axis=1),
                "overwritten": (weights[..., None] * y)[np.arange(T), last],
                "weights-of-first-choice": (weights[:, :1, None] * y).sum(axis=1),
            },
        )
        student.expect(all(n for _, n in seen), "called-for-nobody")
        rows = sum(n for _, n in seen)
        student.expect(rows <= T * X, "runs-everyone", f"{rows} rows for {T * X} pairs")
        chosen = len(np.unique(experts))
        student.expect(len(seen) <= chosen, "once-per-pair", f"{len(seen)} calls for {chosen} experts")
