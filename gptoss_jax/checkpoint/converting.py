"""`convert`: one layout to the other, or dequantized community checkpoints to MXFP4, a few megabytes at a time."""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from gptoss_jax.checkpoint.files import CheckpointError, Tensor, read_folder
from gptoss_jax.checkpoint.folder import NUMPY_DTYPE, Checkpoint, find_layout, read_values
from gptoss_jax.checkpoint.names import (
    DEQUANTIZED,
    FLOATS,
    PACKED,
    Layout,
    differences,
    holds_dequantized_experts,
    is_packed,
    leaf_shapes,
    table,
)
from gptoss_jax.checkpoint.progress import Advance, byte_progress
from gptoss_jax.checkpoint.writing import FolderWriter, write_folder
from gptoss_jax.config import ModelConfig
from gptoss_jax.mxfp4 import MXArray, quantize

_CHUNK = 1 << 24  # values copied at a time
_COMPANIONS = ("tokenizer*", "*.tiktoken*", "special_tokens_map.json", "generation_config.json", "chat_template*")


@jax.jit
def _pack_transposed(weight_IO: jax.Array) -> MXArray:
    return quantize(weight_IO.T.astype(jnp.float32))


def _dequantized_parts(config: ModelConfig) -> dict[str, tuple[str, int, tuple[int, ...]]]:
    """{tensor name: (leaf without _blocks and _scales, layer, shape [E, in, out])} of a community checkpoint."""
    c = config
    shapes = {"gate_up": (c.hidden_size, 2 * c.intermediate_size), "down": (c.intermediate_size, c.hidden_size)}
    return {
        pattern.format(n=n): (leaf, n, (c.num_experts, *shapes[leaf.rpartition(".")[2]]))
        for leaf, pattern in DEQUANTIZED.items()
        for n in range(c.num_layers)
    }


def _open_any(path: Path) -> tuple[Checkpoint, dict[str, Tensor]]:
    """A checkpoint whose floats may be of any float type and whose experts may be dequantized; these come apart."""
    tensors = read_folder(path)
    layout = find_layout(path, tensors)
    config = ModelConfig.from_file(path / "config.json")
    parts = table(config, layout)
    experts: dict[str, Tensor] = {}
    problems: list[str] = []
    if holds_dequantized_experts(set(tensors)):
        parts = [part for part in parts if part.dtype != PACKED]
        for name, (_, _, shape) in _dequantized_parts(config).items():
            tensor = tensors.pop(name, None)
            if tensor is None or tensor.shape != shape or tensor.dtype not in FLOATS:
                found = "is missing" if tensor is None else f"is {tensor.dtype} {list(tensor.shape)}"
                problems.append(f"tensor {name!r} {found}, expected BF16 {list(shape)}")
            else:
                experts[name] = tensor
    problems += differences(parts, tensors, any_float=True)
    if problems:
        raise CheckpointError(f"{path}: {'; '.join(problems[:3])}" + (" ..." if len(problems) > 3 else ""))
    return Checkpoint(path, config, layout, parts, tensors), experts


def _layer_chunks(
    checkpoint: Checkpoint, leaf: str, layer: int | None, rows: int, advance: Advance
) -> Iterator[np.ndarray]:
    """The values of one layer of one array, piece by piece, in the dtype of the format."""
    dtype = np.uint8 if is_packed(leaf) else ml_dtypes.bfloat16
    for tensor, first, count in checkpoint.segments(leaf, layer, (0, rows)):
        for begin in range(first, first + count, _CHUNK):
            values = np.empty(min(_CHUNK, first + count - begin), dtype)
            read_values(tensor, values, begin)
            yield values
            advance(values.size * tensor.nbytes // math.prod(tensor.shape))


def _pack_experts(writer: FolderWriter, leaf: str, layer: int, tensor: Tensor, advance: Advance) -> None:
    """Quantize one layer's experts one by one; blocks and scales go straight to their places."""
    E, inputs, outputs = tensor.shape
    (blocks,), (scales,) = writer.parts_of(f"{leaf}_blocks", layer), writer.parts_of(f"{leaf}_scales", layer)
    weight = np.empty((inputs, outputs), NUMPY_DTYPE[tensor.dtype])
    for e in range(E):
        read_values(tensor, weight, e * weight.size)
        if not np.isfinite(weight.astype(np.float32)).all():
            raise CheckpointError(f"{tensor.file}: {tensor.name!r}: expert {e} holds values that are not finite")
        packed = _pack_transposed(weight)
        writer.write(blocks, np.asarray(packed.blocks), e * packed.blocks.size)
        writer.write(scales, np.asarray(packed.scales), e * packed.scales.size)
        advance(weight.nbytes)


def convert(
    source: str | Path,
    target: str | Path,
    layout: Layout = "huggingface",
    *,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Write a checkpoint in another layout, streaming; packed experts are copied byte for byte.

    A community checkpoint with dequantized experts (names without ``_blocks`` and ``_scales``, matrices transposed)
    is packed as OCP MX v1.0 has it, which keeps every value that came from MXFP4. Floats of other types are rounded
    to bfloat16. Files of a tokenizer are copied along.

    Args:
      source: a folder in either layout.
      target: the folder to make; it appears complete or not at all.
      layout: of the target.
      overwrite: replace an existing folder.
      progress: as in `load`.

    Returns:
      The target.

    Raises:
      CheckpointError: the source is not a checkpoint, or the target cannot be written.
      ConfigError: the configuration cannot be run.
    """
    source = Path(source).expanduser()
    checkpoint, experts = _open_any(source)
    config = checkpoint.config
    if source.resolve() == Path(target).expanduser().resolve():
        raise CheckpointError(f"{target}: source and target are the same folder; choose another target")
    total = sum(tensor.nbytes for tensor in (*checkpoint.tensors.values(), *experts.values()))
    with (
        write_folder(target, config, layout, overwrite=overwrite) as writer,
        byte_progress(f"Converting {checkpoint.name}", total, progress) as advance,
    ):
        for name, (leaf, layer, _) in _dequantized_parts(config).items():
            if name in experts:
                _pack_experts(writer, leaf, layer, experts[name], advance)
        for leaf, shape in leaf_shapes(config).items():
            if experts and is_packed(leaf):
                continue
            stacked = leaf.startswith("blocks.")
            for n in range(config.num_layers) if stacked else (None,):
                rows = shape[1] if stacked else shape[0]
                writer.write_layer(leaf, n, _layer_chunks(checkpoint, leaf, n, rows, advance))
        for pattern in _COMPANIONS:
            for companion in source.glob(pattern):
                if companion.is_file():
                    shutil.copyfile(companion, writer.folder / companion.name)
    return Path(target)
