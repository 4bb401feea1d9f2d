"""Exercises of lesson 16, training a tiny mixture of experts."""

from typing import Any

import numpy as np

from gptoss_jax.course.checks import Student, exercise


def _softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _row_entropies(chain: np.ndarray) -> np.ndarray:
    return -(chain * np.log(np.where(chain > 0, chain, 1))).sum(-1)


def _shares(chain: np.ndarray) -> np.ndarray:
    """Long-run share of every state: shares @ chain = shares, and they sum to 1."""
    n = len(chain)
    equations = np.vstack([chain.T - np.eye(n), np.ones(n)])
    return np.linalg.lstsq(equations, np.r_[np.zeros(n), 1.0], rcond=None)[0]


@exercise(
    "16",
    "entropy_rate",
    hints={
        "rows-count-alike": "a rare word counts as much as the commonest one: how often is each row used?",
        "bits": "your number is larger by a constant factor: which logarithm gives nats?",
        "of-the-words": "this is the uncertainty about a word when the one before it is *not* known.",
        "rows-added": "this grows with the number of words: is it a mean over them?",
        "one-step-only": "the shares still change when the chain takes one more step.",
    },
)
def entropy_rate(student: Student) -> None:
    """Random chains with zeros and with uneven shares; every state can be reached, and none twice in lockstep."""
    for _ in range(6):
        n = int(student.rng.integers(3, 7))
        chain = student.rng.dirichlet(np.full(n, 0.4), size=n) * student.rng.uniform(0.3, 3, size=n)
        chain[chain < 0.1] = 0
        chain += 0.2 * (np.roll(np.eye(n), 1, axis=1) + np.diag(np.arange(n) == 0))
        chain /= chain.sum(1, keepdims=True)
        shares, entropies = _shares(chain), _row_entropies(chain)
        right = shares @ entropies
        student.equal(
            student.call(chain),
            right,
            {
                "rows-count-alike": entropies.mean(),
                "bits": right / np.log(2),
                "of-the-words": _row_entropies(shares),
                "rows-added": entropies.sum(),
                "one-step-only": chain.mean(0) @ entropies,
            },
        )


def _balance(logits: np.ndarray, experts: np.ndarray, real: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Load and mean probability of every expert, the load from the first `width` choices."""
    E, n = logits.shape[1], real.sum()
    load = np.bincount(experts[real, :width].ravel(), minlength=E) / (n * width)
    return load, _softmax(logits[real]).mean(0)


@exercise(
    "16",
    "balance_loss",
    hints={
        "not-scaled": "spread the load evenly: is your loss 1 then?",
        "chosen-only": "can an expert that nobody chose have a P above zero? Over which experts goes your softmax?",
        "padding-counted": "add a row of padding: your loss falls. By how many tokens do you divide?",
        "padding-ignored": "`real_T` makes no difference in yours.",
        "padding-in-the-mean": "f is right. Which tokens take part in the mean that gives P?",
        "first-only": "each token has X choices: do all of them count in f?",
        "counts-per-token": "your f adds up to X: what should shares add up to?",
        "load-squared": "this is built from loads alone, and counting has no gradient. Where is P?",
        "probability-squared": "this is built from probabilities alone. Where is f?",
        "summed-over-tokens": "take each text twice: your loss must not grow.",
        "no-gradient": "the value is right, but `jax.grad` finds nothing to differentiate: does any step leave `jnp`?",
    },
)
def balance_loss(student: Student) -> None:
    """Random logits, some tokens padding; then the gradient with respect to the logits."""
    import jax

    for _ in range(5):
        rng = student.rng
        T, E, X = 8, 6, 3  # always: every new shape is compiled again
        logits = (1.5 * rng.normal(size=(T, E)) + rng.normal(size=E)).astype(np.float32)
        real = np.arange(T) < T - int(rng.integers(1, 4))
        rng.shuffle(real)
        experts = np.argsort(-logits, axis=-1)[:, :X]
        chosen = np.zeros((T, E))
        np.put_along_axis(chosen, experts, _softmax(np.take_along_axis(logits, experts, -1)), -1)
        experts = np.where(real[:, None], experts, E).astype(np.int32)
        n = real.sum()
        load, mean = _balance(logits, experts, real, X)
        right = E * load @ mean
        all_mean = _softmax(logits).mean(0)
        student.equal(
            student.call(logits, experts, real),
            right,
            {
                "not-scaled": load @ mean,
                "chosen-only": E * load @ chosen[real].mean(0),
                "padding-counted": right * (n / T) ** 2,
                "padding-in-the-mean": E * load @ all_mean,
                "padding-ignored": E * (n / T) * load @ all_mean,
                "first-only": E * _balance(logits, experts, real, 1)[0] @ mean,
                "counts-per-token": X * right,
                "load-squared": E * load @ load,
                "probability-squared": E * mean @ mean,
                "summed-over-tokens": n * right,
            },
        )
        _gradient(student, jax, logits, experts, real, load)


def _gradient(
    student: Student, jax: Any, logits: np.ndarray, experts: np.ndarray, real: np.ndarray, load: np.ndarray
) -> None:
    """The answer's gradient against the formula: p_e (f_e - sum f p) E / n for every token that is not padding."""
    try:
        got = jax.grad(lambda z: student.answer(z, experts, real))(logits)
    except Exception:
        student.fail("no-gradient")
    p = _softmax(logits)
    right = logits.shape[1] / real.sum() * real[:, None] * p * (load - (p @ load)[:, None])
    student.expect(np.allclose(got, right, rtol=1e-3, atol=1e-5), "no-gradient")


@exercise(
    "16",
    "death_steps",
    hints={
        "first-dip": "an expert that was idle for a while and came back counts as dead in yours.",
        "absolute": "with 8 experts the even share is 1/8. With what did you compare the load?",
        "alive-is-zero": "an expert that is alive at the end has step 0 in yours: when did it die?",
        "last-alive": "this is the last step with enough load. Which step comes first *without*?",
        "one-off": "look at an expert that dies at step 3: is its load at step 3 below the bound, and at step 2 above?",
        "alive-is-last": "an expert that is alive at the end gets S, which is no step of the run.",
    },
)
def death_steps(student: Student) -> None:
    """Loads of experts that live, die, never live, or come back."""
    for case in range(6):
        rng = student.rng
        S, E, least = int(rng.integers(8, 14)), int(rng.integers(5, 9)), float(rng.uniform(0.1, 0.5))
        alive = np.ones((S, E), bool)
        dies = rng.integers(2, S - 1, size=E)
        for e in range(1, E):
            alive[dies[e] :, e] = False
        alive[2:4, 0] = False  # a gap, and back
        alive[:, 1] = case % 2  # never alive in every other case
        if dies[2] > 3:
            alive[1, 2] = False  # a dip before its death
        load = np.where(alive, rng.uniform(1.1, 2, (S, E)), rng.uniform(0, 0.9, (S, E))) * least / E
        right = np.array([S if a[-1] else (np.flatnonzero(a).max(initial=-1) + 1) for a in alive.T])
        first = np.array([S if a.all() else np.argmin(a) for a in alive.T])
        big = load >= least
        student.equal(
            student.call(load, least),
            right,
            {
                "first-dip": first,
                "absolute": np.array([S if a[-1] else (np.flatnonzero(a).max(initial=-1) + 1) for a in big.T]),
                "alive-is-zero": np.where(right == S, 0, right),
                "last-alive": right - 1,
                "one-off": np.where(right == S, S, right + 1),
                "alive-is-last": np.where(right == S, S - 1, right),
            },
        )
