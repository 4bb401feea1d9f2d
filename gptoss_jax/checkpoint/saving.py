"""`save`: the model in memory as a folder in either layout."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from flax import nnx

from gptoss_jax.checkpoint.names import Layout, is_packed
from gptoss_jax.checkpoint.progress import byte_progress
from gptoss_jax.checkpoint.writing import write_folder
from gptoss_jax.lanes import is_arranged, restore
from gptoss_jax.model import GptOss
from gptoss_jax.tokenizer import Tokenizer


def save(
    model: GptOss,
    path: str | Path,
    layout: Layout = "huggingface",
    *,
    tokenizer: Tokenizer | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Path:
    """Write a checkpoint; packed experts byte for byte, everything else rounded to bfloat16 as the format has it.

    A model that was loaded and not changed comes back with the bytes of its source.

    Args:
      model: to be written.
      path: the folder to make; it appears complete or not at all.
      layout: ``huggingface`` or ``original``.
      tokenizer: saved beside the weights if given.
      overwrite: replace an existing folder.
      progress: as in `load`.

    Returns:
      The folder.
    """
    arrays: dict[str, Any] = {
        ".".join(map(str, path_of)): variable.get_value() for path_of, variable in nnx.to_flat_state(nnx.state(model))
    }
    arranged = is_arranged(model)
    with write_folder(path, model.config, layout, overwrite=overwrite) as writer:
        total = sum(part.nbytes for part in writer.parts)
        with byte_progress(f"Saving {Path(path).name}", total, progress) as advance:
            for leaf, array in arrays.items():
                stacked = leaf.startswith("blocks.")
                for layer in range(model.config.num_layers) if stacked else (None,):
                    values = np.asarray(array if layer is None else array[layer])
                    values = restore(leaf, values) if arranged else values
                    values = values.reshape(-1).astype(np.uint8 if is_packed(leaf) else ml_dtypes.bfloat16, copy=False)
                    writer.write_layer(leaf, layer, [values])
                    advance(values.nbytes)
        if tokenizer is not None:
            tokenizer.save(writer.folder)
    return Path(path)
