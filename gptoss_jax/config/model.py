"""`ModelConfig`, checked at construction, and the presets."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from gptoss_jax.config import spellings
from gptoss_jax.config.spellings import FULL, SLIDING, ConfigError

LayerType = Literal["sliding_attention", "full_attention"]
MXFP4_GROUP = 32  # values that share one scale: OCP MX v1.0, FACTS 4.1
MAX_LAYERS = 10_000  # beyond any model; a corrupt number must not fill the memory


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
        if not isinstance(self.num_layers, int) or not 0 < self.num_layers <= MAX_LAYERS:
            raise ConfigError(f"num_layers must be an integer in 1 .. {MAX_LAYERS}, not {self.num_layers!r}")
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
        """The Hugging Face ``config.json``."""
        return spellings.to_hf(self)

    def to_original(self) -> dict[str, Any]:
        """OpenAI's ``original/config.json``; it can only express layers that alternate sliding, full, ..."""
        return spellings.to_original(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "ModelConfig":
        """Read either spelling of ``config.json``; unknown keys are ignored, missing ones named."""
        if not isinstance(fields, Mapping):
            raise ConfigError(f"config.json must hold an object, not {type(fields).__name__}")
        read = spellings.from_hf if "num_local_experts" in fields else spellings.from_original
        return cls(**read(fields))

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
