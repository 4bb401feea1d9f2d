"""What a mesh costs before anything is allocated: bytes on each device, bytes between devices for each token."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx

from gptoss_jax.config import SLIDING, ModelConfig
from gptoss_jax.model import GptOss
from gptoss_jax.sharding.layout import AXES, check_mesh, shard_bytes

GIB = 2**30
MESHES_120B = {
    "1 x 80 GB": [(1, 1, 1)],
    "4 x 24 GB": [(1, 4, 1), (1, 2, 2)],
    "8 devices": [(1, 8, 1), (1, 4, 2), (2, 4, 1)],
    "64 devices": [(1, 64, 1), (1, 32, 2), (8, 8, 1)],
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """One device's share, in bytes.

    Attributes:
      mesh_shape: size of every axis.
      weights: bytes of weights by leaf.
      cache: bytes of keys and values for this device's part of the batch.
      workspace: bytes for what a decode step computes: one unpacked expert, activations and logits.
      traffic: bytes that a device sends per token and cause, with ring algorithms: an all-reduce of n bytes among k
        devices sends 2 n (k - 1) / k, an all-gather n (k - 1) / k.
    """

    mesh_shape: dict[str, int]
    weights: dict[str, int]
    cache: int
    workspace: int
    traffic: dict[str, int]

    @property
    def devices(self) -> int:
        return self.mesh_shape["data"] * self.mesh_shape["expert"] * self.mesh_shape["tensor"]

    @property
    def memory(self) -> int:
        """Weights, cache and workspace together."""
        return sum(self.weights.values()) + self.cache + self.workspace


def plan(
    config: ModelConfig,
    mesh_shape: Mapping[str, int],
    *,
    dtype: Any = "bfloat16",
    context: int = 4096,
    batch: int = 1,
) -> Plan:
    """Memory and traffic of a model on a mesh.

    Args:
      config: the model's numbers.
      mesh_shape: as ``{"expert": 4}`` or ``mesh.shape``; missing axes count 1.
      dtype: of activations, cache and dense weights.
      context: tokens in each sequence.
      batch: sequences, cut along ``data`` if it divides them.

    Raises:
      MeshError: the mesh does not divide the model.
    """
    shape = {axis: 1 for axis in AXES} | dict(mesh_shape)
    check_mesh(config, shape)
    data, expert, tensor = (shape[axis] for axis in AXES)
    itemsize = jnp.dtype(dtype).itemsize
    c, rows = config, batch // data if batch % data == 0 else batch
    sliding = c.layer_types.count(SLIDING)
    slots = sliding * min(c.sliding_window, context) + (c.num_layers - sliding) * context
    D, F = c.hidden_size, c.intermediate_size // tensor
    activations = rows * (4 * D * 4 + c.qkv_size * 4 + 2 * F * 4 + c.vocab_size // (expert * tensor) * 4)
    spread = expert * tensor
    traffic = {
        "embedding": _all_reduce(D * itemsize, spread),
        "queries, keys, values": c.num_layers * (c.qkv_size * itemsize * (tensor - 1) // tensor),
        "attention output": c.num_layers * _all_reduce(D * itemsize, tensor),
        "experts": c.num_layers * _all_reduce(D * 4, spread),
    }
    return Plan(
        shape,
        {leaf: shard_bytes(leaf, size, item, shape) for leaf, (size, item) in plan_weights(config, dtype).items()},
        rows * slots * 2 * (c.num_key_value_heads // tensor) * c.head_dim * itemsize,
        3 * F * D * itemsize + activations,
        traffic,
    )


def plan_weights(config: ModelConfig, dtype: Any) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape and bytes per element of every array of the model, without making one."""
    model = nnx.eval_shape(lambda: GptOss(config, dtype=dtype, rngs=nnx.Rngs(0)))
    leaves = nnx.to_flat_state(nnx.state(model))
    return {".".join(map(str, path)): (leaf.shape, leaf.dtype.itemsize) for path, leaf in leaves}


def _all_reduce(nbytes: int, devices: int) -> int:
    return 2 * nbytes * (devices - 1) // devices


def table(config: ModelConfig, meshes: Mapping[str, list[tuple[int, int, int]]], **options: Any) -> str:
    """Plans as text: one line a mesh (data, expert, tensor), under the machine's name."""
    lines = [
        "machine        data expert tensor   experts      rest     cache      work     total   sent per token",
        "                                   GiB on each device ....................................    KiB",
    ]
    for machine, shapes in meshes.items():
        for sizes in shapes:
            p = plan(config, dict(zip(AXES, sizes, strict=True)), **options)
            experts = sum(n for leaf, n in p.weights.items() if ".experts." in leaf)
            rest = sum(p.weights.values()) - experts
            numbers = "".join(f"{n / GIB:10.2f}" for n in (experts, rest, p.cache, p.workspace, p.memory))
            sent = sum(p.traffic.values()) / 1024
            lines.append(f"{machine:14}{sizes[0]:5}{sizes[1]:7}{sizes[2]:7}{numbers}{sent:12.1f}")
    return "\n".join(lines)
