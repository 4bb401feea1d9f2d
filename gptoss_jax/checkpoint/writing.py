"""Writing a checkpoint folder: complete under its name, or absent.

Everything goes into a hidden folder beside the target, which takes the target's name at the very end. A full disk or
an interruption removes it; what a killed process left behind is removed by the next run, which starts clean.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from gptoss_jax.checkpoint.files import INDEX, CheckpointError
from gptoss_jax.checkpoint.memory import gib
from gptoss_jax.checkpoint.names import FLOAT, Layout, Part, table
from gptoss_jax.config import ModelConfig

SHARD_BYTES: dict[Layout, int] = {"huggingface": 4_800_000_000, "original": 14_000_000_000}  # as published


def shards(parts: Sequence[Part], layout: Layout) -> dict[str, list[Part]]:
    """Which tensor goes into which file: filled in order up to `SHARD_BYTES`, named as OpenAI named them.

    gpt-oss-20b comes out as published, to the byte: three files numbered 00000 to 00002 "of-00002", or one file in
    the original layout.
    """
    groups: list[list[Part]] = []
    room = 0
    for part in parts:
        if not groups or part.nbytes > room:
            groups.append([])
            room = SHARD_BYTES[layout]
        groups[-1].append(part)
        room -= part.nbytes
    last = len(groups) - 1
    if last == 0:
        return {"model.safetensors": groups[0]}
    if layout == "huggingface":
        return {f"model-{i:05}-of-{last:05}.safetensors": group for i, group in enumerate(groups)}
    return {f"model--{i:05}-of-{last + 1:05}.safetensors": group for i, group in enumerate(groups, 1)}


def _header(parts: Sequence[Part]) -> tuple[bytes, dict[str, int]]:
    """Header bytes and where each tensor starts in the file: wide dtypes first, then by name, as the library has it."""
    entries, starts, end = {}, {}, 0
    for part in sorted(parts, key=lambda part: (part.dtype != FLOAT, part.name)):
        starts[part.name] = end
        end += part.nbytes
        entries[part.name] = {
            "dtype": part.dtype,
            "shape": list(part.shape),
            "data_offsets": [starts[part.name], end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, {name: 8 + len(text) + start for name, start in starts.items()}


class FolderWriter:
    """The files of a checkpoint in the making; tensors may be written in any order and piece by piece."""

    def __init__(self, folder: Path, config: ModelConfig, layout: Layout):
        self.folder, self.layout = folder, layout
        self.parts = table(config, layout)
        self._place: dict[str, tuple[Path, int]] = {}
        files = shards(self.parts, layout)
        for name, group in files.items():
            header, starts = _header(group)
            path = folder / name
            with path.open("wb") as file:
                file.write(header)
                file.truncate(len(header) + sum(part.nbytes for part in group))
            self._place |= {part.name: (path, starts[part.name]) for part in group}
        fields = config.to_hf() if layout == "huggingface" else config.to_original()
        (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
        if len(files) > 1:
            total = sum(part.nbytes for part in self.parts)
            weight_map = {part.name: self._place[part.name][0].name for part in self.parts}
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")

    def parts_of(self, leaf: str, layer: int | None) -> list[Part]:
        """The tensors that make up one layer of one of the model's arrays, in the order of their rows."""
        found = [part for part in self.parts if part.leaf == leaf and part.layer == layer]
        return sorted(found, key=lambda part: part.rows)

    def write(self, part: Part, values: np.ndarray, first: int = 0) -> None:
        """Write contiguous `values`, in the file's dtype, from value number `first` of the tensor on."""
        path, start = self._place[part.name]
        with path.open("r+b", buffering=0) as file:
            file.seek(start + first * values.itemsize)
            view = values.reshape(-1).view(np.uint8).data
            done = 0
            while done < len(view):
                done += file.write(view[done:]) or 0

    def write_layer(self, leaf: str, layer: int | None, chunks: Iterable[np.ndarray]) -> None:
        """Write one layer of one array, given as consecutive pieces of its flattened values."""
        parts = self.parts_of(leaf, layer)
        first = 0
        for chunk in chunks:
            while chunk.size:
                size = parts[0].nbytes // (2 if parts[0].dtype == FLOAT else 1)
                count = min(chunk.size, size - first)
                self.write(parts[0], chunk[:count], first)
                chunk, first = chunk[count:], first + count
                if first == size:
                    parts, first = parts[1:], 0


def _check_target(target: Path, overwrite: bool) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise CheckpointError(f"{target}: exists and is not a folder; choose another name")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise CheckpointError(f"{target}: the folder is not empty; choose another name, or say overwrite")


def _failed(target: Path, error: OSError) -> CheckpointError:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        why = "the disk is full; free some space or choose another disk"
    else:
        why = error.strerror or str(error)
    return CheckpointError(f"{target}: cannot be written: {why}. Nothing was left behind")


@contextlib.contextmanager
def write_folder(
    target: str | Path, config: ModelConfig, layout: Layout, *, overwrite: bool = False
) -> Iterator[FolderWriter]:
    """Yields a `FolderWriter`; the folder appears under its name when the block ends without an error.

    Args:
      target: the folder to make.
      overwrite: replace a folder of that name, once the new one is complete.

    Raises:
      CheckpointError: the target exists, or the disk is too small or full; the target is as it was before.
    """
    target = Path(target).expanduser().absolute()
    _check_target(target, overwrite)
    needed = sum(part.nbytes for part in table(config, layout))
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        free = shutil.disk_usage(target.parent).free
        if needed > free:
            raise CheckpointError(
                f"{target}: needs {gib(needed)}, {gib(free)} are free on that disk; free some space or choose another"
            )
        partial.mkdir()
        yield FolderWriter(partial, config, layout)
        _publish(partial, target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise _failed(target, error) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _publish(partial: Path, target: Path) -> None:
    for path in partial.iterdir():  # on disk before the name is: a power cut must not leave a folder of zeros
        with path.open("r+b") as file:
            os.fsync(file.fileno())
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
