"""Both spellings of config.json, and every field that cannot be run."""

import dataclasses
import json

import pytest

from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B, TINY, ConfigError, ModelConfig


def hf(**changes):
    return GPT_OSS_20B.to_hf() | changes


@pytest.mark.parametrize("config", [GPT_OSS_20B, GPT_OSS_120B, TINY])
def test_both_spellings_round_trip(config):
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_hf()))) == config
    original = ModelConfig.from_dict(json.loads(json.dumps(config.to_original())))
    same = {"eos_token_id": config.eos_token_id, "pad_token_id": config.pad_token_id}
    assert dataclasses.replace(original, **same) == config


def test_published_numbers():
    assert GPT_OSS_20B.layer_types[:2] == ("sliding_attention", "full_attention")
    assert (GPT_OSS_20B.group_size, GPT_OSS_20B.qkv_size, GPT_OSS_20B.period) == (8, 5120, 2)
    assert (GPT_OSS_120B.num_layers, GPT_OSS_120B.num_experts, len(GPT_OSS_120B.layer_types)) == (36, 128, 36)
    assert ModelConfig.from_dict(GPT_OSS_20B.to_original()).max_context == 131_072


def test_transformers_5_spelling():
    fields = hf()
    fields["rope_parameters"] = fields.pop("rope_scaling") | {"rope_theta": fields.pop("rope_theta")}
    assert ModelConfig.from_dict(fields) == GPT_OSS_20B


def test_hidden_over_heads_is_never_the_head_dim():
    fields = hf()
    del fields["head_dim"]
    with pytest.raises(ConfigError, match="head_dim"):
        ModelConfig.from_dict(fields)


ROPE = GPT_OSS_20B.to_hf()["rope_scaling"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_scaling": {**ROPE, "rope_type": "llama3"}}, "rope_type 'llama3'"),
        ({"rope_scaling": {k: v for k, v in ROPE.items() if k != "truncate"}}, "truncate is 'missing'"),
        ({"rope_scaling": {**ROPE, "truncate": True}}, "truncate is True"),
        ({"rope_scaling": {k: v for k, v in ROPE.items() if k != "factor"}}, "'factor' is missing"),
        ({"rope_scaling": {**ROPE, "mscale": 2.0}}, "mscale"),
        ({"num_key_value_heads": 7}, "num_key_value_heads 7"),
        ({"hidden_size": 2890}, "hidden_size 2890"),
        ({"intermediate_size": 100}, "intermediate_size 100"),
        ({"head_dim": 63}, "head_dim 63"),
        ({"num_hidden_layers": 3}, "layer_types has 24"),
        ({"layer_types": ["sliding_attention"] * 23 + ["linear"]}, r"layer_types\[23\] is 'linear'"),
        ({"num_experts_per_tok": 33}, "experts_per_token 33"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_hidden_layers": True}, "num_layers"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"attention_bias": False}, "attention_bias"),
    ],
)
def test_what_cannot_be_run_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(hf(**changes))


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00", '"x"'])
def test_files_that_are_not_a_config_are_named(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        ModelConfig.from_file(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        ModelConfig.from_file(tmp_path / "config.json")


def test_the_original_layout_cannot_hold_other_patterns():
    odd = dataclasses.replace(TINY, layer_types=("full_attention",) * 4)
    with pytest.raises(ConfigError, match="alternate"):
        odd.to_original()


def test_first_layers():
    assert GPT_OSS_20B.first_layers(3).layer_types == GPT_OSS_20B.layer_types[:3]
    with pytest.raises(ConfigError, match="first_layers"):
        GPT_OSS_20B.first_layers(25)
