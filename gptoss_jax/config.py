"""The shape of a model: `ModelConfig`, the four presets, and the two spellings of ``config.json``.

Shape letters, used by every einsum, array suffix and docstring of the package:

======  ==================  ======  ============================  ======  =====================
B       batch               K       key/value head                E       expert
T       query position      G       query head per key/value head X       chosen expert
S       key position        H       head dimension                F       expert width
D       hidden size         V       vocabulary                    L       layer
======  ==================  ======  ============================  ======  =====================

Source of the facts: FACTS 1.1 and 1.2, restated where they are used.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

SLIDING = "sliding_attention"
FULL = "full_attention"
LayerType = Literal["sliding_attention", "full_attention"]
MXFP4_GROUP = 32  # values that share one scale: OCP MX v1.0, FACTS 4.1


class ConfigError(ValueError):
    """A configuration that this package cannot run, with the field and what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Every number that fixes the architecture.

    Attributes:
      num_layers: L.
      hidden_size: D, a multiple of 32.
      intermediate_size: F, a multiple of 32.
      head_dim: H, even; not derived from D (20b: 64, while 2880 / 64 = 45).
      num_attention_heads: query heads, K * G.
      num_key_value_heads: K.
      num_experts: E.
      experts_per_token: X.
      vocab_size: V, rows of the embedding.
      num_tokens: rows that a token owns; the rows above are padding and are never sampled.
      sliding_window: keys that a sliding layer sees, the query's own included.
      layer_types: one entry a layer, ``sliding_attention`` or ``full_attention``.
      rope_theta: base of the rotary frequencies.
      rope_factor: YaRN context extension; 1.0 is plain RoPE.
      rope_original_context: positions that the model saw before the extension.
      rope_beta_fast, rope_beta_slow: rotations within the original context above which a frequency is kept and
        below which it is interpolated (`rope.py`).
      max_context: the longest sequence.
      rms_norm_eps: added to the mean square.
      swiglu_limit, swiglu_alpha: clamp and slope of the activation (`experts.py`).
      eos_token_id, pad_token_id: written to config.json, used by nothing in the forward pass.
    """

    num_layers: int
    hidden_size: int
    intermediate_size: int
    head_dim: int
    num_attention_heads: int
    num_key_value_heads: int
    num_experts: int
    vocab_size: int
    layer_types: tuple[LayerType, ...] = ()
    experts_per_token: int = 4
    num_tokens: int = 0
    sliding_window: int = 128
    rope_theta: float = 150_000.0
    rope_factor: float = 32.0
    rope_original_context: int = 4096
    rope_beta_fast: float = 32.0
    rope_beta_slow: float = 1.0
    max_context: int = 131_072
    rms_norm_eps: float = 1e-5
    swiglu_limit: float = 7.0
    swiglu_alpha: float = 1.702
    eos_token_id: int = 200_002
    pad_token_id: int = 199_999

    def __post_init__(self) -> None:
        if not self.layer_types:  # the published models: even layers slide (FACTS 1.1)
            object.__setattr__(self, "layer_types", tuple((SLIDING, FULL)[i % 2] for i in range(self.num_layers)))
        if not self.num_tokens:
            object.__setattr__(self, "num_tokens", self.vocab_size)
        self._check()

    def _check(self) -> None:
        counts = (
            "num_layers hidden_size intermediate_size head_dim num_attention_heads num_key_value_heads num_experts "
            "vocab_size experts_per_token sliding_window rope_original_context max_context"
        )
        for name in counts.split():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} must be a positive integer, not {value!r}")
        for name in ("rope_theta", "rope_factor", "rope_beta_fast", "rope_beta_slow", "rms_norm_eps", "swiglu_limit"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
                raise ConfigError(f"{name} must be a positive number, not {value!r}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}: each key/value head serves the same number of query heads"
            )
        if self.head_dim % 2:
            raise ConfigError(f"head_dim {self.head_dim} is odd; rotary embedding rotates pairs")
        for name in ("hidden_size", "intermediate_size"):
            if getattr(self, name) % MXFP4_GROUP:
                raise ConfigError(f"{name} {getattr(self, name)} is not a multiple of {MXFP4_GROUP}, the MXFP4 group")
        if self.experts_per_token > self.num_experts:
            raise ConfigError(f"experts_per_token {self.experts_per_token} exceeds num_experts {self.num_experts}")
        if not 0 < self.num_tokens <= self.vocab_size:
            raise ConfigError(f"num_tokens {self.num_tokens} must lie in 1 .. vocab_size {self.vocab_size}")
        if len(self.layer_types) != self.num_layers:
            raise ConfigError(f"layer_types has {len(self.layer_types)} entries, num_layers is {self.num_layers}")
        for i, kind in enumerate(self.layer_types):
            if kind not in (SLIDING, FULL):
                raise ConfigError(f"layer_types[{i}] is {kind!r}; known: {SLIDING!r}, {FULL!r}")

    @property
    def group_size(self) -> int:
        """G, query heads per key/value head."""
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def period(self) -> int:
        """Length of the shortest block of layer types that repeats: 2 for sliding, full, sliding, full, ..."""
        n = self.num_layers
        return next(p for p in range(1, n + 1) if n % p == 0 and self.layer_types == self.layer_types[:p] * (n // p))

    @property
    def qkv_size(self) -> int:
        """Rows of the fused query, key and value projection."""
        return (self.num_attention_heads + 2 * self.num_key_value_heads) * self.head_dim

    def first_layers(self, count: int) -> "ModelConfig":
        """The same model cut after `count` layers."""
        if not 1 <= count <= self.num_layers:
            raise ConfigError(f"first_layers must lie in 1 .. {self.num_layers}, not {count}")
        return dataclasses.replace(self, num_layers=count, layer_types=self.layer_types[:count])

    def to_hf(self) -> dict[str, Any]:
        """The Hugging Face ``config.json`` (FACTS 1.2)."""
        return {
            "architectures": ["GptOssForCausalLM"],
            "model_type": "gpt_oss",
            "num_hidden_layers": self.num_layers,
            "num_local_experts": self.num_experts,
            "num_experts_per_tok": self.experts_per_token,
            "experts_per_token": self.experts_per_token,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "head_dim": self.head_dim,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "attention_bias": True,
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "swiglu_limit": self.swiglu_limit,
            "sliding_window": self.sliding_window,
            "layer_types": list(self.layer_types),
            "initial_context_length": self.rope_original_context,
            "max_position_embeddings": self.max_context,
            "rope_theta": self.rope_theta,
            "rope_scaling": {
                "beta_fast": self.rope_beta_fast,
                "beta_slow": self.rope_beta_slow,
                "factor": self.rope_factor,
                "original_max_position_embeddings": self.rope_original_context,
                "rope_type": "yarn",
                "truncate": False,
            },
            "rms_norm_eps": self.rms_norm_eps,
            "initializer_range": 0.02,
            "router_aux_loss_coef": 0.9,
            "output_router_logits": False,
            "tie_word_embeddings": False,
            "use_cache": True,
            "eos_token_id": self.eos_token_id,
            "pad_token_id": self.pad_token_id,
            "torch_dtype": "bfloat16",
            "quantization_config": {
                "quant_method": "mxfp4",
                "modules_to_not_convert": [
                    "model.layers.*.self_attn",
                    "model.layers.*.mlp.router",
                    "model.embed_tokens",
                    "lm_head",
                ],
            },
        }

    def to_original(self) -> dict[str, Any]:
        """OpenAI's ``original/config.json`` (FACTS 1.1)."""
        if self.layer_types != tuple((SLIDING, FULL)[i % 2] for i in range(self.num_layers)):
            raise ConfigError("the original layout can only express layers that alternate sliding, full, ...")
        return {
            "num_hidden_layers": self.num_layers,
            "num_experts": self.num_experts,
            "experts_per_token": self.experts_per_token,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "swiglu_limit": self.swiglu_limit,
            "head_dim": self.head_dim,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "sliding_window": self.sliding_window,
            "initial_context_length": self.rope_original_context,
            "rope_theta": self.rope_theta,
            "rope_scaling_factor": self.rope_factor,
            "rope_ntk_alpha": self.rope_beta_slow,
            "rope_ntk_beta": self.rope_beta_fast,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "ModelConfig":
        """Read either spelling of ``config.json``; unknown keys are ignored, missing ones named."""
        if not isinstance(fields, Mapping):
            raise ConfigError(f"config.json must hold an object, not {type(fields).__name__}")
        return _from_hf(fields) if "num_local_experts" in fields else _from_original(fields)

    @classmethod
    def from_file(cls, path: str | Path) -> "ModelConfig":
        """Read a ``config.json``; every error names the file."""
        path = Path(path)
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not valid JSON: {error}") from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None


def _need(fields: Mapping[str, Any], key: str) -> Any:
    if key not in fields:
        raise ConfigError(f"field {key!r} is missing")
    return fields[key]


_SAME_NAME = "vocab_size hidden_size intermediate_size head_dim num_attention_heads num_key_value_heads sliding_window"


def _from_original(fields: Mapping[str, Any]) -> ModelConfig:
    factor, context = _need(fields, "rope_scaling_factor"), _need(fields, "initial_context_length")
    return ModelConfig(
        num_layers=_need(fields, "num_hidden_layers"),
        num_experts=_need(fields, "num_experts"),
        experts_per_token=_need(fields, "experts_per_token"),
        **{key: _need(fields, key) for key in _SAME_NAME.split()},
        swiglu_limit=_need(fields, "swiglu_limit"),
        rope_theta=_need(fields, "rope_theta"),
        rope_factor=factor,
        rope_original_context=context,
        rope_beta_slow=_need(fields, "rope_ntk_alpha"),
        rope_beta_fast=_need(fields, "rope_ntk_beta"),
        max_context=round(context * factor),
    )


def _from_hf(fields: Mapping[str, Any]) -> ModelConfig:
    # transformers 5 renames rope_scaling and moves rope_theta into it (FACTS 1.2)
    rope = dict(fields.get("rope_parameters") or fields.get("rope_scaling") or {})
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "yarn":
        if rope.get("truncate") is not False:
            raise ConfigError(
                f"rope truncate is {rope.get('truncate', 'missing')!r}; gpt-oss needs \"truncate\": false. Without it "
                "transformers rounds the YaRN bounds and the positions drift; set it if this is a gpt-oss checkpoint"
            )
        for key in ("attention_factor", "mscale", "mscale_all_dim"):
            if rope.get(key) is not None:
                raise ConfigError(f"rope field {key!r} = {rope[key]!r} is not part of gpt-oss; remove it")
        yarn = {
            "rope_factor": _need(rope, "factor"),
            "rope_beta_fast": _need(rope, "beta_fast"),
            "rope_beta_slow": _need(rope, "beta_slow"),
            "rope_original_context": _need(rope, "original_max_position_embeddings"),
        }
    elif kind == "default":
        yarn = {"rope_factor": 1.0}
    else:
        raise ConfigError(f"rope_type {kind!r} is unknown; gpt-oss uses 'yarn'")
    for key, expected in (("tie_word_embeddings", False), ("attention_bias", True)):
        if fields.get(key, expected) is not expected:
            raise ConfigError(f"{key} is {fields[key]!r}; gpt-oss needs {expected}")
    optional = {"rms_norm_eps": "rms_norm_eps", "swiglu_limit": "swiglu_limit", "swiglu_alpha": "swiglu_alpha"}
    optional |= {"max_position_embeddings": "max_context", "pad_token_id": "pad_token_id"}
    eos = fields.get("eos_token_id")
    if isinstance(eos, list) and eos:
        eos = eos[0]
    return ModelConfig(
        num_layers=_need(fields, "num_hidden_layers"),
        num_experts=_need(fields, "num_local_experts"),
        experts_per_token=fields.get("num_experts_per_tok") or _need(fields, "experts_per_token"),
        **{key: _need(fields, key) for key in _SAME_NAME.split()},
        layer_types=tuple(fields.get("layer_types") or ()),
        rope_theta=rope.get("rope_theta") or _need(fields, "rope_theta"),
        **yarn,
        **{ours: fields[theirs] for theirs, ours in optional.items() if fields.get(theirs) is not None},
        **({} if eos is None else {"eos_token_id": eos}),
    )


GPT_OSS_20B = ModelConfig(
    num_layers=24,
    hidden_size=2880,
    intermediate_size=2880,
    head_dim=64,
    num_attention_heads=64,
    num_key_value_heads=8,
    num_experts=32,
    vocab_size=201_088,
)
GPT_OSS_120B = dataclasses.replace(GPT_OSS_20B, num_layers=36, layer_types=(), num_experts=128)
TINY = ModelConfig(
    num_layers=4,
    hidden_size=64,
    intermediate_size=96,
    head_dim=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    num_experts=8,
    vocab_size=320,
    sliding_window=8,
    max_context=4096 * 32,
    eos_token_id=319,
    pad_token_id=319,
)
