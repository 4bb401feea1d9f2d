"""Exercises of lesson 14, causal tests."""

import numpy as np

from gptoss_jax.course.checks import Student, exercise


def dense(logits_TE: np.ndarray, count: int) -> np.ndarray:
    """float64 [T, E]: softmax over the `count` highest logits of each row, 0 elsewhere."""
    chosen = np.argsort(-logits_TE, axis=-1, kind="stable")[:, :count]
    weights = np.zeros(logits_TE.shape)
    powers = np.exp(np.take_along_axis(logits_TE, chosen, -1))
    np.put_along_axis(weights, chosen, powers / powers.sum(-1, keepdims=True), -1)
    return weights


def gone(logits_TE: np.ndarray, count: int, expert: int, how: str) -> np.ndarray:
    """The definition of the three ways, as weights [T, E]."""
    if how == "mask":
        barred = logits_TE.astype(float)
        barred[:, expert] = -np.inf
        return dense(barred, count)
    weights = dense(logits_TE, count)
    weights[:, expert] = 0
    return weights / weights.sum(-1, keepdims=True) if how == "renormalize" else weights


@exercise(
    "14",
    "without",
    hints={
        "ways-swapped": "which way keeps the sum of the remaining weights below 1, and which brings it back to 1?",
        "mask-leaves-a-gap": "after masking, `count` experts must serve every token. Does one fewer serve here?",
        "masked-by-zero": "a logit of 0 is an ordinary logit, and may win. Which value can never be chosen?",
        "never-removed": "the expert that should be gone still has weight.",
        "all-experts": "softmax goes over the chosen experts only; here all experts have some weight.",
    },
)
def without(student: Student) -> None:
    """Random tokens, all three ways, some tokens untouched."""
    for case in range(9):
        rng = student.rng
        T, E, count = 6, int(rng.integers(5, 9)), int(rng.integers(2, 4))
        logits = rng.normal(size=(T, E)) - 1.0
        expert = int(np.argmax(logits[0]))
        how = ("renormalize", "zero", "mask")[case % 3]
        other = {"renormalize": "zero", "zero": "renormalize", "mask": "renormalize"}[how]
        zeroed = logits.copy()
        zeroed[:, expert] = 0
        powers = np.exp(logits)
        powers[:, expert] = 0
        everyone = powers / (np.exp(logits) if how == "zero" else powers).sum(-1, keepdims=True)
        student.equal(
            student.call(logits, count, expert, how),
            gone(logits, count, expert, how),
            {
                "never-removed": dense(logits, count),
                "mask-leaves-a-gap" if how == "mask" else "ways-swapped": gone(logits, count, expert, other),
                "masked-by-zero": dense(zeroed, count),
                "all-experts": everyone,
            },
        )


def divergence(base_TV: np.ndarray, changed_TV: np.ndarray) -> np.ndarray:
    """KL(base || changed) of each row, nats."""
    log_p, log_q = (z - np.log(np.exp(z).sum(-1, keepdims=True)) for z in (base_TV, changed_TV))
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


@exercise(
    "14",
    "effects",
    hints={
        "direction": "the divergence is not symmetric: the average goes over what the *unchanged* model expects.",
        "only-served": "the average goes over all tokens. One that the expert does not serve counts, as zero.",
        "summed": "add up over words, but average over tokens.",
        "renormalized": "here the expert's part is left out and nothing else changes.",
        "load": "this is how often the expert is used. Nothing has been removed yet.",
        "no-softmax": "logits are not probabilities: what turns one into the other?",
    },
)
def effects(student: Student) -> None:
    """Random layers in which some experts serve nobody."""
    for _ in range(5):
        rng = student.rng
        T, E, V = 12, 6, 5
        logits = rng.normal(size=(T, E))
        logits[:, int(rng.integers(E))] -= 9
        weights, output = dense(logits, 2), 2 * rng.normal(size=(E, V))
        base = weights @ output
        left = [base - weights[:, e, None] * output[e] for e in range(E)]
        every = np.stack([divergence(base, z) for z in left])
        scaled = []
        for e in range(E):
            rest = np.delete(weights, e, 1)
            total = rest.sum(-1, keepdims=True)
            scaled.append(divergence(base, rest / np.where(total > 0, total, 1) @ np.delete(output, e, 0)).mean())
        served = (weights > 0).sum(0)
        student.equal(
            student.call(weights, output),
            every.mean(-1),
            {
                "direction": [divergence(z, base).mean() for z in left],
                "only-served": every.sum(-1) / np.maximum(served, 1),
                "summed": every.sum(-1),
                "renormalized": scaled,
                "load": served / served.sum(),
                "no-softmax": [(np.exp(base) * (base - z)).sum(-1).mean() for z in left],
            },
        )


@exercise(
    "14",
    "direct",
    hints={
        "own-norm": "frozen means: divide by the size of the *whole* final stream, not by the size of the part.",
        "not-normed": "between the stream and the unembedding stands the final norm. Its division is missing.",
        "scale-missing": "the final norm also multiplies every number by its learned scale.",
        "epsilon-missing": "the norm adds a small number under the root, which counts where the stream is short.",
        "norm-of-sum": "divide by the root of the *mean* square, not by the length.",
    },
)
def direct(student: Student) -> None:
    """Random parts of short and long streams."""
    for case in range(6):
        rng = student.rng
        P, D, eps = int(rng.integers(2, 5)), int(rng.integers(4, 9)), 1e-5
        parts = rng.normal(size=(P, D)) * (1e-3 if case % 3 == 2 else 1)
        scale, row = rng.uniform(0.5, 2, D), rng.normal(size=D)
        final = parts.sum(0)
        size = np.sqrt((final**2).mean() + eps)
        own = np.sqrt((parts**2).mean(-1, keepdims=True) + eps)
        student.equal(
            student.call(parts, scale, row, eps),
            (parts / size * scale) @ row,
            {
                "own-norm": (parts / own * scale) @ row,
                "not-normed": (parts * scale) @ row,
                "scale-missing": (parts / size) @ row,
                "epsilon-missing": (parts / np.sqrt((final**2).mean()) * scale) @ row,
                "norm-of-sum": (parts / np.sqrt((final**2).sum() + eps) * scale) @ row,
            },
        )
