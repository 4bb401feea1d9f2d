"""Right and wrong answers to the exercises of lesson 16."""

import jax
import jax.numpy as jnp
import numpy as np


def _shares(chain, steps=4000):
    return np.full(len(chain), 1 / len(chain)) @ np.linalg.matrix_power(chain, steps)


def _entropies(chain):
    return -np.sum(chain * np.log(np.maximum(chain, 1e-300)), axis=-1)


def _rate(chain):
    return _shares(chain) @ _entropies(chain)


def _by_eigenvector(chain):
    values, vectors = np.linalg.eig(chain.T)
    shares = np.real(vectors[:, np.argmax(np.real(values))])
    return shares / shares.sum() @ _entropies(chain)


def _mixed(balance):
    """An answer from f [E], P [E], E, X and the number of real tokens."""

    def answer(logits, experts, real):
        E, X, n = logits.shape[1], experts.shape[1], real.sum()
        f = jax.nn.one_hot(experts, E).sum((0, 1)) / (n * X)
        P = (jax.nn.softmax(jnp.asarray(logits)) * real[:, None]).sum(0) / n
        return balance(f, P, E, X, n)

    return answer


def _right(f, P, E, X, n):
    return E * (f * P).sum()


def _by_matrices(logits, experts, real):
    """One product of a token's choices with every other token's probabilities."""
    E, weight = logits.shape[1], real / real.sum()
    choices = jnp.eye(E + 1)[experts].mean(1)[:, :E]
    return E * jnp.einsum("s,se,te,t->", weight, choices, jax.nn.softmax(logits, -1), weight)


def _with_mean(mean_of, width=None):
    def answer(logits, experts, real):
        E, picked = logits.shape[1], experts[:, :width]
        f = jax.nn.one_hot(picked, E).sum((0, 1)) / (real.sum() * picked.shape[1])
        return E * (f * mean_of(jnp.asarray(logits), experts, real)).sum()

    return answer


def _chosen_mean(logits, experts, real):
    E = logits.shape[1]
    inside = jax.nn.one_hot(experts, E).sum(1) > 0
    p = jax.nn.softmax(jnp.where(inside, logits, -1e30), -1)
    return (p * real[:, None]).sum(0) / real.sum()


def _real_mean(logits, experts, real):
    return (jax.nn.softmax(logits, -1) * real[:, None]).sum(0) / real.sum()


def _no_mask(logits, experts, real):
    E = logits.shape[1]
    f = jax.nn.one_hot(experts, E).mean((0, 1))
    return E * (f * jax.nn.softmax(logits, -1).mean(0)).sum()


def _in_numpy(logits, experts, real):
    return float(_mixed(_right)(np.array(logits), experts, real))


def _deaths(load, least):
    S, E = load.shape
    steps = []
    for e in range(E):
        s = S
        while s > 0 and load[s - 1, e] < least / E:
            s -= 1
        steps.append(s)
    return np.array(steps)


def _first_dip(load, least):
    low = load < least / load.shape[1]
    return np.where(low.any(0), low.argmax(0), len(load))


def _reversed_argmax(load, least):
    """Counts the idle steps at the end without asking whether there is a living one before."""
    alive = load >= least / load.shape[1]
    return len(load) - alive[::-1].argmax(0)


ANSWERS = {
    "entropy_rate": {
        "right": [_rate, _by_eigenvector],
        "wrong": {
            "rows-count-alike": lambda chain: _entropies(chain).mean(),
            "bits": lambda chain: _rate(chain) / np.log(2),
            "of-the-words": lambda chain: _entropies(_shares(chain)),
            "rows-added": lambda chain: _entropies(chain).sum(),
            "one-step-only": lambda chain: _shares(chain, 1) @ _entropies(chain),
            "not-finite": lambda chain: -(_shares(chain)[:, None] * chain * np.log(chain)).sum(),
            "wrong-shape": lambda chain: _shares(chain) * _entropies(chain),
        },
        "blind": [
            ("not-finite", lambda chain: -(chain * np.log(chain)).sum(1).mean()),
            ("wrong-values", lambda chain: _entropies(chain).max()),
        ],
    },
    "balance_loss": {
        "right": [_mixed(_right), _by_matrices],
        "wrong": {
            "not-scaled": _mixed(lambda f, P, E, X, n: (f * P).sum()),
            "chosen-only": _with_mean(_chosen_mean),
            "padding-counted": lambda z, e, real: _mixed(_right)(z, e, real) * (real.sum() / len(real)) ** 2,
            "padding-in-the-mean": _with_mean(lambda z, e, real: jax.nn.softmax(z, -1).mean(0)),
            "padding-ignored": _no_mask,
            "first-only": _with_mean(_real_mean, 1),
            "counts-per-token": _mixed(lambda f, P, E, X, n: E * (X * f * P).sum()),
            "load-squared": _mixed(lambda f, P, E, X, n: E * (f * f).sum()),
            "probability-squared": _mixed(lambda f, P, E, X, n: E * (P * P).sum()),
            "summed-over-tokens": _mixed(lambda f, P, E, X, n: E * (f * P).sum() * n),
            "no-gradient": _in_numpy,
            "wrong-shape": _mixed(lambda f, P, E, X, n: E * f * P),
        },
        "blind": [
            ("wrong-values", _mixed(lambda f, P, E, X, n: jnp.square(f - 1 / E).sum() * E)),
            ("no-gradient", lambda *given: jax.lax.stop_gradient(_mixed(_right)(*given))),
        ],
    },
    "death_steps": {
        "right": [_deaths],
        "wrong": {
            "first-dip": _first_dip,
            "absolute": lambda load, least: _deaths(load, least * load.shape[1]),
            "alive-is-zero": lambda load, least: _deaths(load, least) % len(load),
            "last-alive": lambda load, least: _deaths(load, least) - 1,
            "one-off": lambda load, least: np.minimum(_deaths(load, least) + 1, len(load)),
            "alive-is-last": lambda load, least: np.minimum(_deaths(load, least), len(load) - 1),
            "wrong-shape": lambda load, least: _deaths(load, least).max(),
        },
        "blind": [
            ("wrong-values", _reversed_argmax),
            ("wrong-values", lambda load, least: (load >= least / load.shape[1]).sum(0)),
        ],
    },
}
