"""`roofline` against the published figures, and against counting by hand on a small model."""

import pytest

from gptoss_jax import roofline
from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B, TINY

B20, B120 = GPT_OSS_20B, GPT_OSS_120B


@pytest.mark.parametrize(
    ("config", "total", "active", "packed", "stored"),
    [
        (B20, 20_914_757_184, 3_608_307_264, 19_110_297_600, 13_761_264_768),
        (B120, 116_829_156_672, 5_132_849_472, 114_661_785_600, 65_248_815_744),
    ],
    ids=["20b", "120b"],
)
def test_published_models(config, total, active, packed, stored):
    count = roofline.parameters(config)
    assert (count.total, count.packed) == (total, packed)
    assert roofline.active_parameters(config) == active
    assert roofline.checkpoint_bytes(config) == stored


def test_parts_of_the_published_models():
    small, large = roofline.parameters(B20), roofline.parameters(B120)
    assert small.embedding == small.unembedding == large.embedding == 579_133_440
    assert (small.attention, large.attention) == (637_203_456, 955_805_184)
    assert small.router + small.experts == 19_119_145_728
    assert large.router + large.experts == 114_714_874_368
    assert round(roofline.checkpoint_bytes(B20) / roofline.GIB, 3) == 12.816
    assert round(roofline.checkpoint_bytes(B120) / roofline.GIB, 3) == 60.768
    assert float(8 * roofline.MXFP4_BYTES) == 4.25


def test_counts_are_the_sizes_of_the_tensors():
    c = TINY
    shapes = {
        "embedding": [(c.vocab_size, c.hidden_size)],
        "attention": [
            (c.qkv_size, c.hidden_size),
            (c.qkv_size,),
            (c.hidden_size, c.num_attention_heads * c.head_dim),
            (c.hidden_size,),
            (c.num_attention_heads,),
        ],
        "router": [(c.num_experts, c.hidden_size), (c.num_experts,)],
        "experts": [
            (c.num_experts, 2 * c.intermediate_size, c.hidden_size),
            (c.num_experts, 2 * c.intermediate_size),
            (c.num_experts, c.hidden_size, c.intermediate_size),
            (c.num_experts, c.hidden_size),
        ],
    }
    count = roofline.parameters(c)
    for part, tensors in shapes.items():
        layers = 1 if part == "embedding" else c.num_layers
        product = 0
        for shape in tensors:
            size = 1
            for n in shape:
                size *= n
            product += size
        assert getattr(count, part) == layers * product, part
    assert count.norms == (2 * c.num_layers + 1) * c.hidden_size


@pytest.mark.parametrize(("config", "kib", "gib"), [(B20, 48, 6.0), (B120, 72, 9.0)], ids=["20b", "120b"])
def test_cache(config, kib, gib):
    assert roofline.cache_bytes(config, 1) == kib * 1024
    full = roofline.cache_bytes(config, 131_072, ring=False)
    assert full == gib * roofline.GIB
    ringed = roofline.cache_bytes(config, 131_072)
    assert 0.5 * full < ringed < 0.501 * full
    assert roofline.cache_bytes(config, 100, itemsize=4) == 2 * roofline.cache_bytes(config, 100)
    assert roofline.cache_bytes(config, 128) == roofline.cache_bytes(config, 128, ring=False)
    assert roofline.cache_bytes(config, 129) < roofline.cache_bytes(config, 129, ring=False)


def test_decoding_reads_the_active_weights():
    read = roofline.decode_bytes(B20, 0)
    active, packed = roofline.active_parameters(B20), B20.num_layers * 4 * 3 * 2880 * 2880
    assert read == 2 * (active - packed) + packed * 17 // 32 + 2 * 2880
    assert roofline.decode_bytes(B20, 1000) - read == roofline.cache_bytes(B20, 1000)
    stored = roofline.checkpoint_bytes(B20)
    large = roofline.decode_bytes(B20, 0, batch=512)
    assert read < large < stored, "no batch reads more than the whole model"
    assert large > 0.9 * (stored - 2 * 579_133_440)


def test_flops():
    assert roofline.decode_flops(B20, 0) == 2 * 3_608_307_264 + 4 * 4096 * 24
    grow = roofline.decode_flops(B20, 1001) - roofline.decode_flops(B20, 1000)
    assert grow == 4 * 4096 * 12, "beyond the window only the twelve full layers grow"


def test_roofline_takes_the_slower_bound():
    slow_memory = roofline.seconds_per_token(B20, 0, bytes_per_second=1e9, flops_per_second=1e20)
    slow_arithmetic = roofline.seconds_per_token(B20, 0, bytes_per_second=1e20, flops_per_second=1e9)
    assert slow_memory == pytest.approx(roofline.decode_bytes(B20, 0) / 1e9)
    assert slow_arithmetic == pytest.approx(roofline.decode_flops(B20, 0) / 1e9)


@pytest.mark.parametrize("name", ["bytes_per_second", "flops_per_second", "batch"])
def test_bad_machine(name):
    machine = {"bytes_per_second": 1e9, "flops_per_second": 1e9, "batch": 1} | {name: 0}
    with pytest.raises(ValueError, match=name):
        roofline.seconds_per_token(B20, 0, **machine)


def test_bad_context():
    with pytest.raises(ValueError, match="-1"):
        roofline.cache_bytes(B20, -1)
