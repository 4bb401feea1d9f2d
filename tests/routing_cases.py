"""Random traces for the routing tests."""

import numpy as np

from gptoss_jax.tracing import Trace

ROLES = ("system", "user", "assistant", "assistant")
CHANNELS = ("", "", "analysis", "final")


def from_logits(z, X, **fields):
    """A trace that routes by logits [T, L, E] as the model does: top-k, ties to the lower id, then softmax."""
    z = np.asarray(z, np.float32)
    experts = np.argsort(-z, axis=-1, kind="stable")[..., :X]
    top = np.take_along_axis(z, experts, -1).astype(np.float64)
    top = np.exp(top - top.max(-1, keepdims=True))
    fields.setdefault("tokens", np.arange(len(z)))
    return Trace(
        experts=experts, weights=top / top.sum(-1, keepdims=True), num_experts=z.shape[-1], router_logits=z, **fields
    )


def random_trace(T=40, L=3, E=6, X=2, seed=0, **fields):
    rng = np.random.default_rng(seed)
    words = rng.integers(5, size=T)
    fields = {
        "tokens": words,
        "logits": rng.normal(size=(T, 7)),
        "generated": np.arange(T) >= T // 2,
        "special": rng.random(T) < 0.2,
        "roles": tuple(ROLES[4 * t // T] for t in range(T)),
        "channels": tuple(CHANNELS[4 * t // T] for t in range(T)),
        "token_text": tuple(f"w{x}" for x in words),
        "model": "random",
    } | fields
    return from_logits(rng.normal(size=(T, L, E)) * 1.5 + rng.normal(size=(L, E)), X, **fields)


def relabeled(trace, seed):
    """The same routing with each layer's experts renumbered, and the new id of each expert [L, E]."""
    rng = np.random.default_rng(seed)
    L, E = trace.num_layers, trace.num_experts
    new = np.stack([rng.permutation(E) for _ in range(L)])
    z = np.empty_like(trace.router_logits)
    for layer in range(L):
        z[:, layer, new[layer]] = trace.router_logits[:, layer]
    return (
        Trace(
            tokens=trace.tokens,
            experts=new[np.arange(L)[:, None], trace.experts],
            weights=trace.weights,
            num_experts=E,
            router_logits=z,
            logits=trace.logits,
            generated=trace.generated,
            special=trace.special,
            roles=trace.roles,
            channels=trace.channels,
            model=trace.model,
        ),
        new,
    )
