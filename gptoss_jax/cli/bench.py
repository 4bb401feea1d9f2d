"""``gptoss-jax bench``: how fast a checkpoint runs on this machine, and how far that is from the memory's limit."""

import argparse
import os
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gptoss_jax.cli.options import add_model, load_model


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Options of ``bench``."""
    parser.epilog = textwrap.dedent("""\
        examples:
          gptoss-jax bench
          gptoss-jax bench --checkpoint ~/gpt-oss-20b --first-layers 4
          gptoss-jax bench --checkpoint ~/gpt-oss-20b --prompt 2048 --tokens 64 --batch 8

        Memory is the measured limit: a token has to read every weight that it uses once. Close
        other programs first.""")
    add_model(parser)
    group = parser.add_argument_group("measurement")
    group.add_argument("--prompt", type=int, default=256, metavar="N", help="tokens of the prompt (%(default)s)")
    group.add_argument("--tokens", type=int, default=32, metavar="N", help="tokens to generate (%(default)s)")
    group.add_argument("--batch", type=int, default=1, metavar="B", help="sequences at once (%(default)s)")
    group.add_argument("--rounds", type=int, default=3, metavar="N", help="the least time of so many (%(default)s)")
    parser.set_defaults(run=bench)


def bench(options: argparse.Namespace) -> int:
    """Measure and print."""
    from rich.console import Console
    from rich.table import Table

    from gptoss_jax import roofline
    from gptoss_jax.checkpoint.memory import gib
    from gptoss_jax.decoding.decoder import DECODE_CHUNK, Decoder
    from gptoss_jax.sampling import Sampling

    for name in ("prompt", "tokens", "batch", "rounds"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name} must be at least 1, not {getattr(options, name)}")
    model, _ = load_model(options)
    config, total = model.config, options.prompt + options.tokens
    if total > config.max_context:
        raise ValueError(
            f"--prompt and --tokens are {total} together; the model's context ends at {config.max_context}"
        )
    rng = np.random.default_rng(0)
    rows = rng.integers(0, config.num_tokens, (options.batch, options.prompt)).tolist()
    console, count = Console(), min(options.tokens, DECODE_CHUNK)

    def run() -> tuple[float, float]:
        """Seconds for the prompt and its first token, and for each of the tokens after it."""
        started = time.perf_counter()
        decoder = Decoder(model, rows, options.tokens, sampling=Sampling.checked(), max_len=total)
        np.asarray(decoder.tokens)
        ready = time.perf_counter()
        np.asarray(decoder.step(count).tokens)
        return ready - started, (time.perf_counter() - ready) / count

    with console.status("compiling"):
        first = run()[0]
    seen = []
    for number in range(options.rounds):
        with console.status(f"round {number + 1} of {options.rounds}"):
            seen.append(run())
    prefill, decode = min(seen)[0], min(second for _, second in seen)
    peak, speed = peak_memory(), bandwidth()  # in this order: measuring the speed takes memory of its own
    moved = roofline.decode_bytes(config, total, batch=options.batch)
    table = Table("", "", title=f"{model.name}, {config.num_layers} layers, {options.batch} at once", show_header=False)
    read = options.batch * options.prompt
    lines = {
        "first token, compilation included": f"{first:.1f} s",
        f"prompt of {options.prompt} tokens": f"{prefill:.2f} s, {read / prefill:,.0f} tokens/s",
        "a new token": f"{1000 * decode:.1f} ms, {options.batch / decode:,.1f} tokens/s",
        "bytes that it reads": gib(moved),
        "memory, measured": f"{gib(speed)}/s",
        "of the memory's limit": f"{moved / decode / speed:.0%}",
    }
    if peak:
        lines["most memory of this process"] = gib(peak)
    for name, value in lines.items():
        table.add_row(name, value)
    console.print(table)
    return 0


def bandwidth(size: int = 1 << 26, rounds: int = 5) -> float:
    """Bytes per second of reading float32 numbers and adding them up, a thread a core.

    Args:
      size: numbers a thread.
      rounds: the best of so many.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [np.ones(size, np.float32) for _ in range(threads)]
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            started = time.perf_counter()
            list(pool.map(np.sum, parts))
            best = min(best, time.perf_counter() - started)
    return sum(part.nbytes for part in parts) / best


def peak_memory() -> int | None:
    """The most resident memory that this process ever had, in bytes; None where the system does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), None)
