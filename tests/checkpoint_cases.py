"""Helpers for the checkpoint tests: take a sound folder apart, change one thing, put it together again."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def writable_copy(source: Path, target: Path) -> Path:
    """A copy without `original/`, writable although the golden files are not."""
    target.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file() and file.suffix != ".npy":
            shutil.copyfile(file, target / file.name)
    return target


def read_raw(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file, nothing checked."""
    blob = path.read_bytes()
    (length,) = struct.unpack("<Q", blob[:8])
    return json.loads(blob[8 : 8 + length]), blob[8 + length :]


def write_raw(path: Path, header: Any, data: bytes) -> None:
    """The inverse of `read_raw`, nothing checked."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def edit_header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Apply `change` to the header in place; the data stay as they are."""
    header, data = read_raw(path)
    change(header)
    write_raw(path, header, data)


def read_tensors(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """``{name: (dtype, shape, bytes)}`` of one file."""
    header, data = read_raw(path)
    header.pop("__metadata__", None)
    return {n: (e["dtype"], e["shape"], data[slice(*e["data_offsets"])]) for n, e in header.items()}


def write_tensors(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    """The inverse of `read_tensors`."""
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    write_raw(path, header, data)


def edit_tensors(path: Path, change: Callable[[dict[str, tuple[str, list[int], bytes]]], Any]) -> None:
    """Apply `change` to the tensors in place; the file stays a sound safetensors file."""
    tensors = read_tensors(path)
    change(tensors)
    write_tensors(path, tensors)


def leaves(model: Any) -> dict[str, np.ndarray]:
    """Every array of a model, by its dotted name."""
    from flax import nnx

    flat = nnx.to_flat_state(nnx.state(model))
    return {".".join(map(str, path)): np.asarray(variable.get_value()) for path, variable in flat}


def same(a: Any, b: Any) -> bool:
    """Whether two models hold the same bits under the same names."""
    first, second = leaves(a), leaves(b)
    return first.keys() == second.keys() and all(
        first[k].dtype == second[k].dtype and first[k].tobytes() == second[k].tobytes() for k in first
    )
