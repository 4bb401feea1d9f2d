"""Exercises of lesson 11, generation: a ring cache, temperature, top-p."""

import numpy as np

from gptoss_jax.course.checks import Student, exercise


def _append(ring: np.ndarray, length: int, chunk: np.ndarray) -> np.ndarray:
    ring = ring.copy()
    for c in range(len(chunk)):
        ring[(length + c) % len(ring)] = chunk[c]
    return ring


@exercise(
    "11",
    "greedy_loop",
    hints={
        "prompt-returned": "only the new tokens are asked for.",
        "stop-left-out": "the stop token itself belongs to the result.",
        "goes-on": "a stop token was written. Why does the text go on?",
        "prompt-alone": "the model is asked about the same text again and again: what should have been appended?",
        "least-likely": "which logit belongs to the likeliest token?",
        "one-more": "`count` is the largest number of tokens to return.",
    },
)
def greedy_loop(student: Student) -> None:
    """A random function of the whole text as the model; without a stop, with one, and with a stop in the prompt."""
    for case in range(8):
        rng = student.rng
        V, count = 12, int(rng.integers(4, 9))
        table = rng.normal(size=(64, V))
        prompt = [int(t) for t in rng.integers(0, V, size=3)]

        def next_logits(tokens, table=table):
            weighted = sum((place + 1) * int(token) for place, token in enumerate(tokens))
            return table[(weighted + 7 * len(tokens)) % 64]

        def written(pick=np.argmax, fed=True, count=count, prompt=prompt, next_logits=next_logits):
            new: list[int] = []
            for _ in range(count):
                new.append(int(pick(next_logits([*prompt, *(new if fed else [])]))))
            return new

        def cut(tokens, stop, keep=1):
            ends = [i for i, token in enumerate(tokens) if token in stop]
            return tokens[: ends[0] + keep] if ends else tokens

        everything = written()
        stop = {everything[int(rng.integers(1, 4))]} if case % 2 else {prompt[0]} - set(everything)
        given = list(prompt)
        got = student.call(next_logits, given, count, stop)
        student.expect(given == prompt, "changed-input")
        right = cut(everything, stop)
        student.equal(
            got,
            right,
            {
                "prompt-returned": prompt + right,
                "goes-on": everything,
                "stop-left-out": cut(everything, stop, keep=0),
                "prompt-alone": cut(written(fed=False), stop),
                "least-likely": cut(written(pick=np.argmin), stop),
                "one-more": cut(written(count=count + 1), stop),
            },
        )


@exercise(
    "11",
    "ring_append",
    hints={
        "starts-at-slot-0": "the first token of the chunk has position `length`. In which slot does that belong?",
        "off-by-one": "`length` tokens came before, the first of them at position 0. Which position is the next?",
        "moved": "this is a window that shifts: every key moves at every step. In a ring each token stays in its slot.",
        "first-kept": "the chunk is longer than the ring. Which of its tokens will later queries still see?",
        "old-forgotten": "a short chunk overwrites a few slots. What happened to the tokens in the others?",
        "long-chunk": "right for short chunks. Take a ring of 2 and a chunk of 3 and follow every token.",
    },
)
def ring_append(student: Student) -> None:
    """Short chunks, chunks of the ring's size, and chunks up to twice as long, at any length."""
    for case in range(12):
        rng = student.rng
        W, H = int(rng.integers(3, 7)), 2
        length = int(rng.integers(W + 1, 40))
        count = (1, W - 1, W, W + 2, W + 1, 2 * W + 1)[case % 6]
        ring, chunk = rng.normal(size=(W, H)), rng.normal(size=(count, H))
        right = _append(ring, length, chunk)
        cut = chunk[-W:]
        mistakes = {
            "starts-at-slot-0": _append(ring, 0, chunk),
            "off-by-one": _append(ring, length - 1, chunk),
            "moved": np.concatenate([ring, chunk])[-W:],
            "first-kept": _append(ring, length, chunk[:W]),
            "old-forgotten": _append(np.zeros_like(ring), length, chunk),
            "long-chunk": _append(ring, length, cut),
        }
        got = student.call(ring, length, chunk)
        student.equal(got, right, mistakes)


def _softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


@exercise(
    "11",
    "tempered",
    hints={
        "multiplied": "a low temperature should make the likely likelier. Does yours make everything more equal?",
        "ignored": "the result does not depend on the temperature.",
        "after-softmax": "the temperature divides the logits, not the probabilities.",
        "not-normalized": "the numbers should sum to one.",
        "zero": "temperature 0 goes wrong: what should it mean, and what does a division by it give?",
        "overflow": "large logits at a small temperature overflow. May a constant be taken off all logits?",
        "ties": "at temperature 0 two equal logits share first place: exactly one of them should win.",
    },
)
def tempered(student: Student) -> None:
    """Ordinary logits, then huge ones, then temperature 0, last with a tie."""
    rng = student.rng
    for _ in range(3):
        logits, temperature = rng.normal(0, 2, size=6), float(rng.choice([0.4, 0.7, 1.6, 2.5]))
        student.equal(
            student.call(logits, temperature),
            _softmax(logits / temperature),
            {
                "multiplied": _softmax(logits * temperature),
                "ignored": _softmax(logits),
                "after-softmax": _softmax(logits) / temperature,
                "not-normalized": np.exp(logits / temperature),
            },
        )
    logits = np.array([1000.0, 999.9985, -1000.0, 3.0])
    got = np.asarray(student.call(logits, 0.001), float)
    student.expect(np.isfinite(got).all(), "overflow")
    student.equal(got, _softmax(logits / 0.001), {"overflow": np.zeros(4)})
    for logits in (rng.normal(size=5), np.array([1.0, 4.0, 0.0, 4.0])):
        try:
            got = np.asarray(student.answer(logits, 0), float)
        except ZeroDivisionError:
            student.fail("zero")
        student.expect(got.shape == logits.shape and np.isfinite(got).all(), "zero")
        right = np.eye(len(logits))[int(np.argmax(logits))]
        student.expect(not np.allclose(got, _softmax(logits)), "zero")
        if np.sum(logits == logits.max()) > 1:
            student.expect(np.allclose(got, right), "ties")
        student.equal(got, right)


@exercise(
    "11",
    "top_p_mask",
    hints={
        "one-too-few": "the tokens that are kept hold less than p. Which token reaches the bound: is it in or out?",
        "none-left": "a single token can hold more than p. Is there always something left to draw?",
        "all-kept": "nothing is cut off.",
        "threshold": "p bounds a sum of probabilities, not a single one.",
        "rising": "the least likely tokens were taken first.",
        "in-rank-order": "the right number of tokens, at the wrong ids: the sorted order is not the order of the ids.",
        "one-too-many": "the sum has already reached p before the last token that yours keeps.",
    },
)
def top_p_mask(student: Student) -> None:
    """Random distributions in shuffled order; then a token that holds more than p alone, and p = 1."""
    for case in range(10):
        rng = student.rng
        probs = rng.permutation(_softmax(np.linspace(0, 4, 8) + rng.uniform(0, 0.3, 8)))
        p = float(rng.uniform(0.5, 0.95))
        if case == 8:
            probs, p = np.array([0.03, 0.9, 0.05, 0.02]), 0.7
        if case == 9:
            probs, p = np.array([0.25, 0.5, 0.125, 0.0625, 0.0625 - 2**-10, 2**-10]), 1.0
        order = np.argsort(-probs)
        before = np.cumsum(probs[order]) - probs[order]

        def at_ids(kept: np.ndarray, order: np.ndarray = order) -> np.ndarray:
            mask = np.zeros(len(kept), bool)
            mask[order] = kept
            return mask

        kept = before < p
        few = np.arange(len(probs)) < kept.sum() - 1
        rising = np.argsort(probs)
        mistakes = {
            "threshold": probs >= 1 - p,
            "none-left": np.zeros(len(probs), bool),
            "all-kept": np.ones(len(probs), bool),
            "one-too-few": at_ids(few),
            "one-too-many": at_ids(np.arange(len(probs)) < kept.sum() + 1),
            "in-rank-order": kept,
            "rising": at_ids(np.cumsum(probs[rising]) - probs[rising] < p, rising),
        }
        got = student.call(probs, p)
        student.equal(got, at_ids(kept), mistakes)
