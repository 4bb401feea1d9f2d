"""Safetensors folders without torch: headers are read and checked first, bytes only when asked for.

A safetensors file is an 8-byte little-endian length, that many bytes of JSON, then the tensors' bytes. The JSON maps
each name to ``{"dtype", "shape", "data_offsets": [begin, end]}``, offsets counted from the end of the header. The
format forbids holes and overlaps, so a header that passes `read_header` accounts for every byte of its file.
"""

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
INDEX = "model.safetensors.index.json"
_PIECE = 1 << 25  # bytes read at a time
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64}
_BITS |= {name: 8 for name in ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0")}
_BITS |= {f"{kind}{bits}": bits for kind in "UIF" for bits in (16, 32, 64)} | {"BF16": 16}


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: names the file, the tensor or the field, and says what to do."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where one tensor lies on disk.

    Attributes:
      name: as in the header.
      file: the safetensors file.
      dtype: the format's code: ``BF16``, ``U8``, ...
      shape: sizes.
      start: first byte, counted from the beginning of the file.
      nbytes: length in bytes.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    def read_into(self, out: np.ndarray, offset: int = 0, forget: bool = False) -> None:
        """Fill the contiguous array `out` with bytes from `offset` on.

        Plain reads: mapped pages would count as resident memory, and a file cut after its header was read would end
        the process with a bus error. `forget` drops what was read from the system's file cache, so that a checkpoint
        as large as half the memory does not push itself out.
        """
        view = out.reshape(-1).view(np.uint8).data
        start = self.start + offset
        with self.file.open("rb", buffering=0) as file:
            file.seek(start)
            done = 0
            while done < len(view):
                count = file.readinto(view[done : done + _PIECE])
                if not count:
                    raise CheckpointError(f"{self.file}: the file ends inside {self.name!r}; copy or download it again")
                if forget and hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), start + done, count, os.POSIX_FADV_DONTNEED)
                done += count


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} appears twice")
    return fields


def _load_json(path: Path, text: bytes) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); copy or download it again") from None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _entry(path: Path, name: str, fields: Any, data_start: int, data_size: int) -> Tensor:
    def bad(why: str) -> CheckpointError:
        return CheckpointError(f"{path}: tensor {name!r}: {why}; the file is corrupt, copy or download it again")

    if not isinstance(fields, dict) or not {"dtype", "shape", "data_offsets"} <= fields.keys():
        raise bad("the header entry needs dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise bad(f"dtype {dtype!r} is unknown")
    if not isinstance(shape, list) or not all(map(_is_count, shape)):
        raise bad(f"shape {shape!r} is not a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise bad(f"data_offsets {offsets!r} are not two positions")
    begin, end = offsets
    needed = -(-math.prod(shape) * _BITS[dtype] // 8)
    if end - begin != needed:
        raise bad(f"{dtype} {shape} takes {needed:,} bytes, data_offsets {offsets} hold {end - begin:,}")
    if end > data_size:
        raise bad(f"data_offsets {offsets} pass the end of the data ({data_size:,} bytes)")
    return Tensor(name, path, dtype, tuple(shape), data_start + begin, needed)


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file, in the order of their bytes.

    Raises:
      CheckpointError: unreadable, cut, overlapping, with holes, or not safetensors; names file and tensor.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            if head == b"version ":
                raise CheckpointError(f"{path}: a git-lfs pointer, not the weights; run 'git lfs pull' in that folder")
            length = int.from_bytes(head, "little")
            if size < 8 or length > min(size - 8, MAX_HEADER):
                raise CheckpointError(
                    f"{path}: declares a header of {length:,} bytes in a file of {size:,}; it is cut short or not a "
                    "safetensors file, copy or download it again"
                )
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    fields = _load_json(path, text)
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path}: the header must be a JSON object, not {type(fields).__name__}")
    fields.pop("__metadata__", None)
    data_start = 8 + length
    tensors = [_entry(path, name, entry, data_start, size - data_start) for name, entry in fields.items()]
    tensors.sort(key=lambda tensor: (tensor.start, tensor.nbytes))
    end = data_start
    for tensor in tensors:
        if tensor.start != end:
            what = "overlaps the tensor before it" if tensor.start < end else "leaves a hole before it"
            raise CheckpointError(
                f"{path}: tensor {tensor.name!r} {what} (byte {tensor.start - data_start:,} of the data, expected "
                f"{end - data_start:,}); the file is corrupt, copy or download it again"
            )
        end = tensor.start + tensor.nbytes
    if end != size:
        raise CheckpointError(
            f"{path}: the header accounts for {end:,} bytes, the file has {size:,}; it is cut short or corrupt, "
            "copy or download it again"
        )
    return {tensor.name: tensor for tensor in tensors}


def read_index(folder: Path) -> dict[str, str] | None:
    """``weight_map`` of the folder's ``*.safetensors.index.json`` (tensor name -> file name), None without one."""
    found = sorted(folder.glob("*.safetensors.index.json"))
    if not found:
        return None
    path = folder / INDEX if folder / INDEX in found else found[0]
    try:
        index = _load_json(path, path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{path}: field 'weight_map' must map tensor names to file names")
    for name, shard in weight_map.items():
        if Path(shard).name != shard or "\\" in shard:
            raise CheckpointError(f"{path}: {name!r} points outside the folder: {shard!r}")
        if not (folder / shard).is_file():
            raise CheckpointError(
                f"{path}: tensor {name!r} should be in {shard}, which is missing; download {shard} again"
            )
    return weight_map


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder's safetensors files, whatever the files are called; headers only.

    With an index, its files count and its promises are held; without, every ``*.safetensors``.

    Raises:
      CheckpointError: no folder, no files, a missing shard, a tensor in two files or not where the index says.
    """
    if not folder.is_dir():
        what = "is a file; give the folder that holds it" if folder.exists() else "no such folder"
        raise CheckpointError(f"{folder}: {what}")
    index = read_index(folder)
    files = sorted(folder.glob("*.safetensors")) if index is None else [folder / f for f in sorted({*index.values()})]
    if not files:
        inner = [child for child in (folder / "original",) if any(child.glob("*.safetensors"))]
        advice = f"load {inner[0]}" if inner else "give the folder that holds config.json and *.safetensors"
        raise CheckpointError(f"{folder}: no *.safetensors file, so neither layout of gpt-oss; {advice}")
    tensors: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in read_header(file).items():
            if name in tensors:
                raise CheckpointError(f"{file}: tensor {name!r} is also in {tensors[name].file.name}; remove one file")
            if index is not None and index.get(name) != file.name:
                place = f"says it is in {index[name]}" if name in index else "does not list it"
                raise CheckpointError(f"{file}: holds {name!r}, but the index {place}; download both files again")
            tensors[name] = tensor
    for name, shard in (index or {}).items():
        if name not in tensors:
            raise CheckpointError(f"{folder / shard}: tensor {name!r}, which the index promises, is missing")
    return tensors
