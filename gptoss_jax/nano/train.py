"""Train a small gpt-oss on running text and Harmony conversations."""

import argparse
import csv
import dataclasses
import functools
import json
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gptoss_jax.config import ModelConfig
from gptoss_jax.nano import network
from gptoss_jax.nano.batches import Batches, stream, tokenize
from gptoss_jax.nano.rendering import Codec

COMMON = dict(
    num_experts=32,
    vocab_size=4160,
    num_tokens=4117,
    head_dim=32,
    num_key_value_heads=2,
    sliding_window=64,
    rope_factor=4.0,
    rope_original_context=256,
    max_context=1024,
    eos_token_id=4100,
    pad_token_id=4097,
)
PRESETS = {
    "nano": ModelConfig(num_layers=4, hidden_size=128, intermediate_size=64, num_attention_heads=4, **COMMON),
    "mini": ModelConfig(num_layers=6, hidden_size=192, intermediate_size=96, num_attention_heads=6, **COMMON),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    preset: str = "nano"
    rows: int = 8
    length: int = 256
    text_share: float = 0.375
    dialog_weight: float = 1.5
    tile: int = 64
    seed: int = 0
    peak: float = 3e-3
    warmup: int = 100
    hold: int = 1_000_000
    steps: int = 1_000_000
    floor: float = 0.02
    balance: float = 0.01
    load_memory: float = 0.98
    decay: float = 0.05
    dtype: str = "float32"
    quantize: bool = False


def schedule(plan: Plan):
    def rate(step):
        up = jnp.minimum(1.0, (step + 1) / plan.warmup)
        done = jnp.clip((step - plan.hold) / max(plan.steps - plan.hold, 1), 0, 1)
        return plan.peak * up * (plan.floor + (1 - plan.floor) * 0.5 * (1 + jnp.cos(jnp.pi * done)))

    return rate


def optimizer(plan: Plan):
    matrices = lambda params: {k: v.ndim - k.startswith("blocks.") - (".experts." in k) >= 2 for k, v in params.items()}
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(b1=0.9, b2=0.98, eps=1e-9),
        optax.add_decayed_weights(plan.decay, matrices),
        optax.scale_by_learning_rate(schedule(plan)),
    )


def make_step(plan: Plan, config: ModelConfig):
    opt, dtype = optimizer(plan), jnp.dtype(plan.dtype)

    def loss(params, load, batch):
        tokens, weights, segments, wanted = batch
        used = network.quantized(params) if plan.quantize else params
        out = network.forward(used, tokens[:, :-1], segments, config, dtype, plan.tile, load, wanted)
        labels, weights = tokens[:, 1:].reshape(-1)[wanted], weights.reshape(-1)[wanted]
        ce = network.cross_entropy(out.logits, labels) * weights
        text = wanted < plan_text_rows * plan.length
        one = lambda mine: jnp.sum(ce * mine) / jnp.maximum(jnp.sum(weights * mine), 1e-9)
        total = jnp.sum(ce) / jnp.sum(weights) + plan.balance * out.balance.mean()
        return total, (one(text), one(~text), out.balance, out.load)

    plan_text_rows = round(plan.rows * plan.text_share)

    @functools.partial(jax.jit, donate_argnums=(0,))
    def step(state, batch):
        params, moments, load = state
        (_, (text, dialog, balance, now)), grads = jax.value_and_grad(loss, has_aux=True)(params, load, batch)
        updates, moments = opt.update(grads, moments, params)
        load = plan.load_memory * load + (1 - plan.load_memory) * now
        m = dict(
            text=text,
            dialog=dialog,
            balance=balance.mean(),
            grad=optax.global_norm(grads),
            load_min=load.min() * config.num_experts,
            load_max=load.max() * config.num_experts,
        )
        return (optax.apply_updates(params, updates), moments, load), m

    return step


def start(plan, config):
    params = jax.tree.map(jnp.asarray, network.init(config, plan.seed))
    return (
        params,
        optimizer(plan).init(params),
        jnp.full((config.num_layers, config.num_experts), 1 / config.num_experts),
    )


def save(path: Path, plan, step, state):
    leaves = {f"leaf{i:03}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(state))}
    tmp = path.with_suffix(".partial")
    with open(tmp, "wb") as f:
        np.savez(f, step=step, plan=json.dumps(dataclasses.asdict(plan)), **leaves)
        f.flush()
        os.fsync(f.fileno())
    if path.exists():
        os.replace(path, path.with_suffix(".previous"))
    os.replace(tmp, path)


def restore(path: Path, state):
    with np.load(path) as f:
        leaves, tree = jax.tree.flatten(state)
        return int(f["step"]), jax.tree.unflatten(tree, [jnp.asarray(f[f"leaf{i:03}"]) for i in range(len(leaves))])


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--out", type=Path, required=True)
    ap.add_argument("--from", dest="source", type=Path)
    ap.add_argument("--corpus", type=Path, default=Path("runs/corpus"))
    ap.add_argument("--vocab", type=Path, default=Path("runs/tokenizer.json"))
    ap.add_argument("--minutes", type=float, default=1e9)
    ap.add_argument("--workers", type=int, default=0)
    ap.add_argument("--stop", type=int)
    for f in dataclasses.fields(Plan):
        ap.add_argument(
            "--" + f.name.replace("_", "-"),
            type=(lambda s: s == "True") if f.type is bool else f.type,
            default=f.default,
        )
    a = ap.parse_args()
    plan = Plan(**{f.name: getattr(a, f.name) for f in dataclasses.fields(Plan)})
    config = PRESETS[plan.preset]
    a.out.mkdir(parents=True, exist_ok=True)
    codec = Codec(a.vocab)
    cache = a.out.parent / "tokens.npz"
    if not cache.exists():
        np.savez(cache, **tokenize(a.corpus, codec)[0])
    texts = dict(np.load(cache))
    batches = Batches(texts, codec, plan.rows, plan.length, plan.text_share, plan.dialog_weight, plan.seed)
    state, first = start(plan, config), 0
    ck = a.out / "state.npz"
    src = ck if ck.exists() else a.source
    if src:
        first, state = restore(src, state)
        print("resumed at", first, flush=True)
    print(plan, sum(x.size for x in state[0].values()), flush=True)
    step_fn = make_step(plan, config)
    t0 = t1 = time.time()
    last_save = t0
    stop = min(a.stop or plan.steps, plan.steps)
    log = open(a.out / "metrics.csv", "a", newline="")
    w = csv.writer(log)
    acc = []
    done = first
    for step, batch in zip(range(first, stop), stream(batches, first, stop, a.workers)):
        state, m = step_fn(state, tuple(batch))
        acc.append(m)
        done = step + 1
        if done % 20 == 0:
            m = {k: float(np.mean([float(x[k]) for x in acc])) for k in acc[0]}
            acc = []
            now = time.time()
            rate = 20 * plan.rows * plan.length / (now - t1)
            t1 = now
            w.writerow([done, round(now), f"{rate:.0f}", *(f"{v:.4f}" for v in m.values())])
            log.flush()
            print(done, f"{rate:.0f} tok/s", {k: round(v, 3) for k, v in m.items()}, flush=True)
            if now - last_save > 180:
                save(ck, plan, done, state)
                last_save = now
            if now - t0 > a.minutes * 60:
                break
    save(ck, plan, done, state)
    print("saved", done, flush=True)


if __name__ == "__main__":
    main()
