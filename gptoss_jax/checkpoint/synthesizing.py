"""`synthesize`: a random checkpoint with the true names, shapes, files and sizes, to test capacity and speed."""

import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from gptoss_jax.checkpoint.files import CheckpointError
from gptoss_jax.checkpoint.names import Layout, leaf_shapes
from gptoss_jax.checkpoint.progress import Advance, byte_progress
from gptoss_jax.checkpoint.writing import write_folder
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B, TINY, ModelConfig

PRESETS = {"gpt-oss-20b": GPT_OSS_20B, "gpt-oss-120b": GPT_OSS_120B, "tiny": TINY}
MARK = "synthetic.json"
_CHUNK = 1 << 21  # 64-bit words drawn at a time
_STD = 0.02  # of the dense weights, initializer_range in the published config.json
_SCALES = (119, 3)  # E8M0 bytes 119 .. 121: times the codes' own spread of 2.9, values of about 0.02


def _random_bytes(leaf: str, layer: int | None, count: int, seed: int) -> Iterator[np.ndarray]:
    """`count` random bytes in pieces, a function of the arguments alone; whole words, so that a cut adds no bias."""
    key = zlib.crc32(f"{leaf} {layer}".encode())
    generator = np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, key])))
    for begin in range(0, count, 8 * _CHUNK):
        size = min(8 * _CHUNK, count - begin)
        words = generator.integers(0, 1 << 64, -(-size // 8), dtype=np.uint64)
        yield words.view(np.uint8)[:size]


def _values(leaf: str, layer: int | None, count: int, seed: int) -> Iterator[np.ndarray]:
    """`count` values for one layer of one array: activations of a forward pass stay finite and of order 1."""
    if leaf.endswith("_blocks"):
        yield from _random_bytes(leaf, layer, count, seed)
    elif leaf.endswith("_scales"):
        first, number = _SCALES
        for raw in _random_bytes(leaf, layer, count, seed):
            yield raw % np.uint8(number) + np.uint8(first)
    else:
        center = 1.0 if leaf.endswith("norm.scale") else 0.0
        step = np.float32(_STD * math.sqrt(3) / 2**15)  # uniform within +- sqrt(3) standard deviations
        for raw in _random_bytes(leaf, layer, 2 * count, seed):
            values = raw.view(np.int16).astype(np.float32)
            values *= step
            values += np.float32(center)
            yield (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16).view(ml_dtypes.bfloat16)


def _counted(chunks: Iterator[np.ndarray], advance: Advance) -> Iterator[np.ndarray]:
    for chunk in chunks:
        yield chunk
        advance(chunk.nbytes)


def synthesize(
    preset: str | ModelConfig,
    path: str | Path,
    seed: int = 0,
    *,
    layout: Layout = "huggingface",
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Write random weights in the published byte format, streaming: little memory whatever the size.

    The same seed gives the same model in both layouts. The file ``synthetic.json`` marks them.

    Args:
      preset: ``gpt-oss-20b``, ``gpt-oss-120b``, ``tiny``, or any configuration.
      path: the folder to make; it appears complete or not at all, and an interrupted run is begun afresh.
      seed: a number from 0 on.
      layout: ``huggingface`` or ``original``.
      overwrite: replace an existing folder.
      progress: as in `load`.

    Returns:
      The folder.

    Raises:
      CheckpointError: unknown preset, or the target cannot be written.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise CheckpointError(f"preset {preset!r} is unknown; choose one of {', '.join(PRESETS)}")
        config = PRESETS[preset]
    else:
        config = preset
    if seed < 0:
        raise CheckpointError(f"seed must be at least 0, not {seed}")
    with write_folder(path, config, layout, overwrite=overwrite) as writer:
        total = sum(part.nbytes for part in writer.parts)
        with byte_progress(f"Writing {Path(path).name}", total, progress) as advance:
            for part in writer.parts:  # in the order of the files
                if part.rows[0]:
                    continue  # written together with the rows before it
                rows = leaf_shapes(config)[part.leaf][0 if part.layer is None else 1 :]
                chunks = _values(part.leaf, part.layer, math.prod(rows), seed)
                writer.write_layer(part.leaf, part.layer, _counted(chunks, advance))
        made = {"weights": "random, not trained", "seed": seed}
        (writer.folder / MARK).write_text(json.dumps(made) + "\n", encoding="utf-8")
    return Path(path)
