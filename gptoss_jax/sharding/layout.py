"""Where each array lies: a mesh with three axes, and one line for every weight that is cut along one of them.

* ``data`` cuts the batch; every slice of it holds all the weights.
* ``expert`` puts whole experts on different devices.
* ``tensor`` cuts matrices: the heads of attention, and the hidden units of every expert.

The vocabulary is cut along ``expert`` and ``tensor`` together. What the table does not name is small and lies on
every device.
"""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gptoss_jax.config import MXFP4_GROUP, ModelConfig

P = PartitionSpec
AXES = ("data", "expert", "tensor")
MODEL_AXES = ("expert", "tensor")
SPECS = {
    "embedding.weight": P(MODEL_AXES),  # [V, D]
    "blocks.attention.qkv.weight": P(None, "tensor"),  # [L, (KG + 2K) H, D]
    "blocks.attention.qkv.bias": P(None, "tensor"),
    "blocks.attention.sinks": P(None, "tensor"),  # [L, KG]
    "blocks.attention.out.weight": P(None, None, "tensor"),  # [L, D, KG H]
    "blocks.mlp.experts.gate_up_blocks": P(None, "expert", "tensor"),  # [L, E, 2F, D/32, 16]
    "blocks.mlp.experts.gate_up_scales": P(None, "expert", "tensor"),
    "blocks.mlp.experts.gate_up_bias": P(None, "expert", "tensor"),
    "blocks.mlp.experts.down_blocks": P(None, "expert", None, "tensor"),  # [L, E, D, F/32, 16]
    "blocks.mlp.experts.down_scales": P(None, "expert", None, "tensor"),
    "blocks.mlp.experts.down_bias": P(None, "expert"),  # [L, E, D]
    "unembedding.weight": P(MODEL_AXES),  # [V, D]
}


class MeshError(ValueError):
    """A mesh that does not fit the machine or the model."""


def spec(leaf: str) -> PartitionSpec:
    """How an array of the model is cut, by its path as in ``blocks.mlp.router.weight``; ``P()`` is not at all."""
    return SPECS.get(leaf, P())


def cache_spec(mesh: Mesh, batch: int) -> PartitionSpec:
    """How keys and values [layers, B, S, K, H] are cut; a batch that the data axis does not divide stays whole."""
    return P(None, "data" if batch % mesh.shape["data"] == 0 else None, None, "tensor")


def make_mesh(data: int = 1, expert: int = 1, tensor: int = 1, *, devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh over all devices of all processes, or over `devices`.

    Several processes call ``jax.distributed.initialize`` first. Devices that are neighbors in `devices` become
    neighbors along ``tensor``, the axis that talks most.

    Raises:
      MeshError: an axis is not positive, or their product is not the number of devices.
    """
    sizes = (data, expert, tensor)
    for axis, size in zip(AXES, sizes, strict=True):
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise MeshError(f"mesh axis {axis} must be a positive integer, not {size!r}")
    found = list(jax.devices() if devices is None else devices)
    if math.prod(sizes) != len(found):
        raise MeshError(
            f"a mesh of data {data} x expert {expert} x tensor {tensor} needs {math.prod(sizes)} devices, there are "
            f"{len(found)}: choose axes whose product is {len(found)}, pass {math.prod(sizes)} devices, or, to try it "
            f"on a CPU, set XLA_FLAGS=--xla_force_host_platform_device_count={math.prod(sizes)} before JAX starts"
        )
    return Mesh(np.array(found, dtype=object).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


def check_mesh(config: ModelConfig, mesh_shape: dict[str, int]) -> None:
    """Refuse a mesh that would cut through a head, an expert, an MXFP4 group or a row of the vocabulary."""
    if set(mesh_shape) != set(AXES):
        raise MeshError(f"the mesh has the axes {tuple(mesh_shape)}, not {AXES}: build it with sharding.make_mesh")
    expert, tensor = mesh_shape["expert"], mesh_shape["tensor"]
    rules = (
        ("expert", expert, "num_experts", config.num_experts),
        ("tensor", tensor, "num_key_value_heads", config.num_key_value_heads),
        ("tensor", tensor, f"groups of {MXFP4_GROUP} hidden units", config.intermediate_size // MXFP4_GROUP),
        ("expert x tensor", expert * tensor, "vocab_size", config.vocab_size),
    )
    for axis, size, what, count in rules:
        if count % size:
            fitting = [n for n in range(1, count + 1) if count % n == 0 and n <= 1024]
            raise MeshError(
                f"mesh axis {axis} = {size} does not divide {what} = {count}: choose one of {_enumerate(fitting)}"
            )


def _enumerate(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:12])) + (", ..." if len(numbers) > 12 else "")


def shard_bytes(leaf: str, shape: tuple[int, ...], itemsize: int, mesh_shape: dict[str, int]) -> int:
    """Bytes of one device's part of an array."""
    return math.prod(shape) * itemsize // _pieces(spec(leaf), mesh_shape)


def _pieces(cut: PartitionSpec, mesh_shape: dict[str, int]) -> int:
    names = [name for entry in cut if entry for name in ((entry,) if isinstance(entry, str) else entry)]
    return math.prod(mesh_shape[name] for name in names)


def sharding_of(leaf: str, mesh: Mesh) -> NamedSharding:
    """The `jax.sharding.NamedSharding` of an array of the model."""
    return NamedSharding(mesh, spec(leaf))
