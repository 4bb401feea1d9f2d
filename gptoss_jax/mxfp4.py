"""MXFP4: 4-bit values in groups of 32 that share one power-of-two scale.

One value is E2M1 (sign, two exponent bits, one mantissa bit), one scale is E8M0 (a byte, 2^(byte - 127)). A group of
32 values costs 16 bytes and one scale: 4.25 bits a value. Sources: OCP Microscaling Formats (MX) v1.0; storage order
as in the published gpt-oss checkpoints (FACTS 4).

Every function takes NumPy or JAX arrays and answers in kind, so that files are converted without a device and the
compiled model unpacks inside its own program.
"""

import dataclasses
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

GROUP = 32  # values per scale
BYTES = GROUP // 2  # two codes in a byte
SCALE_BIAS = 127
SCALE_NAN = 255  # E8M0 has one NaN and neither zero nor infinity
E2M1_MAX_EXPONENT = 2  # the largest magnitude, 6, is 1.5 * 2^2
E2M1_VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MXArray:
    """A packed array of logical shape ``[..., groups * 32]``.

    Attributes:
      blocks: uint8 [..., groups, 16]; byte b holds elements 2b (low nibble) and 2b + 1 (high nibble).
      scales: uint8 [..., groups].
    """

    blocks: Any
    scales: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return (*self.scales.shape[:-1], self.scales.shape[-1] * GROUP)

    @property
    def nbytes(self) -> int:
        """Bytes in memory: 17 for every 32 values."""
        return int(self.blocks.size + self.scales.size)

    def __getitem__(self, index: Any) -> "MXArray":
        """Index the leading axes, as in ``packed[expert]``."""
        return MXArray(self.blocks[index], self.scales[index])

    def dequantize(self, dtype: Any = jnp.float32) -> Any:
        """The values, ``dtype [..., groups * 32]``; exact in float32 and bfloat16."""
        return dequantize(self.blocks, self.scales, dtype)


def _namespace(array: Any) -> ModuleType:
    return np if isinstance(array, np.ndarray | np.generic | list | tuple | float | int) else jnp


def unpack(blocks: Any) -> Any:
    """Codes of packed bytes, low nibble first: uint8 [..., groups, 16] -> uint8 [..., groups * 32]."""
    xp = _namespace(blocks)
    codes = (blocks[..., None] >> xp.array([0, 4], xp.uint8)) & xp.uint8(0x0F)
    return codes.reshape(*blocks.shape[:-2], blocks.shape[-2] * GROUP)


def pack(codes: Any) -> Any:
    """Inverse of `unpack`: uint8 [..., groups * 32] codes 0..15 -> uint8 [..., groups, 16]."""
    xp = _namespace(codes)
    pairs = codes.reshape(*codes.shape[:-1], codes.shape[-1] // GROUP, BYTES, 2).astype(xp.uint8)
    return pairs[..., 0] | (pairs[..., 1] << xp.uint8(4))


def dequantize(blocks: Any, scales: Any, dtype: Any = jnp.float32) -> Any:
    """Values of packed bytes: ``E2M1_VALUES[code] * 2^(scale - 127)``.

    The result is assembled bit by bit as a float32, because compiled code may flush subnormal numbers to zero: every
    byte and scale is exact, signed zeros and subnormals included. Scale 255 is NaN, as MX v1.0 has it.

    Args:
      blocks: uint8 [..., groups, 16].
      scales: uint8 [..., groups].
      dtype: float32 or bfloat16 (both hold every value exactly), or a wider type.

    Returns:
      dtype [..., groups * 32].
    """
    if blocks.shape[:-1] != scales.shape or blocks.shape[-1] != BYTES:
        raise ValueError(f"blocks {list(blocks.shape)} must be scales {list(scales.shape)} + [{BYTES}]")
    xp = _namespace(blocks)
    code = unpack(blocks).astype(xp.int32)
    scale = xp.broadcast_to(scales[..., None], (*scales.shape, GROUP)).reshape(code.shape).astype(xp.int32)
    magnitude = code & 7
    # E2M1 counts 0, 0.5, then 1 + m/2 scaled by a power of two: the exponent field is code // 2, and 0.5 is 2^-1
    exponent = scale + (magnitude >> 1) - 1
    significand = xp.where(magnitude >= 2, 2 + (magnitude & 1), 2) << 22  # 1.0 or 1.5 with its leading one
    normal = (exponent << 23) | (significand & 0x007FFFFF)
    subnormal = significand >> xp.clip(1 - exponent, 0, 31)
    bits = xp.where(exponent > 0, normal, subnormal)
    bits = xp.where(exponent > 254, 0x7F800000, bits)  # beyond float32: infinity
    bits = xp.where(magnitude == 0, 0, bits)
    bits = xp.where(scale == SCALE_NAN, 0x7FC00000, bits)
    bits = xp.where(code >= 8, bits | np.int32(-(2**31)), bits).astype(xp.int32)
    if dtype in (jnp.bfloat16, np.dtype(ml_dtypes.bfloat16), "bfloat16"):
        half = (bits >> 16).astype(xp.int16)  # the lower half is zero
        return half.view(ml_dtypes.bfloat16) if xp is np else jax.lax.bitcast_convert_type(half, jnp.bfloat16)
    value = bits.view(np.float32) if xp is np else jax.lax.bitcast_convert_type(bits, jnp.float32)
    return value if dtype in (jnp.float32, np.dtype(np.float32), "float32") else value.astype(dtype)


def quantize(array: Any) -> MXArray:
    """Round to MXFP4 along the last axis, as OCP MX v1.0 section 6.3 has it.

    The scale of a group is ``2^(floor(log2(max |v|)) - 2)``, clamped to the range of E8M0; each value divided by it is
    rounded to the nearest E2M1, ties to even, and saturates at 6. A group of zeros gets scale 2^-127; a group with a
    NaN or an infinity gets the scale NaN.

    Args:
      array: floating point [..., n], n a multiple of 32.

    Returns:
      `MXArray` with blocks uint8 [..., n / 32, 16] and scales uint8 [..., n / 32].
    """
    xp = _namespace(array)
    array = xp.asarray(array)
    if array.ndim < 1 or array.shape[-1] % GROUP or not array.size:
        raise ValueError(f"the last axis of {list(array.shape)} must be a positive multiple of {GROUP}")
    values = array.astype(xp.float32).reshape(*array.shape[:-1], -1, GROUP)
    largest = xp.max(xp.abs(values), axis=-1)
    finite = xp.isfinite(largest)
    biased = _bits(xp, largest) >> 23  # floor(log2) + 127; 0 for zero and subnormals
    scale = xp.where(finite, xp.clip(biased - E2M1_MAX_EXPONENT, 0, 254), SCALE_NAN)
    # 2^(127 - scale) may itself be subnormal: multiply by it in two halves
    shift = xp.where(finite, SCALE_BIAS - scale, 0)[..., None]
    first = shift // 2
    scaled = values * _power_of_two(xp, first) * _power_of_two(xp, shift - first)
    size = xp.abs(scaled)
    code = xp.zeros(scaled.shape, xp.uint8)
    for midpoint, up_on_tie in ((0.25, 0), (0.75, 1), (1.25, 0), (1.75, 1), (2.5, 0), (3.5, 1), (5.0, 0)):
        code = code + ((size >= midpoint) if up_on_tie else (size > midpoint)).astype(xp.uint8)
    code = code | (xp.signbit(scaled).astype(xp.uint8) << xp.uint8(3))
    return MXArray(pack(code.reshape(array.shape)), scale.astype(xp.uint8))


def _bits(xp: ModuleType, value: Any) -> Any:
    return value.view(np.int32) if xp is np else jax.lax.bitcast_convert_type(value, jnp.int32)


def _power_of_two(xp: ModuleType, exponent: Any) -> Any:
    bits = ((exponent + 127) << 23).astype(xp.int32)
    return bits.view(np.float32) if xp is np else jax.lax.bitcast_convert_type(bits, jnp.float32)
