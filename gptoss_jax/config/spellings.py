"""The two spellings of ``config.json``: Hugging Face (FACTS 1.2) and OpenAI's original (FACTS 1.1)."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gptoss_jax.config.model import ModelConfig

SLIDING = "sliding_attention"
FULL = "full_attention"


class ConfigError(ValueError):
    """A configuration that this package cannot run, with the field and what to do."""


def to_hf(config: "ModelConfig") -> dict[str, Any]:
    """The Hugging Face ``config.json`` (FACTS 1.2)."""
    return {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "num_hidden_layers": config.num_layers,
        "num_local_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
        "experts_per_token": config.experts_per_token,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "head_dim": config.head_dim,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "attention_bias": True,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "swiglu_limit": config.swiglu_limit,
        "sliding_window": config.sliding_window,
        "layer_types": list(config.layer_types),
        "initial_context_length": config.rope_original_context,
        "max_position_embeddings": config.max_context,
        "rope_theta": config.rope_theta,
        "rope_scaling": {
            "beta_fast": config.rope_beta_fast,
            "beta_slow": config.rope_beta_slow,
            "factor": config.rope_factor,
            "original_max_position_embeddings": config.rope_original_context,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rms_norm_eps": config.rms_norm_eps,
        "initializer_range": 0.02,
        "router_aux_loss_coef": 0.9,
        "output_router_logits": False,
        "tie_word_embeddings": False,
        "use_cache": True,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
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


def to_original(config: "ModelConfig") -> dict[str, Any]:
    """OpenAI's ``original/config.json`` (FACTS 1.1)."""
    if config.layer_types != tuple((SLIDING, FULL)[i % 2] for i in range(config.num_layers)):
        raise ConfigError("the original layout can only express layers that alternate sliding, full, ...")
    return {
        "num_hidden_layers": config.num_layers,
        "num_experts": config.num_experts,
        "experts_per_token": config.experts_per_token,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "swiglu_limit": config.swiglu_limit,
        "head_dim": config.head_dim,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "sliding_window": config.sliding_window,
        "initial_context_length": config.rope_original_context,
        "rope_theta": config.rope_theta,
        "rope_scaling_factor": config.rope_factor,
        "rope_ntk_alpha": config.rope_beta_slow,
        "rope_ntk_beta": config.rope_beta_fast,
    }


def _need(fields: Mapping[str, Any], key: str) -> Any:
    if key not in fields:
        raise ConfigError(f"field {key!r} is missing")
    return fields[key]


_SAME_NAME = "vocab_size hidden_size intermediate_size head_dim num_attention_heads num_key_value_heads sliding_window"


def from_original(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `ModelConfig` from an ``original/config.json``."""
    factor, context = _need(fields, "rope_scaling_factor"), _need(fields, "initial_context_length")
    for key in ("rope_scaling_factor", "initial_context_length"):
        if not isinstance(fields[key], int | float) or not math.isfinite(fields[key]) or fields[key] > 1e9:
            raise ConfigError(f"{key} must be a positive number, not {fields[key]!r}")
    return dict(
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


def from_hf(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `ModelConfig` from a Hugging Face ``config.json``, transformers 5's spelling included."""
    # transformers 5 renames rope_scaling and moves rope_theta into it (FACTS 1.2)
    if not {"rope_parameters", "rope_scaling"} & fields.keys():
        raise ConfigError("field 'rope_scaling' (transformers 5: 'rope_parameters') is missing")
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ConfigError(f"rope_scaling must be an object, not {rope!r}")
    layer_types = fields.get("layer_types") or []
    if not isinstance(layer_types, list):
        raise ConfigError(f"layer_types must be a list, not {layer_types!r}")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "yarn":
        if rope.get("truncate") is not False:
            raise ConfigError(
                f'rope truncate is {rope.get("truncate", "missing")!r}; gpt-oss needs "truncate": false. Without it '
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
    return dict(
        num_layers=_need(fields, "num_hidden_layers"),
        num_experts=_need(fields, "num_local_experts"),
        experts_per_token=fields.get("num_experts_per_tok") or _need(fields, "experts_per_token"),
        **{key: _need(fields, key) for key in _SAME_NAME.split()},
        layer_types=tuple(layer_types),
        rope_theta=rope.get("rope_theta") or _need(fields, "rope_theta"),
        **yarn,
        **{ours: fields[theirs] for theirs, ours in optional.items() if fields.get(theirs) is not None},
        **({} if eos is None else {"eos_token_id": eos}),
    )
