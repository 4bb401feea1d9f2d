"""MXFP4 codes, packing and rounding, against tables and plain float64."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gptoss_jax import mxfp4

EVERY_BYTE = np.tile(np.arange(256, dtype=np.uint8).reshape(16, 16), (256, 1, 1))  # [scale, group, 16]
EVERY_SCALE = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 16, axis=1)


def exact() -> np.ndarray:
    """Table times power of two in float64, rounded once: [256, 512]; scale 255 is NaN."""
    low, high = EVERY_BYTE & 15, EVERY_BYTE >> 4
    values = mxfp4.E2M1_VALUES.astype(np.float64)[np.stack([low, high], -1)].reshape(256, 16, 32)
    with np.errstate(over="ignore"):
        result = (values * np.exp2(EVERY_SCALE.astype(np.float64) - 127)[..., None]).astype(np.float32)
    return result.reshape(256, 512)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dequantize_is_exact_for_every_byte_and_scale(dtype, compiled):
    blocks, scales = EVERY_BYTE, EVERY_SCALE
    if compiled:
        values = jax.jit(mxfp4.dequantize, static_argnums=2)(jnp.asarray(blocks), jnp.asarray(scales), dtype)
    else:
        values = mxfp4.dequantize(blocks, scales, dtype)
    assert values.dtype == jnp.dtype(dtype)
    wide = np.asarray(values).astype(np.float32)
    # all bits, so that signed zeros and subnormals count
    assert np.array_equal(wide[:255].view(np.int32), exact()[:255].view(np.int32))
    assert np.isnan(wide[255]).all()


def test_low_nibble_comes_first():
    values = mxfp4.dequantize(np.array([[0x2A, 0x10, *[0] * 14]], np.uint8), np.array([130], np.uint8))
    assert values[:4].tolist() == [-8, 8, 0, 4]


def test_dequantize_equals_the_float4_type_of_ml_dtypes():
    codes = mxfp4.unpack(EVERY_BYTE[:1])
    table = codes.astype(np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    assert np.array_equal(mxfp4.E2M1_VALUES[codes], table)


@given(arrays(np.uint8, (3, 2, 64), elements=st.integers(0, 15)))
def test_pack_and_unpack_are_inverse(codes):
    assert np.array_equal(mxfp4.unpack(mxfp4.pack(codes)), codes)
    assert np.array_equal(np.asarray(mxfp4.unpack(mxfp4.pack(jnp.asarray(codes)))), codes)


def round_by_hand(group: np.ndarray) -> np.ndarray:
    """OCP MX v1.0 section 6.3 for one group, by search: nearest code, ties to the even code."""
    largest = np.abs(group).max()
    if largest == 0:
        return np.zeros_like(group)
    scale = 2.0 ** np.clip(np.floor(np.log2(largest)) - 2, -127, 127)
    result = []
    for v in np.abs(group.astype(np.float64)) / scale:
        distance = np.abs(mxfp4.E2M1_VALUES[:8] - v)
        nearest = np.flatnonzero(distance == distance.min())
        result.append(mxfp4.E2M1_VALUES[nearest[nearest % 2 == 0][0] if len(nearest) > 1 else nearest[0]])
    return np.copysign(np.array(result) * scale, group)


@settings(max_examples=200)
@given(arrays(np.float32, 32, elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False)))
def test_quantize_equals_rounding_by_hand(group):
    packed = mxfp4.quantize(group)
    assert np.array_equal(packed.dequantize(), round_by_hand(group).astype(np.float32))


def test_ties_go_to_even_and_overflow_saturates():
    midpoints = np.array([4, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -0.25, -5, 7.9, -7.9] + [0] * 20, np.float32)
    values = mxfp4.quantize(midpoints).dequantize()
    assert values[:12].tolist() == [4, 0, 1, 1, 2, 2, 4, 4, 0, -4, 6, -6]
    assert np.signbit(values[8])


def test_published_example_of_the_floor_rule():
    group = np.zeros(32, np.float32)
    group[:5] = [7, 1, -0.3, 5, 3.5]
    packed = mxfp4.quantize(group)
    assert packed.scales.tolist() == [127]
    assert packed.dequantize()[:5].tolist() == [6, 1, -0.5, 4, 4]


@given(arrays(np.uint8, (2, 3, 16)), st.integers(2, 250))
def test_quantizing_dequantized_values_changes_no_value(blocks, scale):
    values = mxfp4.dequantize(blocks, np.full((2, 3), scale, np.uint8))
    assert np.array_equal(mxfp4.quantize(values).dequantize(), values)


def test_compiled_and_numpy_quantize_agree_bit_for_bit():
    values = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32) * 10
    ours, compiled = mxfp4.quantize(values), jax.jit(mxfp4.quantize)(jnp.asarray(values))
    assert np.array_equal(ours.blocks, compiled.blocks)
    assert np.array_equal(ours.scales, compiled.scales)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_group_that_is_not_finite_becomes_nan_and_leaves_its_neighbors_alone(value):
    values = np.ones(64, np.float32)
    values[3] = value
    result = mxfp4.quantize(values).dequantize()
    assert np.isnan(result[:32]).all()
    assert (result[32:] == 1).all()


def test_extremes_of_the_scale():
    tiny, huge = np.full(32, 1e-45, np.float32), np.full(32, 3e38, np.float32)
    assert mxfp4.quantize(tiny).scales.tolist() == [0]
    assert np.isfinite(mxfp4.quantize(huge).dequantize()).all()
    assert mxfp4.quantize(np.zeros(32)).dequantize().tolist() == [0] * 32


@pytest.mark.parametrize("shape", [(31,), (4, 48), (0, 32), ()])
def test_quantize_refuses_an_axis_that_is_not_whole_groups(shape):
    with pytest.raises(ValueError, match="multiple of 32"):
        mxfp4.quantize(np.zeros(shape, np.float32))


def test_dequantize_refuses_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="blocks"):
        mxfp4.dequantize(np.zeros((2, 16), np.uint8), np.zeros(3, np.uint8))


def test_a_value_costs_four_and_a_quarter_bits():
    packed = mxfp4.quantize(np.ones((10, 320), np.float32))
    assert packed.nbytes * 8 / 3200 == 4.25
    assert packed.shape == (10, 320)
    assert packed[3].shape == (320,)
