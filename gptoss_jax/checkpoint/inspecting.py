"""`inspect`: what is in a checkpoint folder, from its headers alone."""

import collections
import dataclasses
from pathlib import Path

from gptoss_jax import roofline
from gptoss_jax.checkpoint.files import Tensor, read_folder
from gptoss_jax.checkpoint.folder import Checkpoint, find_layout
from gptoss_jax.checkpoint.memory import gib
from gptoss_jax.checkpoint.names import (
    DEQUANTIZED,
    Layout,
    differences,
    holds_dequantized_experts,
    is_packed,
    leaf_shapes,
    table,
)
from gptoss_jax.config import ModelConfig

_CONTEXT = 4096  # tokens; the cache is stated for this length


@dataclasses.dataclass(frozen=True)
class Inspection:
    """The contents of a checkpoint folder; `str` gives the text that the command line prints.

    Attributes:
      path, name: the folder.
      layout: ``huggingface`` or ``original``.
      config: from ``config.json``.
      files: (file name, bytes on disk) of the weight files.
      dtypes: {dtype: (tensors, bytes)}.
      num_tensors: tensors found.
      tensor_bytes: their bytes.
      total_parameters, active_parameters: of the model; active counts X of E experts and no input embedding.
      packed_parameters: those stored as MXFP4.
      memory: {dtype: bytes of the weights once loaded}.
      cache_bytes: bfloat16 keys and values for one sequence of 4,096 tokens.
      tokenizer: file name, or "".
      dequantized: True if the experts are not MXFP4; `convert` packs them.
      problems: what is missing, unexpected, or of another shape or dtype.
    """

    path: Path
    name: str
    layout: Layout
    config: ModelConfig
    files: list[tuple[str, int]]
    dtypes: dict[str, tuple[int, int]]
    num_tensors: int
    tensor_bytes: int
    total_parameters: int
    active_parameters: int
    packed_parameters: int
    memory: dict[str, int]
    cache_bytes: int
    tokenizer: str
    dequantized: bool
    problems: list[str]

    def __str__(self) -> str:
        c = self.config
        sliding = c.layer_types.count("sliding_attention")
        kinds = ", ".join(f"{dtype}: {count} tensors, {size:,} bytes" for dtype, (count, size) in self.dtypes.items())
        share = self.packed_parameters / self.total_parameters
        rows = [
            ("checkpoint", f"{self.name}  ({self.path})"),
            ("layout", self.layout + (", experts dequantized: pack them with convert" if self.dequantized else "")),
            ("model", f"{c.num_layers} layers ({sliding} sliding, window {c.sliding_window}), hidden {c.hidden_size}"),
            ("", f"{c.num_attention_heads} query heads, {c.num_key_value_heads} key/value heads of {c.head_dim}"),
            ("", f"{c.num_experts} experts of width {c.intermediate_size}, {c.experts_per_token} a token"),
            ("", f"vocabulary {c.vocab_size:,}, context {c.max_context:,}"),
            ("parameters", f"{self.total_parameters:,} in all, {self.active_parameters:,} active per token"),
            ("", f"{self.packed_parameters:,} ({share:.1%}) in MXFP4"),
            ("tensors", f"{self.num_tensors}, {self.tensor_bytes:,} bytes ({gib(self.tensor_bytes)})"),
            ("", kinds),
            *(("file" if i == 0 else "", f"{name}  {size:,} bytes") for i, (name, size) in enumerate(self.files)),
            ("memory", ", ".join(f"{gib(size)} with {dtype} weights" for dtype, size in self.memory.items())),
            ("", f"{gib(self.cache_bytes)} of cache for one sequence of {_CONTEXT:,} tokens (bfloat16)"),
            ("tokenizer", self.tokenizer or "none in this folder"),
            ("complete", "yes" if not self.problems else f"no, {len(self.problems)} problems"),
            *(("", problem) for problem in self.problems),
        ]
        return "\n".join(f"{label:<11} {text}" for label, text in rows)


def weight_bytes(config: ModelConfig, itemsize: int) -> int:
    """Memory of the loaded weights: packed experts as they are, norm scales float32, the rest `itemsize` bytes each."""
    size = 0
    for leaf, shape in leaf_shapes(config).items():
        count = 1
        for n in shape:
            count *= n
        size += count * (1 if is_packed(leaf) else 4 if leaf.endswith("norm.scale") else itemsize)
    return size


def _problems(config: ModelConfig, layout: Layout, tensors: dict[str, Tensor]) -> tuple[bool, list[str]]:
    """Whether the experts are dequantized, and what differs beside that."""
    parts = table(config, layout)
    dequantized = holds_dequantized_experts(set(tensors))
    if dequantized:
        expected = {pattern.format(n=n) for pattern in DEQUANTIZED.values() for n in range(config.num_layers)}
        tensors = {name: tensor for name, tensor in tensors.items() if name not in expected}
        parts = [part for part in parts if not is_packed(part.leaf)]
    return dequantized, differences(parts, tensors)


def inspect(path: str | Path) -> Inspection:
    """Read the headers and ``config.json`` of a folder in either layout, complete or not.

    Raises:
      CheckpointError: no folder, no readable safetensors file, or neither layout.
      ConfigError: the configuration cannot be run.
    """
    path = Path(path).expanduser()
    tensors = read_folder(path)
    layout = find_layout(path, tensors)
    config = ModelConfig.from_file(path / "config.json")
    dequantized, problems = _problems(config, layout, tensors)
    dtypes = collections.Counter(tensor.dtype for tensor in tensors.values())
    sizes = {dtype: sum(t.nbytes for t in tensors.values() if t.dtype == dtype) for dtype in dtypes}
    files = sorted({tensor.file for tensor in tensors.values()})
    found = [*path.glob("tokenizer.json"), *path.glob("*.tiktoken*")]
    parameters = roofline.parameters(config)
    return Inspection(
        path=path,
        name=Checkpoint(path, config, layout, [], tensors).name,
        layout=layout,
        config=config,
        files=[(file.name, file.stat().st_size) for file in files],
        dtypes={dtype: (dtypes[dtype], sizes[dtype]) for dtype in sorted(dtypes)},
        num_tensors=len(tensors),
        tensor_bytes=sum(sizes.values()),
        total_parameters=parameters.total,
        active_parameters=roofline.active_parameters(config),
        packed_parameters=parameters.packed,
        memory={"bfloat16": weight_bytes(config, 2), "float32": weight_bytes(config, 4)},
        cache_bytes=roofline.cache_bytes(config, _CONTEXT),
        tokenizer=found[0].name if found else "",
        dequantized=dequantized,
        problems=problems,
    )
