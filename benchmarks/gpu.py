"""Measure gpt-oss on one accelerator: decoding, prompts, memory, and the distance from what the device can do.

    python benchmarks/gpu.py golden 20b 120b [--layers N] [--parts NAME ...] [--seconds S] [--json FILE]

``golden`` compares logits and routing of the test checkpoints with the reference implementations, in float32. ``20b``
and ``120b`` make random weights of the true shapes on the device itself: nothing is downloaded or read. Every speed
stands beside the bandwidth of a copy and the rate of a matrix product measured on the same device just before.
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.97")  # 120b needs 61 of 78 GiB; read when JAX starts

import argparse
import dataclasses
import functools
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptoss_jax import mxfp4, roofline
from gptoss_jax.batched import Batched, pairs, tiles
from gptoss_jax.checkpoint import load
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B, TINY, ModelConfig
from gptoss_jax.decoding import Decoder
from gptoss_jax.model import GptOss, Record, prepare, run_recorded
from gptoss_jax.router import Routing
from gptoss_jax.sampling import Sampling
from gptoss_jax.sharding.dispatch import LEAVES

GOLDEN = Path(__file__).parents[1] / "tests" / "parity" / "golden"
MODELS = {"20b": GPT_OSS_20B, "120b": GPT_OSS_120B, "tiny": TINY}
PARTS = ("decode1", "prefill256", "decode8", "prefill2048", "bare")
PROMPT = 256  # tokens before the first decoded one
MAX_LEN = 2560
STEPS = 32  # tokens in one dispatch
DISPATCHES = 4


@functools.partial(jax.jit, donate_argnums=0, static_argnames=("leaf",))
def _fill_layer(stack: jax.Array, n: Any, leaf: str) -> jax.Array:
    """Random values for one layer of an array, written where they stay."""
    shape, dtype = (1, *stack.shape[1:]), stack.dtype
    key = jax.random.fold_in(jax.random.key(len(leaf), impl="rbg"), n)
    if leaf.endswith("_blocks"):
        layer = jax.random.bits(key, shape, jnp.uint8)
    elif leaf.endswith("_scales"):  # values of about 0.02
        layer = 119 + jax.random.bits(key, shape, jnp.uint8) % 3
    elif leaf.endswith("norm.scale"):
        layer = jnp.ones(shape, dtype)
    else:
        layer = (0.02 * jax.random.normal(key, shape, jnp.bfloat16)).astype(dtype)
    return jax.lax.dynamic_update_slice_in_dim(stack, layer, n, 0)


def synthetic(config: ModelConfig, dtype: Any = jnp.bfloat16) -> GptOss:
    """A random model made on the device, layer by layer: beside the weights only one layer's worth is in memory."""
    graph, state = nnx.split(nnx.eval_shape(lambda: GptOss(config, dtype=dtype, rngs=nnx.Rngs(0))))
    for path, variable in nnx.to_flat_state(state):
        leaf, like = ".".join(map(str, path)), variable.get_value()
        stacked = leaf.startswith("blocks.")
        array = jnp.zeros(like.shape if stacked else (1, *like.shape), like.dtype)
        for n in range(len(array)):
            array = _fill_layer(array, n, leaf)
        variable.set_value(array if stacked else array[0])
        del array
    model = nnx.merge(graph, state)
    model.name = "random"
    model.dispatch = Batched(config)
    return model


def seconds(run: Callable[[], Any], repeats: int = 10) -> float:
    """Median wall time of `run`, which returns device arrays; called once before."""
    jax.block_until_ready(run())
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def copy_bandwidth(nbytes: int) -> float:
    """Bytes a second of a copy within the device's memory, read and written bytes counted."""
    x = jax.random.bits(jax.random.key(0, impl="rbg"), (nbytes // 4,), jnp.uint32)
    return 2 * x.nbytes / seconds(lambda: _increment(x))


@jax.jit
def _increment(x: jax.Array) -> jax.Array:
    return x + 1


def matrix_rate(size: int) -> float:
    """Floating-point operations a second of a bfloat16 matrix product of random numbers."""
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), jnp.bfloat16)
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / seconds(lambda: product(a, b))


def peak_memory() -> int:
    """Most bytes in use on the device so far; 0 where the runtime does not say."""
    return int((jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


def golden() -> list[dict[str, Any]]:
    """Logits and routing of the test checkpoints against the reference implementations."""
    rows = []
    for name in ("small", "wide"):
        folder = GOLDEN / name
        model, _ = load(folder, dtype="float32")
        model.dispatch = Batched(model.config)
        tokens, padded, counts = prepare(model.config, np.load(folder / "tokens.npy"))
        output, logits = run_recorded(model, jnp.asarray(padded), jnp.asarray(counts), record=Record(routing=True))
        expected = np.load(folder / "logits_f32_openai.npy")
        router = np.load(folder / "router_logits_f32.npy")
        chosen = np.argsort(-router, axis=-1, kind="stable")[..., : model.config.experts_per_token]
        got = np.asarray(output.routing.experts)[:, 0, : len(tokens)]
        # decoding token by token goes through `pairs`: the same logits from the cache
        decoder = Decoder(model, [tokens[:-4].tolist()], 5, sampling=Sampling.checked(), max_len=512)
        greedy = np.concatenate([decoder.tokens, decoder.step(3).tokens[0]])
        rows.append(
            {
                "checkpoint": name,
                "largest logit difference": float(np.abs(np.asarray(logits)[0, : len(tokens)] - expected).max()),
                "experts that differ": int((got != chosen).sum()),
                "first decoded token": bool(greedy[0] == expected[len(tokens) - 5].argmax()),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def check_last_layer(model: GptOss) -> float:
    """Largest difference, relative, of one token's experts in the last layer from NumPy on the same bytes.

    The arrays are larger than 2^32 elements: an index that overflows would show here and in no speed.
    """
    config, experts = model.config, model.blocks.mlp.experts
    E, layer = config.num_experts, config.num_layers - 1
    chosen = np.array([[E - 1, 0, E // 2, 1]])
    x = np.random.default_rng(0).normal(size=(1, config.hidden_size)).astype(np.float32)
    routing = Routing(jnp.zeros((1, E)), jnp.asarray(chosen), jnp.full((1, 4), 0.25))
    y = 0.0
    for e in chosen[0]:
        one = {name: np.asarray(getattr(experts, name)[layer, e]) for name in LEAVES}
        hidden = x @ mxfp4.dequantize(one["gate_up_blocks"], one["gate_up_scales"]).T + one["gate_up_bias"]
        gate, up = np.minimum(hidden[:, 0::2], config.swiglu_limit), np.clip(hidden[:, 1::2], -7, 7)
        active = gate / (1 + np.exp(-config.swiglu_alpha * gate)) * (up + 1)
        y = y + 0.25 * (active @ mxfp4.dequantize(one["down_blocks"], one["down_scales"]).T + one["down_bias"])
    worst = 0.0
    for serve in (pairs, tiles):
        run = jax.jit(lambda x, routing, experts, serve=serve: serve(x, routing, experts.weights(), config, layer * E))
        worst = max(worst, float(np.abs(np.asarray(run(x, routing, experts)) - y).max() / np.abs(y).max()))
    return worst


@dataclasses.dataclass
class Bench:
    """One model on one device.

    Attributes:
      bandwidth, rate: of the device, as measured.
      until: no part is begun after this reading of `time.monotonic`.
    """

    name: str
    model: GptOss
    bandwidth: float
    rate: float
    until: float
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def run(self, names: list[str]) -> list[dict[str, Any]]:
        """The measurements named, the most telling first; what no time is left for is said and left out."""
        parts: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
            "decode1": ("decode, batch 1", lambda: self.decode(1)),
            "prefill256": ("prefill 256", lambda: self.prefill(256)),
            "decode8": ("decode, batch 8", lambda: self.decode(8)),
            "prefill2048": ("prefill 2048", lambda: self.prefill(2048)),
            "bare": ("decode, batch 1, without experts", lambda: self.decode(1, experts=False)),
        }
        for what, measure in (parts[name] for name in names):
            row: dict[str, Any] = {"model": self.name, "what": what}
            if time.monotonic() > self.until:
                row["left out"] = "no time left"
            else:
                try:
                    row |= measure()
                except Exception as error:  # an out-of-memory in one part must not lose the others
                    row["failed"] = f"{type(error).__name__}: {str(error)[:300]}"
            row["peak memory, GiB"] = round(peak_memory() / 2**30, 2)
            self.rows.append(row)
            print(json.dumps(row), flush=True)
        return self.rows

    def _decoder(self, batch: int, length: int, new: int) -> Decoder:
        prompts = np.random.default_rng(batch).integers(0, self.model.config.vocab_size, (batch, length))
        return Decoder(self.model, prompts.tolist(), new, sampling=Sampling.checked(), chunk=length, max_len=MAX_LEN)

    def decode(self, batch: int, experts: bool = True) -> dict[str, Any]:
        """Tokens a second of the compiled decode loop behind a prompt of 256 tokens."""
        config = self.model.config
        self.model.dispatch = Batched(config) if experts else _no_experts
        start = time.perf_counter()
        decoder = self._decoder(batch, PROMPT, (DISPATCHES + 1) * STEPS + 1)
        jax.block_until_ready(decoder.tokens)
        first = time.perf_counter() - start
        start = time.perf_counter()
        decoder.step(STEPS)
        compiled = time.perf_counter() - start
        taken = []
        for _ in range(DISPATCHES):
            start = time.perf_counter()
            decoder.step(STEPS)
            taken.append((time.perf_counter() - start) / STEPS)
        self.model.dispatch = Batched(config)
        step = float(np.median(taken))
        moved = roofline.decode_bytes(config, PROMPT + 3 * STEPS, batch=batch)
        return {
            "tokens/s": round(batch / step, 1),
            "ms a step": round(1e3 * step, 3),
            "GB a step": round(moved / 1e9, 2),
            "share of bandwidth": round(moved / step / self.bandwidth, 3) if experts else None,
            "first token with compilation, s": round(first, 1),
            "compilation, s": round(compiled - STEPS * step, 1),
        }

    def prefill(self, length: int) -> dict[str, Any]:
        """Tokens a second of a prompt, up to the first new token."""
        start = time.perf_counter()
        jax.block_until_ready(self._decoder(1, length, 1).tokens)
        compiled = time.perf_counter() - start
        taken = seconds(lambda: self._decoder(1, length, 1)._token, 3)
        flops = length * roofline.decode_flops(self.model.config, length // 2)
        return {
            "tokens/s": round(length / taken, 1),
            "first token, ms": round(1e3 * taken, 1),
            "share of matrix rate": round(flops / taken / self.rate, 3),
            "compilation, s": round(compiled - taken, 1),
        }


def _no_experts(x_TD: jax.Array, routing: Any, experts: Any, layer: Any) -> jax.Array:
    return jnp.zeros_like(x_TD)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    columns = ("model", "what", "tokens/s", "ms a step", "share of bandwidth", "first token, ms", "peak memory, GiB")
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("what", nargs="+", choices=["golden", *MODELS])
    parser.add_argument("--layers", type=int, help="only so many layers")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure of a model")
    parser.add_argument("--seconds", type=float, default=600, help="begin no measurement after this many for a model")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    device = jax.local_devices()[0]
    if device.platform == "cpu" and {"20b", "120b"} & set(given.what) and not given.layers:
        sys.exit("no accelerator found: JAX sees only the CPU; --layers 1 tries the command on it")
    small = device.platform == "cpu"
    bandwidth, rate = copy_bandwidth((1 << 26) if small else (4 << 30)), matrix_rate(512 if small else 8192)
    found: dict[str, Any] = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "copy, GB/s": round(bandwidth / 1e9, 1),
        "matrix product, TFLOP/s": round(rate / 1e12, 1),
        "rows": [],
    }
    print(json.dumps({key: value for key, value in found.items() if key != "rows"}), flush=True)
    if "golden" in given.what:
        found["golden"] = golden()
    for name in [name for name in given.what if name in MODELS]:
        config = MODELS[name] if given.layers is None else MODELS[name].first_layers(given.layers)
        until, start = time.monotonic() + given.seconds, time.perf_counter()
        model = synthetic(config)
        jax.block_until_ready(nnx.state(model))
        made = time.perf_counter() - start
        print(f"{name}: weights made in {made:.1f} s, experts differ from NumPy's by {check_last_layer(model):.1e}")
        found["rows"] += Bench(name, model, bandwidth, rate, until).run(given.parts)
        del model
        gc.collect()
    print(table(found["rows"]))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
