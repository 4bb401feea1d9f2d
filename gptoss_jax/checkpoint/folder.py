"""An opened checkpoint folder: its configuration, its layout, and any part of any of the model's arrays on demand."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from gptoss_jax.checkpoint.files import CheckpointError, Tensor, read_folder
from gptoss_jax.checkpoint.names import (
    Layout,
    Part,
    detect_layout,
    differences,
    holds_dequantized_experts,
    is_packed,
    leaf_shapes,
    table,
)
from gptoss_jax.config import ModelConfig

NUMPY_DTYPE: dict[str, Any] = {"BF16": ml_dtypes.bfloat16, "F32": np.float32, "F16": np.float16, "U8": np.uint8}
ALIGNMENT = 64  # bytes; an array that starts on such a boundary becomes a JAX array on the CPU without a copy
_CHUNK = 1 << 22  # elements converted at a time
_SAMPLE = 1 << 16  # bytes from either end of a tensor in the fingerprint


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialized array whose first byte lies on a 64-byte boundary."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    buffer = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + nbytes].view(dtype).reshape(shape)


def read_values(tensor: Tensor, out: np.ndarray, first: int = 0, forget: bool = False) -> None:
    """Fill the contiguous array `out` with values of `tensor` from number `first` on, converted to its dtype."""
    source = np.dtype(NUMPY_DTYPE[tensor.dtype])
    if source == out.dtype:
        return tensor.read_into(out, first * source.itemsize, forget)
    flat = out.reshape(-1)
    buffer = np.empty(min(_CHUNK, flat.size), source)
    for begin in range(0, flat.size, _CHUNK):
        target = flat[begin : begin + _CHUNK]
        values = buffer[: target.size]
        tensor.read_into(values, (first + begin) * source.itemsize, forget)
        if source == ml_dtypes.bfloat16 and target.dtype == np.float32:  # a bfloat16 is the upper half of a float32
            np.left_shift(values.view(np.uint16), 16, out=target.view(np.uint32), dtype=np.uint32)
        else:
            target[...] = values.astype(target.dtype)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A folder whose headers have been read and found complete. No weight is in memory.

    Attributes:
      path: the folder.
      config: from its ``config.json``.
      layout: ``huggingface`` or ``original``.
      parts: the name map for this configuration and layout.
      tensors: what the files hold, by name.
      forget: leave nothing in the system's file cache; for checkpoints that do not fit into memory twice.
    """

    path: Path
    config: ModelConfig
    layout: Layout
    parts: list[Part]
    tensors: dict[str, Tensor]
    forget: bool = False

    @property
    def name(self) -> str:
        """For people: the folder's name; of a hub cache the repository's, of ``original/`` the parent's as well."""
        path = self.path.resolve()
        for parent in path.parents:
            if parent.name.startswith("models--"):
                return parent.name.removeprefix("models--").replace("--", "/")
        return f"{path.parent.name}/{path.name}" if path.name == "original" else path.name

    def segments(self, leaf: str, layer: int | None, rows: tuple[int, int]) -> Iterator[tuple[Tensor, int, int]]:
        """Where rows of one layer's array lie: (tensor, number of its first value, number of values), in order."""
        for part in self.parts:
            begin, end = max(rows[0], part.rows[0]), min(rows[1], part.rows[1])
            if part.leaf == leaf and part.layer == layer and begin < end:
                width = math.prod(part.shape[1:])
                yield self.tensors[part.name], (begin - part.rows[0]) * width, (end - begin) * width

    def read(
        self,
        leaf: str,
        index: tuple[slice, ...] = (),
        dtype: Any = None,
        advance: Callable[[int], None] = lambda nbytes: None,
        buffer: np.ndarray | None = None,
    ) -> np.ndarray:
        """Any box of one of the model's arrays, read from disk into aligned memory.

        Args:
          leaf: as in ``blocks.mlp.router.weight``; its shape is that of `leaf_shapes`.
          index: slices without a step, one an axis; missing ones take the whole axis.
          dtype: of the result; by default uint8 for MXFP4 bytes and bfloat16 for all else.
          advance: called with the number of bytes after each read.
          buffer: uint8, of at least the size of the box: the memory to use instead of fresh memory.
        """
        shape = leaf_shapes(self.config)[leaf]
        bounds = [s.indices(n)[:2] for s, n in zip(index, shape, strict=False)]
        bounds += [(0, n) for n in shape[len(bounds) :]]
        if dtype is None:
            dtype = np.uint8 if is_packed(leaf) else ml_dtypes.bfloat16
        size = tuple(end - begin for begin, end in bounds)
        if buffer is None:
            out = aligned_empty(size, dtype)
        else:
            out = buffer[: math.prod(size) * np.dtype(dtype).itemsize].view(dtype).reshape(size)
        stacked = leaf.startswith("blocks.")
        layers: list[int | None] = [*range(*bounds[0])] if stacked else [None]
        rows, inner = (bounds[1], bounds[2:]) if stacked else (bounds[0], bounds[1:])
        widths = shape[2:] if stacked else shape[1:]
        whole = all(bound == (0, n) for bound, n in zip(inner, widths, strict=True))
        box = tuple(slice(*bound) for bound in inner)
        for slot, layer in enumerate(layers):
            target = (out[slot] if stacked else out).reshape(rows[1] - rows[0], -1)
            values = target.reshape(-1) if whole else np.empty((rows[1] - rows[0]) * math.prod(widths), dtype)
            done = 0
            for tensor, first, count in self.segments(leaf, layer, rows):
                read_values(tensor, values[done : done + count], first, self.forget)
                done += count
                advance(count * tensor.nbytes // math.prod(tensor.shape))
            if not whole:
                target[...] = values.reshape(-1, *widths)[:, *box].reshape(target.shape)
        return out

    def fingerprint(self) -> str:
        """sha256 over names, shapes and up to 64 KiB from either end of every tensor; the same in both layouts.

        It tells checkpoints apart in a fraction of a second. Whether every byte is right is for `verify` to say.
        """
        digest = hashlib.sha256()
        for part in table(self.config, "huggingface"):
            segments = list(self.segments(part.leaf, part.layer, part.rows))
            digest.update(f"{part.name} {list(part.shape)}\n".encode())
            for tensor, first, count in segments:
                size = tensor.nbytes // math.prod(tensor.shape)
                head = np.empty(min(count * size, _SAMPLE), np.uint8)
                tensor.read_into(head, first * size)
                digest.update(head.data)
                tail = np.empty(min(count * size - len(head), _SAMPLE), np.uint8)
                tensor.read_into(tail, (first + count) * size - len(tail))
                digest.update(tail.data)
        return digest.hexdigest()


def find_layout(path: Path, tensors: dict[str, Tensor]) -> Layout:
    """The layout of a folder, or an error that names what it holds instead."""
    layout = detect_layout(set(tensors))
    if layout is None:
        some = ", ".join(repr(name) for name in list(tensors)[:3]) or "no tensors"
        raise CheckpointError(f"{path}: neither layout of gpt-oss; the files hold {some}, ...")
    return layout


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Read ``config.json`` and every header of a folder in either layout and check them against each other.

    Raises:
      CheckpointError: a file, a tensor or the index is missing, extra, mis-shaped, of another dtype or corrupt.
      ConfigError: the configuration cannot be run.
    """
    path = Path(path).expanduser()
    tensors = read_folder(path)
    layout = find_layout(path, tensors)
    config = ModelConfig.from_file(path / "config.json")
    if holds_dequantized_experts(set(tensors)):
        raise CheckpointError(
            f"{path}: the experts are dequantized (mlp.experts.gate_up_proj without _blocks and _scales); "
            f"pack them first: gptoss-jax convert {path} NEW_FOLDER"
        )
    parts = table(config, layout)
    problems = differences(parts, tensors)
    if problems:
        more = f"; and {len(problems) - 3} more, see 'gptoss-jax verify {path}'" if len(problems) > 3 else ""
        raise CheckpointError(f"{path}: {'; '.join(problems[:3])}{more}")
    return Checkpoint(path, config, layout, parts, tensors)
