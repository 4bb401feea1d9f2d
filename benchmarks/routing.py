"""Time every routing metric on one trace: 36 layers x 128 experts x 4,096 tokens, without resampling.

python benchmarks/routing.py [--tokens 4096] [--layers 36] [--experts 128] [--repeats 3]
"""

import argparse
import os
import platform
import time
from collections.abc import Callable

import numpy as np

from gptoss_jax.routing import metrics
from gptoss_jax.tracing import Trace


def random_trace(T: int, L: int, E: int, X: int, seed: int) -> Trace:
    """A trace of random logits with Harmony roles; token ids repeat as words do."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(T, L, E)).astype(np.float32)
    experts = np.argsort(-z, axis=-1, kind="stable")[..., :X]
    top = np.exp(np.take_along_axis(z, experts, -1))
    return Trace(
        tokens=rng.zipf(1.3, T) % 5000,
        experts=experts,
        weights=top / top.sum(-1, keepdims=True),
        num_experts=E,
        router_logits=z,
        logits=rng.normal(size=(T, 100)),
        generated=np.arange(T) > T // 2,
        roles=tuple(["system", "user", "assistant"][3 * t // T] for t in range(T)),
        channels=tuple(["", "", "analysis"][3 * t // T] for t in range(T)),
        model="random",
    )


def questions(a: Trace, b: Trace) -> dict[str, Callable[[], object]]:
    """Every metric, by definition number."""
    T, E = len(a), a.num_experts
    domains = [f"domain {t % 10}" for t in range(T)]
    rows = np.random.default_rng(0).normal(size=(a.num_layers, E, 64)).astype(np.float32)
    return {
        "1 load": lambda: metrics.load(a),
        "2 mass": lambda: metrics.mass(a),
        "3 first choice": lambda: metrics.first_choice(a),
        "4 layer weights": lambda: metrics.layer_weights(a, 0),
        "6 gate entropy": lambda: metrics.gate_entropy(a),
        "7 router entropy": lambda: metrics.router_entropy(a),
        "8 margins": lambda: metrics.margins(a),
        "9 balance": lambda: metrics.balance(a),
        "10 balance loss": lambda: metrics.balance_loss(a),
        "11 co-activation": lambda: metrics.coactivation(a),
        "12 domain specialization": lambda: metrics.domain_specialization(a, domains, resamples=0),
        "13 domain divergence": lambda: metrics.domain_divergence(a, domains, resamples=0),
        "13 domain information": lambda: metrics.domain_information(a, domains, resamples=0),
        "13 conditional information": lambda: metrics.conditional_information(a, domains, resamples=0),
        "14 vocabulary specialization": lambda: metrics.vocabulary_specialization(a, resamples=0),
        "15 saturation": lambda: metrics.saturation(a, b, resamples=0),
        "16 flips by margin": lambda: metrics.flips_by_margin(a, b),
        "17 repetition": lambda: metrics.repetition(a),
        "18 top tokens": lambda: metrics.top_tokens(a, 0, 0),
        "19 router similarity": lambda: metrics.row_similarity(rows),
        "20 flow": lambda: metrics.flow(a, resamples=0),
        "21 standing committee": lambda: metrics.standing_committee(a, domains, resamples=0),
        "28 by part": lambda: metrics.by_part(a, resamples=0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    for name, value in (("tokens", 4096), ("layers", 36), ("experts", 128), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    a, b = (random_trace(given.tokens, given.layers, given.experts, 4, seed) for seed in (0, 1))
    b = Trace(a.tokens, b.experts, b.weights, b.num_experts, b.router_logits, model=a.model)
    total = 0.0
    for name, ask in questions(a, b).items():
        best = float("inf")
        for _ in range(given.repeats):
            start = time.perf_counter()
            ask()
            best = min(best, time.perf_counter() - start)
        total += best
        print(f"{name:32}{best * 1e3:8.1f} ms")
    print(f"{'all':32}{total * 1e3:8.1f} ms on {os.cpu_count()} cores, {platform.machine()}, NumPy {np.__version__}")


if __name__ == "__main__":
    main()
