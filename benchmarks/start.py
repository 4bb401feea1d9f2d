"""How long a student waits: `gptoss_jax.load()` and 64 tokens of the built-in model, compiled before or not.

    python benchmarks/start.py [--rounds N]

Every measurement is a new process. "cold" compiles everything; "warm" finds the programs in the compilation cache that
the command line and the lessons keep. Imports are not counted; they are given beside.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

TOKENS = 64
CHILD = f"""
import json, time
started = time.perf_counter()
import gptoss_jax as gj
import gptoss_jax.checkpoint.reading, gptoss_jax.decoding.generating
import jax
jax.devices()
imported = time.perf_counter()
model, tokenizer = gj.load()
loaded = time.perf_counter()
count = len(list(gj.generate(model, tokenizer.encode("It is a truth universally acknowledged"), {TOKENS})))
done = time.perf_counter()
assert count == {TOKENS}, count
print(json.dumps(dict(imports=imported - started, load=loaded - imported, generate=done - loaded)))
"""


def measure(cache: str) -> dict[str, float]:
    """Seconds of a new process that keeps its compiled programs in `cache`."""
    variables = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    run = subprocess.run([sys.executable, "-c", CHILD], env=os.environ | variables, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(run.stderr[-2000:])
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind (default 3)")
    rounds = parser.parse_args().rounds
    seen: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            seen["cold"].append(measure(cache))
            seen["warm"].append(measure(cache))
    for name, runs in seen.items():
        totals = sorted(run["load"] + run["generate"] for run in runs)
        middle = runs[0] | {key: sorted(run[key] for run in runs)[rounds // 2] for key in runs[0]}
        every = ", ".join(f"{total:.2f}" for total in totals)
        print(
            f"{name}: load and {TOKENS} tokens {totals[rounds // 2]:.2f} s (all: {every}); "
            f"load {middle['load']:.2f}, tokens {middle['generate']:.2f}, imports {middle['imports']:.2f}"
        )


if __name__ == "__main__":
    main()
