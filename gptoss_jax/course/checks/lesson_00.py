"""Exercises of lesson 00, the map."""

import jax.numpy as jnp

from gptoss_jax.course.checks import Student, exercise


@exercise(
    "00",
    "predict_shapes",
    hints={
        "not-three": "there are three shapes to fill in, each a tuple of two numbers.",
        "letters-swapped": "the letters in the name give the order: `router_ED` has E rows and D columns.",
        "all-experts-kept": "`chosen_TX`: is X the number of experts, or the number that each position keeps?",
        "depends-on-position": "the router's matrix is a weight: does its size depend on how many positions there are?",
    },
)
def predict_shapes(student: Student) -> None:
    """Three shapes, with 7 positions, hidden size 2880, 32 experts and 4 chosen."""
    answer = student.answer
    student.expect(isinstance(answer, list | tuple) and len(answer) == 3, "not-three")
    student.expect(all(isinstance(shape, list | tuple) and len(shape) == 2 for shape in answer), "not-three")
    router, scores, chosen = (tuple(shape) for shape in answer)
    student.expect(7 not in router, "depends-on-position")
    student.expect(chosen != (7, 32), "all-experts-kept")
    swapped = router == (2880, 32) or scores == (32, 7) or chosen == (4, 7)
    student.expect(not swapped, "letters-swapped")
    student.equal([router, scores, chosen], [(32, 2880), (7, 32), (7, 4)])


@exercise(
    "00",
    "rowwise",
    hints={
        "one-sum-for-all": "every row must add up to 1 on its own. Which numbers does your sum run over?",
        "columns": "your columns add up to 1. Over which axis does `vmap` map?",
        "softmax": "no exponential is asked for: divide the numbers themselves by their sum.",
        "not-divided": "what comes back are the numbers themselves; where is the division?",
    },
)
def rowwise(student: Student) -> None:
    """Rows divided by their sums, on matrices of random sizes."""
    for _ in range(5):
        T, D = student.rng.integers((2, 6), (6, 10))
        x = jnp.asarray(student.rng.uniform(0.1, 2.0, size=(T, D)), jnp.float32)
        e = jnp.exp(x)
        student.equal(
            student.call(x),
            x / x.sum(1, keepdims=True),
            {
                "one-sum-for-all": x / x.sum(),
                "columns": x / x.sum(0),
                "softmax": e / e.sum(1, keepdims=True),
                "not-divided": x,
            },
        )


@exercise(
    "00",
    "count_experts",
    hints={
        "forgot-biases": "each matrix has a bias with one number for each of its rows.",
        "gate-counted-once": "the matrix up has two halves, gate and value: how many rows is that?",
        "one-expert": "that is a single expert; a layer has several.",
        "down-bias-width": "the bias of the matrix down is added to its result: of which size is that?",
    },
)
def count_experts(student: Student) -> None:
    """Parameters of one layer's experts for random sizes, D different from F."""
    for _ in range(5):
        D, F, E = (int(n) for n in student.rng.integers(2, 50, size=3))
        D += 50
        student.equal(
            student.call(D, F, E),
            E * (3 * D * F + 2 * F + D),
            {
                "forgot-biases": E * 3 * D * F,
                "gate-counted-once": E * (2 * D * F + F + D),
                "one-expert": 3 * D * F + 2 * F + D,
                "down-bias-width": E * (3 * D * F + 3 * F),
            },
            rtol=0,
        )
