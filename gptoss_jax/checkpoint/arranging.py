"""Reading into the layout of `lanes`, a piece of a tensor at a time: no second copy of a tensor is ever held."""

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from gptoss_jax import lanes
from gptoss_jax.checkpoint.folder import Checkpoint, aligned_empty
from gptoss_jax.checkpoint.names import is_packed, leaf_shapes
from gptoss_jax.checkpoint.progress import Advance

WORTH = 1 << 30  # bytes of a checkpoint from which on the layout is chosen without being asked for
_PIECE = 16 << 20  # bytes read, then laid out while they are still in a processor's cache
_THREADS = 3  # two lay out while one waits for the disk
_BLOCK = 1 << 20  # bytes laid out at a time: columns that come from as many rows as a core's own cache holds


def read_arranged(checkpoint: Checkpoint, leaf: str, advance: Advance) -> np.ndarray:
    """One of the model's arrays, read and laid out by a few threads into aligned memory."""
    shape = leaf_shapes(checkpoint.config)[leaf]
    out = aligned_empty(lanes.arranged_shape(leaf, shape), lanes.arranged_dtype(leaf))
    largest = max(_PIECE, _row_bytes(leaf, shape))
    own = threading.local()

    def fill(index: tuple[slice, ...]) -> None:
        if not hasattr(own, "buffer"):  # fresh memory for every piece would cost more than reading it
            own.buffer = aligned_empty((largest,), np.uint8)
        piece = lanes.arrange(leaf, checkpoint.read(leaf, index, None, advance, own.buffer))
        place = out[(*index[:-1], slice(None), index[-1])] if lanes.is_turned(leaf) else out[index]
        columns = max(1, _BLOCK // piece.strides[-1])
        for first in range(0, place.shape[-1], columns):
            place[..., first : first + columns] = piece[..., first : first + columns]

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(fill, _pieces(leaf, shape)):
            pass
    return out


def _fixed_axes(leaf: str, shape: tuple[int, ...]) -> int:
    """Leading axes that are taken one index at a time: the layers', unless the array is small."""
    return 1 if leaf.startswith("blocks.") and len(shape) > 2 else 0


def _row_bytes(leaf: str, shape: tuple[int, ...]) -> int:
    """Of one index of the axis that pieces divide: a row, an expert, or a layer's vector."""
    return math.prod(shape[_fixed_axes(leaf, shape) + 1 :]) * (1 if is_packed(leaf) else 2)


def _pieces(leaf: str, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Boxes of an array: rows of a matrix, some experts of a layer or whole layers, of about `_PIECE` bytes."""
    fixed = _fixed_axes(leaf, shape)
    step = max(1, _PIECE // _row_bytes(leaf, shape))
    for outer in np.ndindex(shape[:fixed]):
        for first in range(0, shape[fixed], step):
            yield (*(slice(n, n + 1) for n in outer), slice(first, min(first + step, shape[fixed])))
