"""A program that `test_sharding` starts on several devices: it runs the golden model on a mesh and saves what it saw.

    python tests/devices_worker.py OUT.npz DATA EXPERT TENSOR [PROCESS PROCESSES PORT]

On a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=8 in the environment makes eight devices.
"""

import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from gptoss_jax import generate, sharding
from gptoss_jax.checkpoint import load
from gptoss_jax.checkpoint.folder import Checkpoint
from gptoss_jax.model import Record, prepare, run_recorded

GOLDEN = Path(__file__).parent / "parity" / "golden" / "wide"
PROMPTS = np.load(GOLDEN / "tokens.npy")[:256].reshape(2, 128)  # two rows, each as long as the window
NEW_TOKENS = 6
MAX_LEN = 1024  # longer than a block of keys


def whole(mesh, tree):
    """The tree on every process, as NumPy."""
    together = jax.jit(lambda leaves: leaves, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)
    return jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), together)


def run(model):
    """Logits and routing of both prompts in one pass."""
    _, tokens, counts = prepare(model.config, PROMPTS)
    output, logits = run_recorded(model, jnp.asarray(tokens), jnp.asarray(counts), record=Record(routing=True))
    return logits, output.routing.experts, output.routing.weights


def collectives(text):
    """Elements of the result of every collective operation in a compiled program: [(operation, elements)]."""
    found = []
    for line in text.splitlines():
        match = re.search(r"= \(?\w+\[([\d,]*)\].*? (all-\w+|reduce-scatter|collective-permute)(?:-start)?\(", line)
        if match:
            found.append((match[2], int(np.prod([int(n) for n in match[1].split(",") if n], dtype=np.int64))))
    return found


def main(out, sizes, process=None):
    if process:
        index, count, port = process
        jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=count, process_id=index)
    read = {}
    original = Checkpoint.read

    def counted(self, leaf, *args):
        array = original(self, leaf, *args)
        read[leaf] = read.get(leaf, 0) + array.nbytes
        return array

    Checkpoint.read = counted
    mesh = sharding.make_mesh(*sizes)
    model, _ = load(GOLDEN, dtype="float32", mesh=mesh)
    Checkpoint.read = original
    logits, experts, weights = whole(mesh, run(model))
    planned = sum(sharding.plan(model.config, mesh.shape, dtype="float32").weights.values())
    held = dict.fromkeys(jax.local_devices(), 0)
    for leaf in jax.tree.leaves(model):
        for part in leaf.addressable_shards:
            held[part.device] += part.data.nbytes
    for device, nbytes in held.items():
        print(f"{device}: {nbytes:,} bytes of weights, planned {planned:,}")
    _, tokens, counts = prepare(model.config, PROMPTS)
    program = run_recorded.lower(model, jnp.asarray(tokens), jnp.asarray(counts), logits=False).compile().as_text()
    moved = collectives(program)
    written = list(generate(model, PROMPTS[0].tolist(), NEW_TOKENS, max_len=MAX_LEN))
    if process:
        multihost_utils.sync_global_devices("done")
    np.savez(
        out,
        logits=logits,
        experts=experts,
        weights=weights,
        held=list(held.values()),
        planned=planned,
        read=sum(read.values()),
        experts_read=sum(nbytes for leaf, nbytes in read.items() if ".experts." in leaf),
        summed=[elements for operation, elements in moved if operation == "all-reduce"],
        moved=[elements for _, elements in moved],
        written=written,
    )


if __name__ == "__main__":
    numbers = [int(number) for number in sys.argv[2:]]
    main(sys.argv[1], numbers[:3], numbers[3:])
