"""Reading into the layout of `lanes`, a piece of a tensor at a time: no second copy of a tensor is ever held."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gptoss_jax import lanes
from gptoss_jax.checkpoint.folder import Checkpoint, aligned_empty
from gptoss_jax.checkpoint.names import is_packed, leaf_shapes
from gptoss_jax.checkpoint.progress import Advance

WORTH = 1 << 30  # bytes of a checkpoint from which on the layout is chosen without being asked for
_PIECE = 64 << 20  # bytes read, then laid out
_THREADS = 2  # one reads while the other lays out


def read_arranged(checkpoint: Checkpoint, leaf: str, advance: Advance) -> np.ndarray:
    """One of the model's arrays, read and laid out by two threads into aligned memory."""
    shape = leaf_shapes(checkpoint.config)[leaf]
    out = aligned_empty(lanes.arranged_shape(leaf, shape), lanes.arranged_dtype(leaf))

    def fill(index: tuple[slice, ...]) -> None:
        piece = lanes.arrange(leaf, checkpoint.read(leaf, index, None, advance))
        columns = leaf == "unembedding.weight"  # its rows are columns there
        out[(slice(None), *index) if columns else index] = piece

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(fill, _pieces(leaf, shape)):
            pass
    return out


def _pieces(leaf: str, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Boxes of an array: rows, whole layers or some experts of a layer, of about `_PIECE` bytes."""
    fixed = 1 if leaf.startswith("blocks.") and len(shape) > 2 else 0  # axes taken one index at a time
    row = math.prod(shape[fixed + 1 :]) * (1 if is_packed(leaf) else 2)
    if fixed and lanes.is_matrix(leaf):  # a layer's matrix is exchanged as a whole
        yield from ((slice(n, n + 1),) for n in range(shape[0]))
        return
    step = max(1, _PIECE // max(row, 1))
    for outer in np.ndindex(shape[:fixed]):
        for first in range(0, shape[fixed], step):
            yield (*(slice(n, n + 1) for n in outer), slice(first, min(first + step, shape[fixed])))
