"""A routing toy whose truth is known: the answer that a metric must find, and the noise that it must not.

Random weights route at random: their specialization, co-activation and flow mean nothing. Here tokens of each domain
prefer experts of their own, some experts come in pairs, and each layer's choice decides the next one's.
"""

from typing import NamedTuple

import numpy as np

from gptoss_jax.tracing import Trace


class Planted(NamedTuple):
    """A trace and what was put into it.

    trace: T tokens, L layers, E experts.
    labels: the domain of each token, ``"domain 0"`` ...
    home: int [L, D], the expert that a domain's tokens prefer.
    partner: int [L, E], the expert that joins e whenever e comes first.
    next_home: int [L-1, E], the first choice in layer l + 1 of a token whose first choice in layer l is e (-1 where no
      domain lives at e).
    """

    trace: Trace
    labels: list[str]
    home: np.ndarray
    partner: np.ndarray
    next_home: np.ndarray


def planted_trace(
    num_tokens: int = 1200,
    num_layers: int = 4,
    num_experts: int = 8,
    experts_per_token: int = 3,
    num_domains: int = 4,
    strength: float = 0.9,
    seed: int = 0,
) -> Planted:
    """Draw a trace with planted specialization, co-activation and flow.

    In every layer a token's first choice is its domain's home with probability `strength`, else an expert drawn
    evenly; the second is the first one's partner; the rest are drawn evenly. Each domain has ten token ids of its own
    and shares ten others, so a token id tells the domain in half of the cases. ``strength=0`` plants no domain and no
    flow: what a metric finds there is noise.

    Args:
      num_tokens: T, dealt to the domains in turn.
      num_layers: L.
      num_experts: E, even, at least `num_domains`.
      experts_per_token: X, at least 2.
      num_domains: D.
      strength: 0 .. 1.
      seed: of every draw.
    """
    T, L, E, X, D = num_tokens, num_layers, num_experts, experts_per_token, num_domains
    if E % 2 or E < D or not 2 <= X <= E or not 0 <= strength <= 1:
        raise ValueError(
            f"need an even num_experts >= num_domains, 2 <= experts_per_token <= num_experts and strength in 0 .. 1, "
            f"not {E}, {D}, {X}, {strength}"
        )
    rng = np.random.default_rng(seed)
    domain = np.arange(T) % D
    home = np.stack([rng.permutation(E)[:D] for _ in range(L)])
    partner = np.empty((L, E), np.int64)
    for layer in range(L):
        a, b = rng.permutation(E).reshape(2, -1)
        partner[layer, a], partner[layer, b] = b, a
    z = rng.normal(size=(T, L, E)).astype(np.float32)
    stray = rng.random((T, L)) >= strength
    first = np.where(stray, rng.integers(E, size=(T, L)), home.T[domain])
    t, every = np.ogrid[:T, :L]
    z[t, every, first] = 7 + rng.random((T, L))
    z[t, every, partner[every, first]] = 6 + rng.random((T, L))
    experts = np.argsort(-z, axis=-1, kind="stable")[..., :X]
    top = np.exp(np.take_along_axis(z, experts, -1) - z.max(-1, keepdims=True))
    next_home = np.full((L - 1, E), -1)
    for layer in range(L - 1):
        next_home[layer, home[layer]] = home[layer + 1]
    own = rng.random(T) < 0.5
    tokens = np.where(own, 10 * (domain + 1), 0) + rng.integers(10, size=T)
    trace = Trace(
        tokens=tokens,
        experts=experts,
        weights=top / top.sum(-1, keepdims=True),
        num_experts=E,
        router_logits=z,
        generated=np.arange(T) >= T // 2,
        token_text=tuple(f" word{x}" for x in tokens),
        model="planted",
        dtype="float32",
        package_version="planted_trace",
    )
    return Planted(trace, [f"domain {d}" for d in domain], home, partner, next_home)
