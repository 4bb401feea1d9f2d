"""Exercises of lesson 17, speed: bytes per token, the roofline, and a benchmark's log."""

import numpy as np

from gptoss_jax.course.checks import Student, exercise


@exercise(
    "17",
    "token_bytes",
    hints={
        "bits": "eight times too much, somewhere: how many bits has a byte?",
        "dense-missing": "the experts are not all that a token reads.",
        "dense-packed": "what is outside the experts is not stored in `bits` bits.",
        "dense-one-byte": "how many bytes has a bfloat16?",
        "one-layer": "every layer chooses its own experts.",
        "one-expert": "how many experts does a layer run for a token?",
        "dense-per-layer": "`dense` counts the parameters of all layers already.",
    },
)
def token_bytes(student: Student) -> None:
    """Random sizes, 4.25, 8 and 16 bits."""
    for case in range(6):
        rng = student.rng
        dense, expert = int(rng.integers(1_000, 90_000)), 8 * int(rng.integers(100, 9_000))
        layers, chosen = int(rng.integers(10, 30)), int(rng.integers(3, 9))
        bits = (4.25, 8, 16)[case % 3]
        experts = layers * chosen * expert * bits / 8
        student.equal(
            student.call(dense, expert, layers, chosen, bits),
            2 * dense + experts,
            {
                "bits": 2 * dense + 8 * experts,
                "dense-missing": experts,
                "dense-packed": dense * bits / 8 + experts,
                "dense-one-byte": dense + experts,
                "one-layer": 2 * dense + experts / layers,
                "one-expert": 2 * dense + experts / chosen,
                "dense-per-layer": 2 * dense * layers + experts,
            },
        )


@exercise(
    "17",
    "speed_bound",
    hints={
        "added": "moving and computing happen at the same time: do their times add up?",
        "faster-one": "the bound is set by the slower of the two.",
        "seconds": "this is the time of one token. How many tokens fit into a second?",
        "memory-only": "the arithmetic never limits in yours. Try a slow processor with fast memory.",
        "arithmetic-only": "the memory never limits in yours. Try a fast processor with slow memory.",
        "label": "the number is right. Which of the two takes longer, and what is it called in the text?",
    },
)
def speed_bound(student: Student) -> None:
    """Machines in pairs: one limited by memory, one by arithmetic, by clear factors."""
    for _ in range(4):
        rng = student.rng
        bandwidth, rate = float(rng.uniform(10, 100)), float(rng.uniform(100, 1000))
        moving = np.array([rng.uniform(0.2, 0.3), rng.uniform(0.02, 0.1)])
        computing = np.array([rng.uniform(0.02, 0.1), rng.uniform(0.2, 0.3)])
        pair = zip(moving.tolist(), computing.tolist(), strict=True)
        answers = [student.call(m * bandwidth, c * rate, bandwidth, rate) for m, c in pair]
        for got in answers:
            student.expect(isinstance(got, tuple | list) and len(got) == 2, "wrong-type", "something that is no pair")
        slow = np.maximum(moving, computing)
        student.equal(
            [got[0] for got in answers],
            1 / slow,
            {
                "added": 1 / (moving + computing),
                "seconds": slow,
                "faster-one": 1 / np.minimum(moving, computing),
                "memory-only": 1 / moving,
                "arithmetic-only": 1 / computing,
            },
        )
        student.expect([got[1] for got in answers] == ["memory", "arithmetic"], "label")


@exercise(
    "17",
    "bandwidth_share",
    hints={
        "first-included": "the time before the first token is in yours. What happened in it?",
        "one-too-many": "between N tokens there are fewer than N gaps.",
        "not-a-share": "this is bytes per second. What share of the bandwidth is it?",
        "upside-down": "reaching the bound should give 1, and slower runs less.",
        "tokens-only": "how many bytes does each of these tokens move?",
    },
)
def bandwidth_share(student: Student) -> None:
    """Regular stamps after a late first one."""
    for _ in range(6):
        rng = student.rng
        n, gap, first = int(rng.integers(3, 12)), float(rng.uniform(0.01, 0.2)), float(rng.uniform(1, 40))
        stamps = first + gap * np.arange(n)
        nbytes = float(rng.uniform(1e6, 1e9))
        share = float(rng.uniform(0.05, 0.9))
        bandwidth = nbytes / gap / share
        student.equal(
            student.call(stamps, nbytes, bandwidth),
            share,
            {
                "first-included": n / stamps[-1] * nbytes / bandwidth,
                "one-too-many": share * n / (n - 1),
                "not-a-share": nbytes / gap,
                "upside-down": 1 / share,
                "tokens-only": 1 / gap / bandwidth,
            },
            atol=0,
        )
