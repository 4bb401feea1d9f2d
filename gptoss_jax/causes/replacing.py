"""Change the weights and leave the model as it is: what rounding, noise or a lost matrix does to routing and answer."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from gptoss_jax import lanes
from gptoss_jax.model import GptOss
from gptoss_jax.mxfp4 import MXArray

Change = Callable[[Any], Any]


def with_weights(model: GptOss, changes: Mapping[str, Change]) -> GptOss:
    """A copy of the model with some weights changed; it shares the memory of all others.

    Args:
      model: in either layout, the checkpoint's or that of `lanes`.
      changes: ``{name: f}``. f gets an array as the checkpoint has it, stacked over layers (NumPy, ``[L, out, in]`` for
        a matrix), and returns one of the same shape, such as ``lambda w: quantize(w).dequantize()``. The experts'
        matrices ``blocks.mlp.experts.gate_up`` and ``.down`` come and go as an `MXArray`.

    Raises:
      ValueError: an unknown name, or a result of another shape.
    """
    graph, state = nnx.split(model)
    copy = nnx.merge(graph, jax.tree.map(lambda leaf: leaf, state))
    variables = {".".join(map(str, path)): variable for path, variable in nnx.to_flat_state(nnx.state(copy))}
    for name, change in changes.items():
        packed = f"{name}_blocks" in variables
        leaves = [f"{name}_blocks", f"{name}_scales"] if packed else [name]
        if leaves[0] not in variables:
            raise ValueError(f"no weights are called {name!r}; known: {', '.join(sorted(variables))}")
        old = [_read(model, leaf, variables[leaf]) for leaf in leaves]
        result = change(MXArray(*old)) if packed else change(old[0])
        new = [result.blocks, result.scales] if packed else [result]
        for leaf, before, after in zip(leaves, old, new, strict=True):
            if np.shape(after) != before.shape:
                raise ValueError(f"{leaf} must stay {list(before.shape)}, not become {list(np.shape(after))}")
            array = np.asarray(after).astype(before.dtype)
            array = lanes.arrange(leaf, array) if lanes.is_arranged(model) else array
            place = variables[leaf].get_value().sharding  # where it lay, so that no program is compiled anew
            variables[leaf].set_value(jax.device_put(np.ascontiguousarray(array), place))
    return copy


def _read(model: GptOss, leaf: str, variable: Any) -> np.ndarray:
    array = np.asarray(variable.get_value())
    return lanes.restore(leaf, array) if lanes.is_arranged(model) else array
