"""Experts that stay in the files: one is read when a token chooses it. For machines with less memory than weights.

The dense weights of gpt-oss-20b are 3.6 GB; its 768 experts of 13.2 MB each are the rest. A compiled program asks for
an expert through a callback, which reads it from the checkpoint or finds it among those that were used last.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptoss_jax import lanes
from gptoss_jax.checkpoint.folder import Checkpoint
from gptoss_jax.checkpoint.names import EXPERTS, is_packed, leaf_shapes
from gptoss_jax.experts import GATHER_UP_TO, Experts, ExpertWeights, moe
from gptoss_jax.lanes import PackedLanes
from gptoss_jax.mxfp4 import MXArray
from gptoss_jax.router import Routing

LEAVES = ("gate_up_blocks", "gate_up_scales", "gate_up_bias", "down_blocks", "down_scales", "down_bias")


class ExpertFiles:
    """The experts of all layers, indexed like `ExpertWeights` by ``layer * E + expert``, also inside compiled code.

    Args:
      checkpoint: an opened folder.
      arranged: lay every expert out as `lanes` does.
      dtype: of the biases, if not arranged.
      keep_bytes: experts used last stay in memory up to so many bytes.
    """

    def __init__(self, checkpoint: Checkpoint, arranged: bool, dtype: Any, keep_bytes: int):
        self._checkpoint, self._arranged = checkpoint, arranged
        self._num_experts = checkpoint.config.num_experts
        self._last = checkpoint.config.num_layers * self._num_experts - 1
        shapes, results = leaf_shapes(checkpoint.config), []
        for leaf in (EXPERTS + name for name in LEAVES):
            shape, kind = shapes[leaf][2:], np.uint8 if is_packed(leaf) else dtype
            if arranged:
                shape, kind = lanes.arranged_shape(leaf, shape), lanes.arranged_dtype(leaf)
            results.append(jax.ShapeDtypeStruct(shape, kind))
        self._results = tuple(results)
        size = sum(math.prod(result.shape) * result.dtype.itemsize for result in self._results)
        self.kept = max(1, keep_bytes // size)
        self._read: Callable[[int], tuple[np.ndarray, ...]] = functools.lru_cache(maxsize=self.kept)(self._read_now)

    def _read_now(self, index: int) -> tuple[np.ndarray, ...]:
        layer, expert = divmod(index, self._num_experts)
        box = (slice(layer, layer + 1), slice(expert, expert + 1))
        found = []
        for name, result in zip(LEAVES, self._results, strict=True):
            leaf = EXPERTS + name
            if self._arranged:
                array = lanes.arrange(leaf, self._checkpoint.read(leaf, box))
            else:
                array = self._checkpoint.read(leaf, box, result.dtype)
            found.append(np.ascontiguousarray(array[0, 0]))
        return tuple(found)

    def __getitem__(self, index: Any) -> ExpertWeights:
        # padding is marked by expert E, whose output has weight 0; past the last layer any expert will do
        read = lambda number: self._read(min(int(number), self._last))
        arrays = jax.pure_callback(read, self._results, index, vmap_method="sequential")
        of = dict(zip(LEAVES, arrays, strict=True))
        if self._arranged:
            pack: Any = lambda blocks, scales: PackedLanes(blocks[None], scales[None])[0]
        else:
            pack = MXArray
        return ExpertWeights(
            pack(of["gate_up_blocks"], of["gate_up_scales"]),
            of["gate_up_bias"],
            pack(of["down_blocks"], of["down_scales"]),
            of["down_bias"],
        )

    def __call__(self, x_TD: jax.Array, routing: Routing, experts: Experts, layer: Any) -> jax.Array:
        """`GptOss.dispatch`: the model's own arrays of experts are empty and not looked at."""
        config = self._checkpoint.config
        if len(x_TD) <= GATHER_UP_TO:  # `gather` reads for padding as well: let it be an expert that others need
            needed = jnp.where(routing.experts < config.num_experts, routing.experts, routing.experts.min())
            routing = routing._replace(experts=needed)
        weights: Any = self  # indexed like `ExpertWeights`, which is all that `moe` asks of it
        return moe(x_TD, routing, weights, config, layer * config.num_experts)


def placeholder(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """What stands in the model for an array that stays in the files: ``[L, E, 0]``."""
    return jnp.zeros((*shape[:2], 0), dtype)
