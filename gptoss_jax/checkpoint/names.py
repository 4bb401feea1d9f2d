"""The one name map: which tensors of either layout make up which array of the model.

The model keeps one array per kind of weight, stacked over layers, in the orientation of the files ([out, in], gate and
up rows interleaved). A row of the table is a `Part`: one tensor on disk and the rows of the model's array that it
fills. Names and shapes: openai/gpt-oss ``torch/weights.py`` and the Hugging Face conversion script of gpt_oss.
"""

import dataclasses
import math
from typing import Literal

from gptoss_jax.checkpoint.files import CheckpointError, Tensor
from gptoss_jax.config import MXFP4_GROUP, ModelConfig

Layout = Literal["huggingface", "original"]
LAYOUTS: tuple[Layout, ...] = ("huggingface", "original")
FLOAT, PACKED = "BF16", "U8"
FLOATS = ("BF16", "F16", "F32")


@dataclasses.dataclass(frozen=True)
class Part:
    """One tensor on disk.

    Attributes:
      leaf: the model's array, as in ``blocks.attention.qkv.weight``.
      layer: index into the array's first axis; None for arrays that are not stacked.
      rows: (first, end) of the next axis that this tensor fills.
      name: in the file.
      shape: in the file; the first axis is the rows'.
      dtype: in the file, ``BF16`` or ``U8``.
    """

    leaf: str
    layer: int | None
    rows: tuple[int, int]
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return math.prod(self.shape) * (1 if self.dtype == PACKED else 2)


# leaf: (name in the Hugging Face layout, name in the original layout); {n} is the layer. The order is that of the
# published files, so that shards break where theirs do.
_LAYER = {
    "attention.norm.scale": ("input_layernorm.weight", "attn.norm.scale"),
    "attention.out.bias": ("self_attn.o_proj.bias", "attn.out.bias"),
    "attention.out.weight": ("self_attn.o_proj.weight", "attn.out.weight"),
    "attention.qkv.bias": ("self_attn.{qkv}_proj.bias", "attn.qkv.bias"),
    "attention.qkv.weight": ("self_attn.{qkv}_proj.weight", "attn.qkv.weight"),
    "attention.sinks": ("self_attn.sinks", "attn.sinks"),
    "mlp.router.bias": ("mlp.router.bias", "mlp.gate.bias"),
    "mlp.router.weight": ("mlp.router.weight", "mlp.gate.weight"),
    "mlp.experts.gate_up_bias": ("mlp.experts.gate_up_proj_bias", "mlp.mlp1_bias"),
    "mlp.experts.gate_up_blocks": ("mlp.experts.gate_up_proj_blocks", "mlp.mlp1_weight.blocks"),
    "mlp.experts.gate_up_scales": ("mlp.experts.gate_up_proj_scales", "mlp.mlp1_weight.scales"),
    "mlp.experts.down_bias": ("mlp.experts.down_proj_bias", "mlp.mlp2_bias"),
    "mlp.experts.down_blocks": ("mlp.experts.down_proj_blocks", "mlp.mlp2_weight.blocks"),
    "mlp.experts.down_scales": ("mlp.experts.down_proj_scales", "mlp.mlp2_weight.scales"),
    "mlp.norm.scale": ("post_attention_layernorm.weight", "mlp.norm.scale"),
}
_LAST = {
    "embedding.weight": ("model.embed_tokens.weight", "embedding.weight"),
    "norm.scale": ("model.norm.weight", "norm.scale"),
    "unembedding.weight": ("lm_head.weight", "unembedding.weight"),
}
_PREFIX = ("model.layers.{n}.", "block.{n}.")
# Community checkpoints with dequantized experts: [E, in, out], the transpose of the packed [E, out, in]
DEQUANTIZED = {
    "blocks.mlp.experts.gate_up": "model.layers.{n}.mlp.experts.gate_up_proj",
    "blocks.mlp.experts.down": "model.layers.{n}.mlp.experts.down_proj",
}


def leaf_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every array of the model, in the order of the forward pass; arrays of uint8 end in blocks or scales."""
    c = config
    L, D, F, E, V = c.num_layers, c.hidden_size, c.intermediate_size, c.num_experts, c.vocab_size
    heads, gates = c.num_attention_heads * c.head_dim, 2 * F
    of_layer = {
        "attention.norm.scale": (D,),
        "attention.qkv.weight": (c.qkv_size, D),
        "attention.qkv.bias": (c.qkv_size,),
        "attention.sinks": (c.num_attention_heads,),
        "attention.out.weight": (D, heads),
        "attention.out.bias": (D,),
        "mlp.norm.scale": (D,),
        "mlp.router.weight": (E, D),
        "mlp.router.bias": (E,),
        "mlp.experts.gate_up_blocks": (E, gates, D // MXFP4_GROUP, MXFP4_GROUP // 2),
        "mlp.experts.gate_up_scales": (E, gates, D // MXFP4_GROUP),
        "mlp.experts.gate_up_bias": (E, gates),
        "mlp.experts.down_blocks": (E, D, F // MXFP4_GROUP, MXFP4_GROUP // 2),
        "mlp.experts.down_scales": (E, D, F // MXFP4_GROUP),
        "mlp.experts.down_bias": (E, D),
    }
    return {
        "embedding.weight": (V, D),
        **{f"blocks.{leaf}": (L, *shape) for leaf, shape in of_layer.items()},
        "norm.scale": (D,),
        "unembedding.weight": (V, D),
    }


def is_packed(leaf: str) -> bool:
    """True for MXFP4 bytes, which stay uint8 from the file to the compiled program."""
    return leaf.endswith(("_blocks", "_scales"))


EXPERTS = "blocks.mlp.experts."


def is_of_experts(leaf: str) -> bool:
    """True for the arrays that lie expert by expert: blocks, scales and biases."""
    return leaf.startswith(EXPERTS)


def _parts_of(leaf: str, layer: int | None, name: str, shape: tuple[int, ...], config: ModelConfig) -> list[Part]:
    dtype = PACKED if is_packed(leaf) else FLOAT
    if "{qkv}" not in name:
        return [Part(leaf, layer, (0, shape[0]), name, shape, dtype)]
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    bounds = {"q": (0, q), "k": (q, q + kv), "v": (q + kv, q + 2 * kv)}
    return [
        Part(leaf, layer, rows, name.replace("{qkv}", letter), (rows[1] - rows[0], *shape[1:]), dtype)
        for letter, rows in bounds.items()
    ]


def table(config: ModelConfig, layout: Layout) -> list[Part]:
    """Every tensor of a checkpoint: 19 L + 3 parts in the Hugging Face layout, 15 L + 3 in the original one."""
    if layout not in LAYOUTS:
        raise CheckpointError(f"layout {layout!r} is unknown; choose one of {', '.join(map(repr, LAYOUTS))}")
    column = LAYOUTS.index(layout)
    shapes = leaf_shapes(config)
    parts: list[Part] = []
    for n in sorted(range(config.num_layers), key=str):  # 0, 1, 10, 11, ..., 2, 20: as published
        for leaf, names in _LAYER.items():
            leaf, name = f"blocks.{leaf}", _PREFIX[column].format(n=n) + names[column]
            parts += _parts_of(leaf, n, name, shapes[leaf][1:], config)
    for leaf, names in _LAST.items():
        parts += _parts_of(leaf, None, names[column], shapes[leaf], config)
    return parts


def detect_layout(names: set[str]) -> Layout | None:
    """The layout that tensor names belong to, None for neither."""
    marks: dict[Layout, tuple[str, ...]] = {
        "huggingface": ("model.layers.", "model.embed_tokens.", "lm_head."),
        "original": ("block.", "embedding.", "unembedding."),
    }
    counts: dict[Layout, int] = {layout: sum(n.startswith(marks[layout]) for n in names) for layout in LAYOUTS}
    best = max(LAYOUTS, key=lambda layout: counts[layout])
    return best if counts[best] else None


def holds_dequantized_experts(names: set[str]) -> bool:
    """True if the experts are plain, transposed matrices instead of MXFP4 blocks and scales."""
    return any(pattern.format(n=0) in names for pattern in DEQUANTIZED.values())


def differences(parts: list[Part], tensors: dict[str, Tensor], *, any_float: bool = False) -> list[str]:
    """What keeps `tensors` from being the checkpoint of `parts`: one sentence a tensor, empty if nothing does.

    The published dtype is asked for, except that norm scales may be float32: transformers holds and saves them so.
    With `any_float`, float16 and float32 pass for bfloat16 everywhere.
    """
    found = []
    for part in parts:
        tensor = tensors.get(part.name)
        expected = f"{part.dtype} {list(part.shape)}"
        if tensor is None:
            found.append(f"tensor {part.name!r} is missing (expected {expected})")
        elif tensor.shape != part.shape:
            found.append(
                f"{tensor.file.name}: tensor {part.name!r} has shape {list(tensor.shape)}, expected {expected}"
            )
        elif tensor.dtype not in _accepted(part, any_float):
            found.append(f"{tensor.file.name}: tensor {part.name!r} has dtype {tensor.dtype}, expected {expected}")
    known = {part.name for part in parts}
    found += [f"{t.file.name}: unexpected tensor {name!r}" for name, t in tensors.items() if name not in known]
    return found


def _accepted(part: Part, any_float: bool) -> tuple[str, ...]:
    if part.dtype == PACKED:
        return (PACKED,)
    return FLOATS if any_float else (FLOAT, "F32") if part.leaf.endswith("norm.scale") else (FLOAT,)
