"""Random models at the published sizes, for ours and for the peers: a few layers, in memory or in a GGUF file."""

import sys
from pathlib import Path

import numpy as np

SEED = 0
_PERIOD = (1 << 22) - 17  # random values made; an array repeats them, which no memory or processor notices


def ours(layers: int):
    """The first `layers` layers of gpt-oss-20b with random weights, laid out as `load` lays them out on a CPU."""
    import jax
    import jax.numpy as jnp
    import ml_dtypes
    from flax import nnx

    from gptoss_jax import lanes
    from gptoss_jax.config import GPT_OSS_20B
    from gptoss_jax.model import GptOss

    config = GPT_OSS_20B.first_layers(layers)
    model = nnx.eval_shape(lambda: GptOss(config, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(model)
    rng = np.random.default_rng(SEED)
    for path, variable in nnx.to_flat_state(state):
        leaf, dtype = ".".join(map(str, path)), None
        dtype = lanes.arranged_dtype(leaf)
        if leaf.endswith("_blocks"):
            values = rng.integers(0, 1 << 16, _PERIOD, dtype=np.uint16)
        elif leaf.endswith("_scales"):
            values = rng.integers(119, 122, _PERIOD, dtype=np.uint8)
        elif leaf.endswith("norm.scale"):
            values = np.ones(1, np.float32)
        else:
            values = (0.02 * rng.standard_normal(_PERIOD, dtype=np.float32)).astype(ml_dtypes.bfloat16)
            values = values.view(np.uint16) if dtype == np.uint16 else values.astype(np.float32)
        shape = lanes.arranged_shape(leaf, variable.get_value().shape)
        variable.set_value(jax.block_until_ready(jax.device_put(np.resize(values, shape))))
    return nnx.merge(graph, state)


def write_gguf(path: Path, layers: int, dense_type: str) -> None:
    """The same slice for llama.cpp: experts in MXFP4, dense weights in `dense_type`, ``Q8_0`` or ``BF16``."""
    import gguf
    from gguf import GGMLQuantizationType

    D, F, E, N, K, H, V = 2880, 2880, 32, 64, 8, 64, 201_088
    rng = np.random.default_rng(SEED)
    normal = 0.02 * rng.standard_normal(_PERIOD, dtype=np.float32)
    codes = rng.integers(0, 256, _PERIOD, dtype=np.uint8)
    kind = GGMLQuantizationType[dense_type]
    partial = path.with_suffix(".partial")
    out = gguf.GGUFWriter(partial, "gpt-oss", use_temp_file=True)
    out.add_name("slice")
    for name, value in {
        "block_count": layers,
        "context_length": 131_072,
        "embedding_length": D,
        "feed_forward_length": F,
        "expert_feed_forward_length": F,
        "expert_count": E,
        "expert_used_count": 4,
        "head_count": N,
        "head_count_kv": K,
        "key_length": H,
        "value_length": H,
        "layer_norm_rms_eps": 1e-5,
        "sliding_window": 128,
        "rope_freq_base": 150_000.0,
        "rope_dimension_count": H,
        "rope_scaling_type": gguf.RopeScalingType.YARN,
        "rope_scaling_factor": 32.0,
        "rope_scaling_orig_ctx_len": 4096,
        "vocab_size": V,
        "tokenizer_model": "gpt2",
        "tokenizer_pre": "gpt-4o",
        "token_list": [f"t{i}" for i in range(V)],
        "token_types": [1] * V,
        "token_merges": ["t 1"],
        "bos_token_id": V - 2,
        "eos_token_id": V - 1,
    }.items():
        getattr(out, f"add_{name}")(value)

    def dense(name: str, *shape: int) -> None:
        out.add_tensor(name, gguf.quants.quantize(np.resize(normal, shape), kind), raw_dtype=kind)

    def vector(name: str, *shape: int, ones: bool = False) -> None:
        out.add_tensor(name, np.ones(shape, np.float32) if ones else np.resize(normal, shape))

    def packed(name: str, rows: int, inputs: int) -> None:
        blocks = np.resize(codes, (E, rows, inputs // 32, 17))
        blocks[..., 0] = 120
        out.add_tensor(name, blocks.reshape(E, rows, -1), raw_dtype=GGMLQuantizationType.MXFP4)

    dense("token_embd.weight", V, D)
    dense("output.weight", V, D)
    vector("output_norm.weight", D, ones=True)
    for n in range(layers):
        block = f"blk.{n}."
        vector(f"{block}attn_norm.weight", D, ones=True)
        vector(f"{block}post_attention_norm.weight", D, ones=True)
        for name, rows in (("q", N * H), ("k", K * H), ("v", K * H)):
            dense(f"{block}attn_{name}.weight", rows, D)
            vector(f"{block}attn_{name}.bias", rows)
        dense(f"{block}attn_output.weight", D, N * H)
        vector(f"{block}attn_output.bias", D)
        vector(f"{block}attn_sinks.weight", N)
        vector(f"{block}ffn_gate_inp.weight", E, D)
        vector(f"{block}ffn_gate_inp.bias", E)
        for name, rows, inputs in (("gate", F, D), ("up", F, D), ("down", D, F)):
            packed(f"{block}ffn_{name}_exps.weight", rows, inputs)
            vector(f"{block}ffn_{name}_exps.bias", E, rows)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    partial.rename(path)


if __name__ == "__main__":
    write_gguf(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
