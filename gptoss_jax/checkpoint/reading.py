"""`load`: from a folder to a model that runs, touching each byte once."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptoss_jax.checkpoint.files import CheckpointError
from gptoss_jax.checkpoint.folder import Checkpoint, open_checkpoint
from gptoss_jax.checkpoint.memory import available_memory, gib
from gptoss_jax.checkpoint.progress import Advance, byte_progress
from gptoss_jax.config import ModelConfig
from gptoss_jax.model import GptOss
from gptoss_jax.tokenizer import Tokenizer

BUILT_IN = Path(__file__).parents[1] / "nano" / "weights"
DTYPES = ("float32", "bfloat16")
Placement = Callable[[str, tuple[int, ...]], jax.sharding.Sharding]
_STAGED = 1 << 30  # bytes; a larger array goes to an accelerator layer by layer


def abstract_arrays(config: ModelConfig, dtype: Any, param_dtype: Any = None) -> tuple[Any, dict[str, Any], Any]:
    """The model without weights: its graph, ``{leaf: jax.ShapeDtypeStruct}``, and the state to fill."""
    model = nnx.eval_shape(lambda: GptOss(config, dtype=dtype, param_dtype=param_dtype, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    return graph, {".".join(map(str, path)): v.get_value() for path, v in nnx.to_flat_state(state)}, state


def _dtype(name: str, value: Any) -> np.dtype:
    try:
        dtype = jnp.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in DTYPES:
        raise CheckpointError(f"{name} {value!r} is not one of {', '.join(DTYPES)}")
    return dtype


def _find_tokenizer(folder: Path) -> Tokenizer | None:
    try:
        return Tokenizer.from_file(folder)
    except FileNotFoundError:
        return None


def _check_memory(checkpoint: Checkpoint, arrays: dict[str, Any]) -> None:
    """Refuse before allocating what would not fit."""
    size = {leaf: array.size * array.dtype.itemsize for leaf, array in arrays.items()}
    needed, available = sum(size.values()), available_memory()
    if available is None or needed <= available:
        return
    per_layer = sum(n for leaf, n in size.items() if leaf.startswith("blocks.")) // checkpoint.config.num_layers
    fitting = (available - (needed - per_layer * checkpoint.config.num_layers)) // per_layer
    part = f"first_layers={fitting} (--first-layers {fitting}) to load a part, " if fitting > 0 else ""
    half = any(a.dtype == np.float32 and a.ndim > 2 for a in arrays.values())
    raise CheckpointError(
        f"{checkpoint.path}: the weights need {gib(needed)} of memory, {gib(available)} are available; use "
        f"{'dtype bfloat16, ' if half else ''}{part}a machine with more memory, or several devices"
    )


@functools.partial(jax.jit, donate_argnums=0)
def _set_layer(stack: jax.Array, layer: jax.Array, index: Any) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(stack, layer, index, 0)


def _place(checkpoint: Checkpoint, leaf: str, array: Any, placement: Placement | None, advance: Advance) -> jax.Array:
    """One array of the model, read straight into the memory it stays in (CPU) or by way of it (accelerators)."""
    shape, dtype = array.shape, array.dtype
    if placement is not None:
        boxes: dict[tuple[tuple[int, int], ...], np.ndarray] = {}  # devices that hold the same box share one read

        def box(index: tuple[slice, ...] | None) -> np.ndarray:
            index = index or ()
            key = tuple(s.indices(n)[:2] for s, n in zip(index, shape, strict=False))
            if key not in boxes:
                boxes[key] = checkpoint.read(leaf, index, dtype, advance)
            return boxes[key]

        return jax.make_array_from_callback(shape, placement(leaf, shape), box)
    on_cpu = jax.devices()[0].platform == "cpu"
    if on_cpu or not leaf.startswith("blocks.") or array.size * dtype.itemsize <= _STAGED:
        return jax.device_put(checkpoint.read(leaf, (), dtype, advance))  # no copy on a CPU: the memory is aligned
    stack = jnp.zeros(shape, dtype)
    for n in range(shape[0]):
        stack = _set_layer(stack, checkpoint.read(leaf, (slice(n, n + 1),), dtype, advance), n)
    return stack


def load(
    path: str | Path | None = None,
    dtype: Any = None,
    *,
    param_dtype: Any = None,
    first_layers: int | None = None,
    placement: Placement | None = None,
    progress: bool | None = None,
) -> tuple[GptOss, Tokenizer | None]:
    """Read a checkpoint in either layout; experts stay packed, 4.25 bits a weight.

    Args:
      path: a folder with ``config.json`` and ``*.safetensors``; None is the built-in model.
      dtype: of the activations, ``float32`` or ``bfloat16``; default float32 for the built-in model, else bfloat16.
      param_dtype: of the dense weights in memory; `dtype` if None. Norm scales are always float32.
      first_layers: load only so many layers, for small machines and for experiments.
      placement: ``(leaf, shape) -> jax.sharding.Sharding``; each device's part is read on its own (`sharding.py`).
      progress: True shows a bar, False none, None one on a terminal if it takes long.

    Returns:
      (model, tokenizer); the tokenizer is None if the folder has none.

    Raises:
      CheckpointError: what is wrong with which file or tensor, or too little memory; nothing is half loaded.
      ConfigError: a configuration that cannot be run.
    """
    if path is None and not BUILT_IN.is_dir():
        raise CheckpointError(f"the built-in model is missing from {BUILT_IN}; reinstall gptoss-jax or give a folder")
    checkpoint = open_checkpoint(BUILT_IN if path is None else path)
    dtype = _dtype("dtype", dtype or ("float32" if path is None else "bfloat16"))
    param_dtype = _dtype("param_dtype", param_dtype or dtype)
    tokenizer = _find_tokenizer(checkpoint.path)
    config = checkpoint.config if first_layers is None else checkpoint.config.first_layers(first_layers)
    num_tokens = config.vocab_size if tokenizer is None else min(tokenizer.n_vocab, config.vocab_size)
    config = dataclasses.replace(config, num_tokens=num_tokens)
    graph, arrays, state = abstract_arrays(config, dtype, param_dtype)
    if jax.default_backend() == "cpu":
        _check_memory(checkpoint, arrays)
    used = {part.name for part in checkpoint.parts if part.layer is None or part.layer < config.num_layers}
    total = sum(checkpoint.tensors[name].nbytes for name in used)
    try:
        with byte_progress(f"Loading {checkpoint.name}", total, progress) as advance:
            part = dataclasses.replace(checkpoint, config=config)
            filled = {leaf: _place(part, leaf, array, placement, advance) for leaf, array in arrays.items()}
    except MemoryError:
        raise CheckpointError(f"{checkpoint.path}: out of memory; use first_layers or a larger machine") from None
    for path_of, variable in nnx.to_flat_state(state):
        variable.set_value(filled[".".join(map(str, path_of))])
    model = nnx.merge(graph, state)
    model.name = checkpoint.name + ("" if first_layers is None else f" (first {first_layers} layers)")
    model.checkpoint_hash = checkpoint.fingerprint()
    return model, tokenizer
