"""The parity suite as functions, so that the tests and the mutation check run the same assertions."""

import dataclasses
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gptoss_jax as gj
from gptoss_jax.cache import KVCache
from gptoss_jax.interventions import Intervention
from gptoss_jax.model import GptOss, Record, bucket, run_recorded

GOLDEN = Path(__file__).parent / "golden"
BOUND = 1e-4  # on logits of size 14; the two references agree to about 2e-5
MARGIN = 1e-4  # between the 4th and 5th router logit, below which a choice is a coin toss


@dataclasses.dataclass(frozen=True)
class Golden:
    """A checkpoint with what the references computed."""

    tokens: np.ndarray  # [T]
    logits: tuple[np.ndarray, np.ndarray]  # openai, transformers: [T, V]
    router_logits: np.ndarray  # [T, L, E]


@cache
def golden(name: str) -> Golden:
    folder = GOLDEN / name
    read = lambda file: np.load(folder / file)
    return Golden(
        read("tokens.npy"),
        (read("logits_f32_openai.npy"), read("logits_f32_hf.npy")),
        np.moveaxis(read("router_logits_f32.npy"), 0, 1),
    )


@cache
def load(name: str, layout: str = "huggingface") -> GptOss:
    folder = GOLDEN / name / ("original" if layout == "original" else "")
    return gj.load(folder, dtype="float32")[0]


def chosen(router_logits: np.ndarray, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Sorted expert ids [..., count] and the margin to the next."""
    order = np.argsort(-router_logits, axis=-1, kind="stable")
    top = np.take_along_axis(router_logits, order, axis=-1)
    return np.sort(order[..., :count], axis=-1), top[..., count - 1] - top[..., count]


def compare(logits: np.ndarray, router_logits: np.ndarray, experts: np.ndarray, want: Golden) -> None:
    """Logits within the bound of both references; every clear choice of experts equal."""
    for reference in want.logits:
        worst = np.abs(logits - reference).max()
        assert worst <= BOUND, f"max |logit - reference| is {worst:.2e}"
    expected, margin = chosen(want.router_logits)
    equal = (np.sort(experts, axis=-1) == expected).all(-1)
    assert equal[margin > MARGIN].all(), f"{(~equal & (margin > MARGIN)).sum()} choices of experts differ"
    assert np.abs(router_logits - want.router_logits).max() <= BOUND


def whole(model: GptOss, tokens: np.ndarray, change: Intervention | None = None):
    """One uncached pass: logits [T, V], router logits [T, L, E], experts [T, L, X]."""
    padded = np.zeros((1, bucket(len(tokens))), np.int32)
    padded[0, : len(tokens)] = tokens
    output, logits = run_recorded(
        model, jnp.asarray(padded), jnp.array([len(tokens)]), change=change, record=Record(routing=True)
    )
    n = len(tokens)
    pick = lambda leaf: np.moveaxis(np.asarray(leaf[:, 0, :n]), 0, 1)
    return np.asarray(logits[0, :n]), pick(output.routing.logits), pick(output.routing.experts)


def chunked(model: GptOss, rows: list[np.ndarray], chunk: int):
    """Rows of any lengths through the cache in chunks: per row logits, router logits, experts."""
    lengths = np.array([len(row) for row in rows])
    cache_ = KVCache.create(model.config, len(rows), bucket(int(lengths.max())), model.dtype)
    parts: list[list[tuple[np.ndarray, ...]]] = [[] for _ in rows]
    for start in range(0, int(lengths.max()), chunk):
        counts = np.clip(lengths - start, 0, chunk).astype(np.int32)
        tokens = np.zeros((len(rows), chunk), np.int32)
        for b, row in enumerate(rows):
            tokens[b, : counts[b]] = row[start : start + chunk]
        output, logits = run_recorded(
            model, jnp.asarray(tokens), jnp.asarray(counts), cache_, record=Record(routing=True)
        )
        cache_ = output.cache
        routing = jax.tree.map(np.asarray, output.routing)
        for b, n in enumerate(counts):
            pick = lambda leaf, b=b, n=n: np.moveaxis(leaf[:, b, :n], 0, 1)
            parts[b].append((np.asarray(logits[b, :n]), pick(routing.logits), pick(routing.experts)))
    return [tuple(np.concatenate(columns) for columns in zip(*row, strict=True)) for row in parts]


def check_whole(name: str, layout: str = "huggingface") -> None:
    want = golden(name)
    compare(*whole(load(name, layout), want.tokens), want)


def check_chunked(name: str, chunk: int) -> None:
    want = golden(name)
    compare(*chunked(load(name), [want.tokens], chunk)[0], want)


def check_square() -> None:
    """Two layers whose hidden and expert widths are equal, against NumPy float64: a transposed weight still fits."""
    from tests.parity import reference

    config = gj.ModelConfig(
        num_layers=2,
        hidden_size=64,
        intermediate_size=64,
        head_dim=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=8,
        vocab_size=64,
        sliding_window=5,
        rope_original_context=256,
    )
    check_blocks(config, reference, tokens=24, seed=0, bound=2e-5)


def check_blocks(config: gj.ModelConfig, reference, *, tokens: int, seed: int, bound: float) -> np.ndarray:
    """Random blocks against float64: max error in units of the output's RMS. Returns the chosen ids."""
    from flax import nnx

    rng = np.random.default_rng(seed)
    blocks = [reference.random_block(rng, config) for _ in range(config.num_layers)]
    model = GptOss(dataclasses.replace(config, num_experts=config.experts_per_token), rngs=nnx.Rngs(0))
    set_config(model, config)
    reference.install(model, blocks)
    ids = rng.integers(0, config.vocab_size, (1, tokens))
    output, _ = run_recorded(
        model,
        jnp.asarray(ids),
        jnp.array([tokens]),
        record=Record(routing=True, residual=True),
        logits=False,
    )
    x = np.asarray(output.residual[0, 0], np.float64)
    for i, weights in enumerate(blocks):
        x, router_logits, experts = reference.block(x, weights, config, config.layer_types[i] == "sliding_attention")
        clear = chosen(router_logits)[1] > MARGIN
        assert (np.sort(experts, -1) == np.sort(output.routing.experts[i, 0], -1))[clear].all()
        error = np.abs(np.asarray(output.residual[i + 1, 0]) - x).max() / np.sqrt((x**2).mean())
        assert error <= bound, f"layer {i}: max error {error:.1e} of the output's RMS"
    return experts


def set_config(model: GptOss, config: gj.ModelConfig) -> None:
    """Give every part of the model another configuration."""
    for part in (model, model.blocks.attention, model.blocks.mlp):
        part.config = config
    model.blocks.mlp.router.count = config.experts_per_token


SWIGLU = [(1, 0, 0.845795766), (1, 1, 1.691591532), (-1, 2, -0.462612702), (8, -9, -41.999718770)]
SWIGLU += [(7, 7, 55.999625027), (100, 100, 55.999625027), (0.5, -1, 0.0), (-100, 3, 0.0)]


def check_swiglu() -> None:
    """Published values of the activation; a gate of -100 must not be clamped to -7."""
    from gptoss_jax import experts

    for gate, up, value in SWIGLU:
        got = experts.swiglu(jnp.array([gate, up], jnp.float32))[0]
        assert abs(got - value) <= 1e-6 * max(1, abs(value)), f"swiglu({gate}, {up}) is {got}, not {value}"


def everything() -> None:
    """What the mutation check runs: the fastest assertion that sees each part of the model."""
    check_swiglu()
    check_square()
    check_whole("small")
    check_chunked("small", 7)
