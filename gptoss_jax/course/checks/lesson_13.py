"""Exercises of lesson 13, specialization, co-activation and flow."""

import numpy as np

from gptoss_jax.course.checks import Student, exercise


@exercise(
    "13",
    "shuffle_passages",
    hints={
        "not-shuffled": "every token has kept its label: where does the order enter?",
        "other-direction": "passage p takes the label of `order_P[p]`. Does it, or does it give its own away?",
        "numbers-returned": "these are numbers of passages. Which labels did those passages have?",
        "one-a-passage": "one label for each passage: how many tokens does it have?",
        "torn-apart": "tokens of one passage carry different labels now.",
    },
)
def shuffle_passages(student: Student) -> None:
    """Passages of different lengths with labels far from their numbers."""
    for _ in range(5):
        rng = student.rng
        P = int(rng.integers(5, 9))
        passage = np.repeat(np.arange(P), rng.integers(2, 6, size=P))
        of_passage = 100 + 10 * rng.permutation(P)
        order = np.roll(rng.permutation(P), 1)
        got = student.call(of_passage[passage], passage, order)
        right = of_passage[order][passage]
        student.expect(np.shape(got) != (P,), "one-a-passage")
        mistakes = {
            "not-shuffled": of_passage[passage],
            "other-direction": of_passage[np.argsort(order)][passage],
            "numbers-returned": order[passage],
        }
        whole = np.shape(got) == right.shape and len({(p, str(x)) for p, x in zip(passage, got, strict=True)}) == P
        student.expect(whole or np.shape(got) != right.shape, "torn-apart")
        student.equal(got, right, mistakes)


@exercise(
    "13",
    "top_by_pmi",
    hints={
        "by-count": "the commonest words come first: what would the expert get of them by chance?",
        "by-share-unfiltered": "a word that occurs once and was served once leads. Who should be left out?",
        "expert-count-compared": "compare the number of occurrences with `min_count`, not the number served.",
        "worst-first": "the strongest attraction should come first.",
        "positions-returned": "these number the distinct words: return the token ids themselves.",
        "never-served-included": "a word that the expert never served is in the list: what is its pmi?",
    },
)
def top_by_pmi(student: Student) -> None:
    """Words of which the expert serves clearly different shares."""
    for _ in range(6):
        rng = student.rng
        ids = np.sort(rng.choice(np.arange(20, 90), 8, replace=False))
        count = rng.permutation(np.array([21, 33, 47, 59, 68, 83, 3, 4]))
        share = rng.permutation(np.array([0.92, 0.75, 0.6, 0.41, 0.2, 0.0]))
        hits = np.empty(8, int)
        hits[count > 9] = np.rint(share * count[count > 9])
        hits[count == 3], hits[count == 4] = 3, 0
        tokens = np.repeat(ids, count)
        served = np.concatenate([np.arange(n) < k for n, k in zip(count, hits, strict=True)])
        order = rng.permutation(len(tokens))
        often, met = count >= 10, hits > 0
        n = 5

        def ranked(score: np.ndarray, kept: np.ndarray, ids: np.ndarray = ids, n: int = n) -> np.ndarray:
            """Ids that are kept, by falling score."""
            rows = np.flatnonzero(kept)
            return ids[rows[np.argsort(-score[rows], kind="stable")[:n]]]

        got = student.call(tokens[order], served[order], 10, n)
        silent = ids[~met & often]
        if np.ndim(got) == 1:
            student.expect(not np.isin(silent, got).any(), "never-served-included")
        share_of = hits / count
        student.equal(
            got,
            ranked(share_of, often & met),
            {
                "by-count": ranked(hits, often & met),
                "by-share-unfiltered": ranked(share_of, met),
                "expert-count-compared": ranked(share_of, hits >= 10),
                "worst-first": ranked(-share_of, often & met),
                "positions-returned": ranked(share_of, often & met, np.arange(8)),
            },
        )


@exercise(
    "13",
    "pair_counts",
    hints={
        "neighbors-only": "add up the row of one expert and divide by its tokens: is it k - 1?",
        "one-direction": "a met b, so b met a: is your table symmetric?",
        "diagonal-kept": "does an expert meet itself?",
        "counted-twice": "three tokens chose both experts: what does your table say there?",
        "shares-returned": "counts are asked for, not shares.",
        "pairs-of-first-only": "pairs without the first choice are pairs too.",
    },
)
def pair_counts(student: Student) -> None:
    """Random sets of three to five experts."""
    for _ in range(5):
        rng = student.rng
        T, E, X = (int(n) for n in rng.integers((6, 7, 3), (15, 10, 6)))
        ids = np.argsort(rng.random((T, E)), axis=1)[:, :X]
        m = np.eye(E)[ids]
        all_pairs = m.sum(1).T @ m.sum(1)
        diagonal = np.diag(np.diag(all_pairs))
        one_way = sum((m[:, i].T @ m[:, j] for i in range(X) for j in range(i + 1, X)), np.zeros((E, E)))
        neighbors = sum((m[:, i].T @ m[:, i + 1] for i in range(X - 1)), np.zeros((E, E)))
        with_first = sum((m[:, 0].T @ m[:, j] for j in range(1, X)), np.zeros((E, E)))
        right = all_pairs - diagonal
        own = np.maximum(np.diag(all_pairs), 1)[:, None]
        got = student.call(ids, E)
        mistakes = {
            "diagonal-kept": all_pairs,
            "counted-twice": 2 * right,
            "shares-returned": right / own,
            "pairs-of-first-only": with_first + with_first.T,
        }
        for hint, found in (("neighbors-only", neighbors), ("one-direction", one_way)):
            for outcome in (found, found + found.T) if hint == "neighbors-only" else (found, found.T):
                if np.shape(got) == (E, E) and np.array_equal(got, outcome) and not np.array_equal(outcome, right):
                    student.fail(hint)
        student.equal(got, right, mistakes)


@exercise(
    "13",
    "renumbered",
    hints={
        "unchanged": "nothing was renumbered in layer 1: which expert got a new number?",
        "too-similar": "a renumbering, but velocity has hardly moved: whom should the busiest expert trade names with?",
        "another-layer": "only the experts of layer 1 may get new numbers.",
        "not-a-renumbering": "two experts share a name now, or one has two: every expert needs a number of its own.",
        "positions-shuffled": "tokens or ranks traded places: the numbers may change, the routing must stay.",
        "out-of-range": "the numbers must stay within 0 .. num_experts - 1.",
    },
)
def renumbered(student: Student) -> None:
    """Two layers with uneven loads; any renumbering that moves velocity by a fifth will do."""
    for _ in range(5):
        rng = student.rng
        E, X, T = int(rng.integers(6, 10)), 2, 300
        liking = np.stack([rng.permutation(np.linspace(0, 2.5, E)) for _ in range(2)])
        ids = np.argsort(-(liking + rng.gumbel(size=(T, 2, E))), axis=-1)[..., :X]
        got = np.asarray(student.call(ids, E))
        if got.shape != ids.shape:
            student.fail("wrong-shape", f"{list(got.shape)} instead of {list(ids.shape)}")
        if got.dtype.kind not in "iu":
            student.fail("wrong-type", f"{got.dtype} instead of integers")
        student.expect(got.min() >= 0 and got.max() < E, "out-of-range")
        student.expect(np.array_equal(got[:, 0], ids[:, 0]), "another-layer")
        student.expect(not np.array_equal(got, ids), "unchanged")
        links = np.unique(np.stack([ids[:, 1].ravel(), got[:, 1].ravel()]), axis=1)
        if links.shape[1] != E or len(np.unique(links[1])) != E:
            kept = np.array_equal(np.bincount(got[:, 1].ravel(), minlength=E), np.bincount(ids[:, 1].ravel()))
            student.fail("positions-shuffled" if kept else "not-a-renumbering")
        before, after = _velocity(ids, E), _velocity(got, E)
        student.expect(abs(after - before) > before / 5, "too-similar")


def _velocity(ids: np.ndarray, E: int) -> float:
    q, p = (np.bincount(ids[:, layer].ravel(), minlength=E) / ids[:, layer].size for layer in (0, 1))
    return float((p * np.log(p / q)).sum())
