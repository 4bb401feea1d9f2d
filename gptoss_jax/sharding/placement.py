"""Putting a model and its cache on a mesh, with an account of the bytes that each device really holds."""

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gptoss_jax.cache import KVCache
from gptoss_jax.config import ModelConfig
from gptoss_jax.model import GptOss
from gptoss_jax.sharding.dispatch import ExpertParallel
from gptoss_jax.sharding.layout import MeshError, cache_spec, check_mesh, sharding_of
from gptoss_jax.sharding.plan import plan

TOLERANCE = 1.1  # bytes on a device over bytes planned for it


class Placement:
    """Where `checkpoint.load` puts each array, and what each device of this process holds so far.

    Attributes:
      mesh: the mesh.
      plan: what a device should hold in the end.
      held: bytes by device, counted from ``addressable_shards``.
    """

    def __init__(self, config: ModelConfig, mesh: Mesh, dtype: Any):
        check_mesh(config, dict(mesh.shape))
        self.mesh = mesh
        self.plan = plan(config, mesh.shape, dtype=dtype)
        self.held: collections.Counter[jax.Device] = collections.Counter()
        self._planned = 0

    def __call__(self, leaf: str) -> NamedSharding:
        return sharding_of(leaf, self.mesh)

    def count(self, leaf: str, array: jax.Array) -> None:
        """Add an array that has been placed.

        Raises:
          MeshError: a device holds more than 1.1 times what the plan gives it up to here.
        """
        self._planned += self.plan.weights[leaf]
        for part in array.addressable_shards:
            self.held[part.device] += part.data.nbytes
        device, most = self.held.most_common(1)[0]
        if most > TOLERANCE * self._planned:
            raise MeshError(f"after {leaf}, {device} holds {most:,} bytes, planned were {self._planned:,}")

    def report(self) -> str:
        """One line a device of this process."""
        planned = sum(self.plan.weights.values())
        return "\n".join(f"{device}: {held:,} bytes, planned {planned:,}" for device, held in self.held.items())


def shard(model: GptOss, mesh: Mesh) -> GptOss:
    """The same model spread over a mesh. For a model that fits where it is; `checkpoint.load` never makes it whole.

    Raises:
      MeshError: the mesh does not divide the model, or the weights are in the layout of `lanes`.
    """
    check_mesh(model.config, dict(mesh.shape))
    graph, state = nnx.split(model)
    flat = nnx.to_flat_state(state)
    if any(variable.get_value().dtype == jnp.uint16 for _, variable in flat):
        raise MeshError("the weights are laid out for one CPU (`lanes`): load the checkpoint with mesh=...")
    for path, variable in flat:
        variable.set_value(jax.device_put(variable.get_value(), sharding_of(".".join(map(str, path)), mesh)))
    spread = nnx.merge(graph, state)
    spread.dispatch = ExpertParallel(model.config, mesh)
    return spread


def make_cache(model: GptOss, batch: int, max_len: int) -> KVCache:
    """An empty cache where the model lies: on its mesh, cut by sequence and head, or on the default device."""
    if not isinstance(model.dispatch, ExpertParallel):
        return KVCache.create(model.config, batch, max_len, model.dtype)
    mesh = model.dispatch.mesh
    create = functools.partial(KVCache.create, model.config, batch, max_len, model.dtype)
    cut, whole = NamedSharding(mesh, cache_spec(mesh, batch)), NamedSharding(mesh, PartitionSpec())
    where = jax.tree.map(lambda leaf: cut if leaf.ndim > 1 else whole, jax.eval_shape(create))
    return jax.jit(create, out_shardings=where)()
