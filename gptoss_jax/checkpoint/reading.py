"""`load`: from a folder to a model that runs, touching each byte once."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptoss_jax.batched import Batched
from gptoss_jax.checkpoint.arranging import WORTH, read_arranged
from gptoss_jax.checkpoint.files import CheckpointError
from gptoss_jax.checkpoint.folder import open_checkpoint
from gptoss_jax.checkpoint.lazy import ExpertFiles, placeholder
from gptoss_jax.checkpoint.memory import available_memory
from gptoss_jax.checkpoint.names import is_of_experts
from gptoss_jax.checkpoint.placing import check_memory, place
from gptoss_jax.checkpoint.progress import byte_progress
from gptoss_jax.config import ModelConfig
from gptoss_jax.model import GptOss
from gptoss_jax.sharding import ExpertParallel, Placement
from gptoss_jax.tokenizer import Tokenizer

BUILT_IN_NAME = "gpt-oss-nano"
BUILT_IN = Path(__file__).parents[1] / "nano" / "weights"
DTYPES = ("float32", "bfloat16")
_LOG = logging.getLogger(__name__)


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


def load(
    path: str | Path | None = None,
    dtype: Any = None,
    *,
    param_dtype: Any = None,
    first_layers: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    lanes: bool | None = None,
    lazy_experts: bool = False,
    progress: bool | None = None,
) -> tuple[GptOss, Tokenizer | None]:
    """Read a checkpoint in either layout; experts stay packed, 4.25 bits a weight.

    Args:
      path: a folder with ``config.json`` and ``*.safetensors``; None is the built-in model.
      dtype: of the activations, ``float32`` or ``bfloat16``; default float32 for the built-in model and with `lanes`,
        else bfloat16.
      param_dtype: of the dense weights in memory; `dtype` if None, bfloat16 with `lanes`. Norm scales are float32.
      first_layers: load only so many layers, for small machines and for experiments.
      mesh: of `sharding.make_mesh`; each device's part is read on its own, and no process reads another's.
      lanes: lay the weights out for a CPU (see `gptoss_jax.lanes`): the same values and memory, many times faster.
        None does so on a CPU for a checkpoint of more than a gigabyte, unless `param_dtype` says float32.
      lazy_experts: leave the experts in the files and read one when a token chooses it; those used last stay in memory,
        up to half of what is free. For machines with less memory than weights; 3.6 GB of gpt-oss-20b are dense.
      progress: True shows a bar, False none, None one on a terminal if it takes long.

    Returns:
      (model, tokenizer); the tokenizer is None if the folder has none.

    Raises:
      CheckpointError: what is wrong with which file or tensor, or too little memory; nothing is half loaded.
      ConfigError: a configuration that cannot be run.
      MeshError: a mesh that does not divide the model, or a device that gets more than its plan.
    """
    if path is None and not BUILT_IN.is_dir():
        raise CheckpointError(f"the built-in model is missing from {BUILT_IN}; reinstall gptoss-jax or give a folder")
    checkpoint = open_checkpoint(BUILT_IN if path is None else path)
    if lazy_experts and mesh is not None:
        raise CheckpointError("lazy_experts reads experts on one machine: leave it out with a mesh")
    if lanes is None:
        large = sum(tensor.nbytes for tensor in checkpoint.tensors.values()) >= WORTH
        on_cpu = mesh is None and jax.local_devices()[0].platform == "cpu"
        lanes = large and on_cpu and (param_dtype is None or _dtype("param_dtype", param_dtype).name == "bfloat16")
    elif lanes and not (mesh is None and jax.local_devices()[0].platform == "cpu"):
        raise CheckpointError("lanes=True lays weights out for one CPU: leave it out with a mesh or an accelerator")
    dtype = _dtype("dtype", dtype or ("float32" if path is None or lanes else "bfloat16"))
    param_dtype = _dtype("param_dtype", param_dtype or ("bfloat16" if lanes else dtype))
    tokenizer = _find_tokenizer(checkpoint.path)
    config = checkpoint.config if first_layers is None else checkpoint.config.first_layers(first_layers)
    num_tokens = config.vocab_size if tokenizer is None else min(tokenizer.n_vocab, config.vocab_size)
    config = dataclasses.replace(config, num_tokens=num_tokens)
    graph, arrays, state = abstract_arrays(config, dtype, param_dtype)
    placement = None if mesh is None else Placement(config, mesh, param_dtype)
    alone = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    where = {leaf: placement(leaf) if placement else alone for leaf in arrays}
    stay = {leaf for leaf in arrays if lazy_experts and is_of_experts(leaf)}
    check_memory(str(checkpoint.path), {leaf: array for leaf, array in arrays.items() if leaf not in stay}, where)
    used = {
        part.name
        for part in checkpoint.parts
        if part.leaf not in stay and (part.layer is None or part.layer < config.num_layers)
    }
    total = sum(checkpoint.tensors[name].nbytes for name in used)
    try:
        with byte_progress(f"Loading {checkpoint.name}", total, progress) as advance:
            forget = 2 * total > (
                available_memory() or 2 * total
            )  # no room for the weights and for a cache of their files
            part = dataclasses.replace(checkpoint, config=config, forget=forget)
            filled = {}
            for leaf, array in arrays.items():
                if leaf in stay:
                    filled[leaf] = placeholder(array.shape, array.dtype)
                    continue
                if lanes:
                    filled[leaf] = jax.device_put(read_arranged(part, leaf, advance))
                    continue
                read = lambda index, leaf=leaf, dtype=array.dtype: part.read(leaf, index, dtype, advance)
                filled[leaf] = place(read, array.shape, array.dtype, where[leaf])
                if placement:
                    placement.count(leaf, filled[leaf])
    except MemoryError:
        raise CheckpointError(f"{checkpoint.path}: out of memory; use first_layers or a larger machine") from None
    for path_of, variable in nnx.to_flat_state(state):
        variable.set_value(filled[".".join(map(str, path_of))])
    model = nnx.merge(graph, state)
    model.name = (BUILT_IN_NAME if path is None else checkpoint.name) + (
        "" if first_layers is None else f" (first {first_layers} layers)"
    )
    model.checkpoint_hash = checkpoint.fingerprint()
    if lazy_experts:
        free = available_memory() or 0
        model.dispatch = ExpertFiles(dataclasses.replace(checkpoint, config=config), lanes, param_dtype, free // 2)
    elif placement:
        model.dispatch = ExpertParallel(config, placement.mesh)
        _LOG.info("%s", placement.report())
    elif jax.local_devices()[0].platform != "cpu":
        model.dispatch = Batched(config)
    return model, tokenizer
