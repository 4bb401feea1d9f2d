"""Between training weights and checkpoints: pack the experts, write a Hugging Face folder, and read one back."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptoss_jax import checkpoint, mxfp4
from gptoss_jax.config import ModelConfig
from gptoss_jax.model import GptOss
from gptoss_jax.nano import vocabulary
from gptoss_jax.nano.network import PACKED, Params
from gptoss_jax.tokenizer import Tokenizer


def to_model(params: Params, config: ModelConfig, dtype: Any = jnp.float32) -> GptOss:
    """The model that runs, its experts rounded to MXFP4."""
    model = nnx.eval_shape(lambda: GptOss(config, dtype=dtype, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    arrays: dict[str, Any] = {}
    for name, value in params.items():
        if name in PACKED:
            packed = mxfp4.quantize(jnp.asarray(value, jnp.float32))
            arrays |= {f"{name}_blocks": packed.blocks, f"{name}_scales": packed.scales}
        else:
            arrays[name] = jnp.asarray(value)
    for path, variable in nnx.to_flat_state(state):
        variable.set_value(arrays[".".join(map(str, path))].astype(variable.get_value().dtype))
    return nnx.merge(graph, state)


def from_model(model: GptOss) -> Params:
    """Float weights of a model, its experts unpacked: training can go on from a checkpoint."""
    flat = {".".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(nnx.state(model))}
    params = {name: np.asarray(flat[f"{name}_blocks"]) for name in PACKED}
    params = {name: mxfp4.dequantize(blocks, np.asarray(flat[f"{name}_scales"])) for name, blocks in params.items()}
    plain = {name: value for name, value in flat.items() if not name.endswith(("_blocks", "_scales"))}
    return {name: jnp.asarray(value, jnp.float32) for name, value in {**plain, **params}.items()}


def rounded(params: Params) -> Params:
    """What a checkpoint keeps of the weights: experts in MXFP4, everything else in bfloat16."""
    kept = jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(jnp.bfloat16).astype(jnp.float32), params)
    return kept | {name: mxfp4.quantize(jnp.asarray(params[name])).dequantize(jnp.float32) for name in PACKED}


def export(params: Params, config: ModelConfig, tokenizer: Tokenizer, folder: str | Path) -> Path:
    """Write a checkpoint in the Hugging Face layout with its tokenizer; an existing folder's other files stay.

    Args:
      params: float weights.
      config: the model's numbers.
      tokenizer: its vocabulary.
      folder: replaced once the new one is complete; its ``README.md`` and other files are kept.

    Returns:
      The folder.
    """
    folder = Path(folder)
    kept = {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file()} if folder.is_dir() else {}
    fresh = folder.with_name(f"{folder.name}.new")
    checkpoint.save(to_model(params, config), fresh, tokenizer=tokenizer, overwrite=True, progress=False)
    special = tokenizer.special_tokens
    generation = {
        "bos_token_id": special["<|startoftext|>"],
        "do_sample": False,
        "eos_token_id": [special["<|return|>"], special["<|endoftext|>"], special["<|call|>"]],
        "pad_token_id": special["<|endoftext|>"],
    }
    (fresh / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    ids = json.dumps(vocabulary.o200k_ids(tokenizer), separators=(",", ":"))
    (fresh / "o200k_ids.json").write_text(ids + "\n", encoding="utf-8")
    for name, data in kept.items():
        if not (fresh / name).exists():
            (fresh / name).write_bytes(data)
    old = folder.with_name(f"{folder.name}.old")
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    for path in old.glob("*"):
        path.unlink()
    if old.exists():
        old.rmdir()
    return folder
