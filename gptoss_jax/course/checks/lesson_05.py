"""Exercises of lesson 05: attention with groups, windows and sinks."""

import numpy as np

from gptoss_jax.course.checks import Student, exercise


@exercise(
    "05",
    "window_mask",
    hints={
        "one-too-many": "a window of 1 should leave each position with itself alone. How many keys does yours leave?",
        "one-too-few": "a window of 1 should leave each position with itself. Does yours leave anything?",
        "reads-ahead": "some queries see keys that come later in the text.",
        "no-window": "keys are hidden when they are later, but never because they are too far back.",
        "both-sides": "the window opens to one side only.",
        "places-not-positions": "slots are not positions: compare the numbers in the arrays, not where they stand.",
        "axes-swapped": "queries go down, keys go across.",
        "inverted": "True should mean that a query *may* see the key.",
    },
)
def window_mask(student: Student) -> None:
    """Positions from 0, then later positions with the keys of a cache in any order."""
    for case in range(7):
        rng = student.rng
        window = (1, 3)[case] if case < 2 else int(rng.integers(2, 7))
        if case < 3:
            queries = keys = np.arange(8)
        else:
            start = int(rng.integers(10, 300))
            queries = np.arange(start, start + 4)
            keys = rng.permutation(np.arange(start - 8, start + 4))
        i, j = queries[:, None], keys[None, :]
        right = (i - j >= 0) & (i - j < window)
        place = np.arange(len(queries))[:, None] - np.arange(len(keys))[None, :]
        student.equal(
            student.call(queries, keys, window),
            right,
            {
                "one-too-many": (i - j >= 0) & (i - j <= window),
                "one-too-few": (i - j >= 0) & (i - j < window - 1),
                "reads-ahead": i - j < window,
                "no-window": i - j >= 0,
                "both-sides": abs(i - j) < window,
                "places-not-positions": (place >= 0) & (place < window),
                "axes-swapped": right.T,
                "inverted": ~right,
            },
        )


@exercise(
    "05",
    "cache_size",
    hints={
        "numbers-not-bytes": "how many bytes has a bfloat16?",
        "keys-alone": "for each position two vectors are kept, not one.",
        "window-ignored": "sliding layers do not keep everything.",
        "window-always-full": "what does a sliding layer hold when the text is shorter than its window?",
        "window-everywhere": "full layers keep every position.",
        "one-layer": "every layer has a cache of its own.",
    },
)
def cache_size(student: Student) -> None:
    """Random sizes, contexts below and above the window."""
    for case in range(6):
        full, sliding, window, heads, dim = (int(n) for n in student.rng.integers(2, 40, size=5))
        context = window + int(student.rng.integers(5, 500)) if case % 2 else max(1, window // 2)
        row = 4 * heads * dim
        held = min(context, window)
        student.equal(
            student.call(context, full, sliding, window, heads, dim),
            row * (full * context + sliding * held),
            {
                "numbers-not-bytes": row // 2 * (full * context + sliding * held),
                "window-ignored": row * (full + sliding) * context,
                "window-always-full": row * (full * context + sliding * window),
                "window-everywhere": row * (full + sliding) * held,
                "keys-alone": row // 4 * (full * context + sliding * held),
                "one-layer": row * (context + held),
            },
            rtol=0,
        )


@exercise(
    "05",
    "sink_softmax",
    hints={
        "sink-without-effect": "your rows add up to 1, so the sink receives nothing. Where does it enter the sum?",
        "column-kept": "the result has one column too many: which one belongs to no key?",
        "sink-not-exponentiated": "the sink is a score like the others: what happens to a score before it is added up?",
        "over-queries": "each query shares out its own attention. Over which axis does your softmax run?",
        "sink-once-for-all": "every row has its own sum, and the sink joins each of them.",
        "overflow": "scores of 1000 give NaN or infinity. What may be subtracted from all scores and the sink at once?",
        "empty-row": "a row that sees nothing gives NaN. Which score is still there to take the maximum over?",
    },
)
def sink_softmax(student: Student) -> None:
    """Random rows; then scores of 1000, exact in float32; then a row without any visible key."""
    for case in range(7):
        rng = student.rng
        T, S = (int(n) for n in rng.integers((2, 4), (4, 8)))
        scores, sink = rng.normal(size=(T, S)), float(rng.normal())
        if case == 4:
            scores, sink = np.round(scores * 8) / 8 + 1000, round(sink * 8) / 8 + 1000
        if case >= 5:
            scores[case - 5] = -np.inf
        largest = np.maximum(scores.max(1, keepdims=True), sink)
        e, extra = np.exp(scores - largest), np.exp(sink - largest)
        right = e / (e.sum(1, keepdims=True) + extra)
        got = student.call(scores, sink)
        finite = np.isfinite(np.asarray(got, np.float64)).all() if np.shape(got) == right.shape else True
        student.expect(finite or case != 4, "overflow")
        student.expect(finite or case < 5, "empty-row")
        mistakes = {}
        if case < 4:
            e, total = np.exp(scores), np.exp(scores).sum(1, keepdims=True)
            mistakes = {
                "sink-without-effect": e / total,
                "sink-not-exponentiated": e / (total + sink),
                "over-queries": e / (e.sum(0) + np.exp(sink)),
                "sink-once-for-all": e / (e.sum() + np.exp(sink)),
            }
            last = np.exp(sink) / (total + np.exp(sink))
            student.expect(np.shape(got) != (T, S + 1), "column-kept")
            student.expect(not np.allclose(np.sum(got, -1), 1) or np.allclose(last, 0), "sink-without-effect")
        student.equal(got, right, mistakes)


@exercise(
    "05",
    "sink_mass",
    hints={
        "kept-share": "that is the share of the keys together. Which side of the gate is asked for?",
        "best-key-only": "only the best key enters your result; the others compete with the sink too.",
        "number-of-keys": "ten equal keys take more from the sink than one does. Is yours a mean or a sum?",
        "scores-added": "exponentials are added, not scores.",
        "exponential-alone": "the result should lie between 0 and 1 whatever the sink is.",
        "overflow": "scores of 1000 give NaN or infinity. Which function is the log of a sum of exponentials?",
    },
)
def sink_mass(student: Student) -> None:
    """Random scores, then scores of 1000."""
    for case in range(6):
        rng = student.rng
        scores, sink = rng.normal(size=int(rng.integers(3, 9))), float(rng.normal(1, 1))
        if case == 5:
            scores, sink = np.round(scores * 8) / 8 + 1000, round(sink * 8) / 8 + 1000
        largest = scores.max()
        log_sum = largest + np.log(np.exp(scores - largest).sum())

        def share(level: float, sink: float = sink) -> float:
            return float(1 / (1 + np.exp(np.clip(level - sink, -700, 700))))

        got = student.call(scores, sink)
        finite = np.isfinite(np.asarray(got, np.float64)).all()
        student.expect(finite or case != 5, "overflow")
        student.equal(
            got,
            share(log_sum),
            {
                "kept-share": 1 - share(log_sum),
                "best-key-only": share(largest),
                "number-of-keys": share(log_sum - np.log(len(scores))),
                "scores-added": share(scores.sum()),
                "exponential-alone": np.exp(min(sink - log_sum, 700)),
            },
            rtol=1e-3,
        )
