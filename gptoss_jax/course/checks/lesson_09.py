"""Exercises of lesson 09, the full model."""

import numpy as np

from gptoss_jax.course.checks import Student, exercise


@exercise(
    "09",
    "block",
    hints={
        "no-residual": "the stream itself is gone: a half of a block returns only what it *adds*.",
        "parallel": "which stream do the experts read: the one before attention, or the one after it?",
        "experts-first": "the order of the two halves is the other one: a token first looks around, then thinks.",
        "one-half-missing": "one of the two halves never speaks.",
        "added-twice": "something enters the sum once too often.",
    },
)
def block(student: Student) -> None:
    """Random nonlinear halves on random streams."""
    for _ in range(5):
        rng = student.rng
        T, D = (int(n) for n in rng.integers((2, 3), (6, 8)))
        x = rng.normal(size=(T, D))
        a, b = rng.normal(size=(2, D, D))

        def attend(x, a=a):
            return np.tanh(np.asarray(x) @ a)

        def serve(x, b=b):
            return np.sin(np.asarray(x) @ b)

        after = x + attend(x)
        student.equal(
            student.call(x, attend, serve),
            after + serve(after),
            {
                "no-residual": serve(attend(x)),
                "parallel": x + attend(x) + serve(x),
                "experts-first": (x + serve(x)) + attend(x + serve(x)),
                "one-half-missing": after,
                "added-twice": x + after + serve(after),
            },
        )


@exercise(
    "09",
    "first_wrong_layer",
    hints={
        "largest-not-first": "errors grow on their way up: the entry that differs most is not the one where it began.",
        "off-by-one": "entry 0 is the embedding. Which entry is written by layer 0?",
        "false-alarm": "rounding differs everywhere. What is `bound` for?",
        "sound-model": "when nothing exceeds the bound there is no faulty layer: what should be returned?",
        "averaged-away": "one token out of many may be wrong, and a mean hides it: look at the largest difference.",
    },
)
def first_wrong_layer(student: Student) -> None:
    """Streams with rounding noise, and from some layer on a growing error in one token only."""
    bound = 1e-3
    for case in range(8):
        rng = student.rng
        L, T, D = 6, 40, 8
        theirs = rng.normal(size=(L + 1, T, D))
        ours = theirs + rng.uniform(-0.5, 0.5, theirs.shape) * bound
        fault = None if case == 3 else int(rng.integers(1, L))
        if fault is not None:
            token = int(rng.integers(T))
            for entry in range(fault + 1, L + 1):
                ours[entry, token] += 4 * bound * 3.0 ** (entry - fault)
        worst = np.abs(ours - theirs).max((1, 2))
        got = student.call(ours, theirs, bound)
        if fault is None:
            student.expect(int(got) == -1, "sound-model")
            continue
        answer = int(got)
        student.expect(answer != -1, "averaged-away")
        if answer != fault:
            student.expect(answer != fault + 1, "off-by-one")
            student.expect(answer not in (int(worst.argmax()), int(worst.argmax()) - 1), "largest-not-first")
            student.expect(answer > fault, "false-alarm")
        student.equal(answer, fault)
