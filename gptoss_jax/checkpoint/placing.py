"""From files into the memory that the weights stay in: one device, or each device's own part of a mesh."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptoss_jax.checkpoint.files import CheckpointError
from gptoss_jax.checkpoint.memory import available_memory, device_memory, gib
from gptoss_jax.checkpoint.names import is_of_experts

Index = tuple[slice, ...]
Read = Callable[[Index], np.ndarray]
_STAGED = 1 << 30  # bytes; a larger array goes to an accelerator layer by layer


def place(read: Read, shape: tuple[int, ...], dtype: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """Read every local device's part of an array, and nothing else.

    Devices that hold the same part share one read. On the way to an accelerator at most a gigabyte, or one layer if
    that is more, lies in the host's memory; on a CPU the memory read into is the array's own.

    Args:
      read: gives a box of the array.
      shape, dtype: of the whole array.
      sharding: over the devices of all processes.
    """
    parts: list[jax.Array] = []
    holders: dict[tuple[tuple[int, int], ...], list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        box = tuple(s.indices(n)[:2] for s, n in zip(index or (), shape, strict=False))
        box += tuple((0, n) for n in shape[len(box) :])
        holders.setdefault(box, []).append(device)
    for box, devices in holders.items():
        size = math.prod(end - begin for begin, end in box) * np.dtype(dtype).itemsize
        index = tuple(slice(*bounds) for bounds in box)
        if devices[0].platform == "cpu" or len(shape) < 2 or size <= _STAGED:
            data = read(index)
            parts += [jax.device_put(data, device) for device in devices]
        else:
            parts += _by_layers(read, index, dtype, devices)
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def _by_layers(read: Read, index: Index, dtype: Any, devices: list[jax.Device]) -> list[jax.Array]:
    shape = tuple(s.stop - s.start for s in index)
    stacks = [jnp.zeros(shape, dtype, device=device) for device in devices]
    for n in range(shape[0]):
        layer = read((slice(index[0].start + n, index[0].start + n + 1), *index[1:]))
        stacks = [
            _set_layer(stack, jax.device_put(layer, device), n) for stack, device in zip(stacks, devices, strict=True)
        ]
    return stacks


@functools.partial(jax.jit, donate_argnums=0)
def _set_layer(stack: jax.Array, layer: jax.Array, index: Any) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(stack, layer, index, 0)


def check_memory(what: str, arrays: Mapping[str, Any], shardings: Mapping[str, jax.sharding.Sharding]) -> None:
    """Refuse before allocating what would not fit on a device of this process, or in its memory.

    Args:
      what: the checkpoint, for the message.
      arrays: ``{leaf: jax.ShapeDtypeStruct}``.
      shardings: where each will lie.

    Raises:
      CheckpointError: how much is needed, how much there is, and what to do.
    """
    size = {
        leaf: math.prod(shardings[leaf].shard_shape(array.shape)) * array.dtype.itemsize
        for leaf, array in arrays.items()
    }
    devices: list[Any] = list(next(iter(shardings.values())).addressable_devices)
    spread = len(devices) > 1
    if devices[0].platform == "cpu":
        needed, available, where = sum(size.values()) * len(devices), available_memory(), "of memory"
    else:
        known = [free for device in devices if (free := device_memory(device)) is not None]
        needed, available = sum(size.values()), min(known, default=None)
        where = f"on each of {len(devices)} devices" if spread else f"of memory on {devices[0]}"
    if available is None or needed <= available:
        return
    layers = max(array.shape[0] for leaf, array in arrays.items() if leaf.startswith("blocks."))
    scale = needed // max(1, sum(size.values()))
    per_layer = scale * sum(n for leaf, n in size.items() if leaf.startswith("blocks.")) // layers
    fitting = (available - (needed - per_layer * layers)) // per_layer
    advice = ["dtype bfloat16"] if any(a.dtype == np.float32 and a.ndim > 2 for a in arrays.values()) else []
    if fitting > 0:
        advice.append(f"first_layers={fitting} (--first-layers {fitting}) to load a part")
    if devices[0].platform == "cpu" and not spread and any(map(is_of_experts, arrays)):
        advice.append("lazy_experts=True (--lazy-experts) to read experts when they are chosen")
    if devices[0].platform != "cpu":
        advice.append("XLA_PYTHON_CLIENT_MEM_FRACTION=0.97 in the environment, to let JAX use more of the device")
    advice.append("a mesh of more devices (sharding.plan says how many)" if spread else "several devices (sharding)")
    raise CheckpointError(
        f"{what}: the weights need {gib(needed)} {where}, {gib(available)} are available; use "
        f"{', '.join(advice)}, or a machine with more memory"
    )
