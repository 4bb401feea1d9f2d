"""Weights laid out for a CPU's vector registers: the outputs of a matrix lie side by side, one a lane.

The checkpoint keeps a matrix as [out, in]: to multiply it with one vector, a processor would add up the lanes of every
row. Here it lies as [in, out]: one input after another is multiplied with a whole row of outputs, every lane adding up
its own. The values are those of the checkpoint, bit for bit (`arrange` and `restore` are inverse); only their order and
the type of the container differ:

- a bfloat16 matrix is held as its bits, uint16 [in, out]. XLA's CPU backend computes no bfloat16, and would convert
  whole stacks of layers to float32 before it slices one out; integers it slices as they are;
- an MXFP4 matrix is held as words, uint16 [groups, 8, out]: word w of a group has the codes of its inputs
  4w .. 4w + 3, the first in the lowest bits.

A 4-bit code (sign, two exponent bits, one mantissa bit) moved into the sign, exponent and mantissa of a float16 *is*
its value times 2^-14, and processors convert float16 to float32 in one instruction, subnormal numbers included. That
makes unpacking exact and as cheap as it gets: shift, shift, mask, convert.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt16

from gptoss_jax.config import MXFP4_GROUP

WORD = 4  # codes in a word
WORDS = MXFP4_GROUP // WORD  # words in a group
SCALES = (2, 240)  # scale bytes for which the exponents below stay inside float32
UNROLL = 32  # inputs of a bfloat16 matrix multiplied per step
ONE_BY_ONE = 2  # vectors; more are multiplied together, tile by tile
COLUMNS = 960  # outputs in a tile, unpacked to float32: a few megabytes, which a processor's caches hold
_FLOAT16_BIAS = 14  # the float16 that a code becomes is too small by 2^14
_CODE_BITS = np.int16(np.uint16(0x8E00).view(np.int16))  # sign, two exponent bits, one mantissa bit of a float16


def widen(bits: UInt16[Array, "*S"]) -> Float[Array, "*S"]:
    """float32 of bfloat16 bits: they are its upper half."""
    return jax.lax.bitcast_convert_type(bits.astype(jnp.uint32) << 16, jnp.float32)


def unpack(words: UInt16[Array, "*S"]) -> list[Float[Array, "*S"]]:
    """The four values in each word, times 2^-14, as float32."""
    words = jax.lax.bitcast_convert_type(words, jnp.int16)
    values = []
    for place in range(WORD):
        top = words << (4 * (WORD - 1 - place))  # sign at bit 15, then exponent and mantissa
        half = (top >> 3) & _CODE_BITS  # the sign stays, the rest moves to bits 11 .. 9
        values.append(jax.lax.bitcast_convert_type(half, jnp.float16).astype(jnp.float32))
    return values


def power(scales: Array) -> Float[Array, "..."]:
    """float32 2^(scale - 127 + 14)."""
    return jax.lax.bitcast_convert_type((scales.astype(jnp.int32) + _FLOAT16_BIAS) << 23, jnp.float32)


def _take(array: Array, start: tuple[Any, ...], size: tuple[int, ...]) -> Array:
    """A box of `array`; the leading axes of length one are dropped."""
    start = tuple(jnp.asarray(s, jnp.int32) for s in start)
    box = jax.lax.dynamic_slice(array, start, size, allow_negative_indices=False)
    return box.reshape(size[next((i for i, n in enumerate(size) if n != 1), len(size) - 1) :])


def _by_tiles(x_TI: Array, outputs: int, tile: Any) -> Array:
    """``[T, outputs]`` from `tile(first column, columns)`; the last tile reaches back instead of past the end."""
    columns = min(COLUMNS, outputs)

    def step(y_TO: Array, i: Array) -> tuple[Array, None]:
        first = jnp.minimum(i * columns, outputs - columns)
        return jax.lax.dynamic_update_slice(y_TO, tile(first, columns), (jnp.int32(0), first)), None

    empty = jnp.zeros((len(x_TI), outputs), jnp.float32)
    return jax.lax.scan(step, empty, jnp.arange(-(-outputs // columns)))[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DenseLanes:
    """One of N bfloat16 matrices; which one may be known only while the compiled program runs.

    Attributes:
      bits: uint16 [N, in, out].
      index: the matrix meant.
    """

    bits: Any
    index: Any

    def multiply(self, x: Float[Array, "*P I"]) -> Float[Array, "*P O"]:
        """``x @ matrix`` in float32."""
        inputs, outputs = self.bits.shape[1:]
        rows = x.reshape(-1, inputs).astype(jnp.float32)
        if len(rows) > ONE_BY_ONE:
            tile = lambda first, n: rows @ widen(_take(self.bits, (self.index, 0, first), (1, inputs, n)))
            y = _by_tiles(rows, outputs, tile)
        else:
            y = jnp.stack([self._multiply_vector(row) for row in rows])
        return y.reshape(*x.shape[:-1], outputs)

    def _multiply_vector(self, x_I: Array) -> Array:
        inputs, outputs = self.bits.shape[1:]
        unroll = UNROLL if inputs % UNROLL == 0 else 1

        def step(y_O: Array, scanned: tuple[Array, Array]) -> tuple[Array, None]:
            i, x = scanned
            rows = [_take(self.bits, (self.index, i * unroll + j, 0), (1, 1, outputs)) for j in range(unroll)]
            return y_O + sum(x[j] * widen(row) for j, row in enumerate(rows)), None

        steps = (jnp.arange(inputs // unroll), x_I.reshape(-1, unroll))
        return jax.lax.scan(step, jnp.zeros(outputs, jnp.float32), steps)[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PackedLanes:
    """One of N MXFP4 matrices.

    Attributes:
      words: uint16 [N, groups, 8, out].
      scales: uint8 [N, groups, out].
      index: the matrix meant.
    """

    words: Any
    scales: Any
    index: Any = 0

    def __getitem__(self, index: Any) -> "PackedLanes":
        """Choose a matrix; nothing is copied."""
        return PackedLanes(self.words, self.scales, index)

    def multiply(self, x: Float[Array, "*P I"]) -> Float[Array, "*P O"]:
        """``x @ matrix`` in float32."""
        groups, _, outputs = self.words.shape[1:]
        rows = x.reshape(-1, groups * MXFP4_GROUP).astype(jnp.float32)
        if len(rows) > ONE_BY_ONE:
            y = self._multiply_rows(rows)
        else:
            y = jnp.stack([self._multiply_vector(row) for row in rows])
        return y.reshape(*x.shape[:-1], outputs)

    def _multiply_vector(self, x_I: Array) -> Array:
        groups, _, outputs = self.words.shape[1:]
        pair = 2 if groups % 2 == 0 else 1

        def step(y_O: Array, scanned: tuple[Array, Array]) -> tuple[Array, None]:
            i, x = scanned
            for j in range(pair):
                group, part = i * pair + j, jnp.float32(0)
                for w in range(WORDS):
                    words = _take(self.words, (self.index, group, w, 0), (1, 1, 1, outputs))
                    part = part + sum(x[j, w, k] * value for k, value in enumerate(unpack(words)))
                y_O = y_O + part * power(_take(self.scales, (self.index, group, 0), (1, 1, outputs)))
            return y_O, None

        steps = (jnp.arange(groups // pair), x_I.reshape(-1, pair, WORDS, WORD))
        return jax.lax.scan(step, jnp.zeros(outputs, jnp.float32), steps)[0]

    def _multiply_rows(self, x_TI: Array) -> Array:
        groups, _, outputs = self.words.shape[1:]
        places = jnp.moveaxis(x_TI.reshape(len(x_TI), groups * WORDS, WORD), 2, 0)  # inputs by their place in a word

        def tile(first: Array, n: int) -> Array:
            words = _take(self.words, (self.index, 0, 0, first), (1, groups, WORDS, n)).reshape(groups, WORDS, n)
            scale = power(_take(self.scales, (self.index, 0, first), (1, groups, n)).reshape(groups, 1, n))
            return sum(x @ (value * scale).reshape(-1, n) for x, value in zip(places, unpack(words), strict=True))

        return _by_tiles(x_TI, outputs, tile)


def arrange(leaf: str, array: np.ndarray) -> np.ndarray:
    """One of the model's arrays, as the checkpoint has it, in the layout of this module.

    Args:
      leaf: its name, as in ``blocks.attention.qkv.weight``.
      array: bfloat16, or uint8 for MXFP4 bytes; any number of leading axes.

    Returns:
      uint16 for matrices, uint8 for scales, float32 for vectors and the router; a view where that is possible, so that
      the copy into the memory it is to stay in is the only one.

    Raises:
      ValueError: a scale that this layout does not hold.
    """
    if leaf.endswith("_blocks"):
        words = array.reshape(*array.shape[:-2], -1).view(np.uint16).swapaxes(-1, -2)
        return words.reshape(arranged_shape(leaf, array.shape), copy=False)
    if leaf.endswith("_scales"):
        outside = (array < SCALES[0]) | (array > SCALES[1])
        if outside.any():
            raise ValueError(
                f"{leaf}: scale byte {array[outside][0]} lies outside {SCALES[0]} .. {SCALES[1]}, where weights of "
                "trained models lie; load with lanes=False"
            )
        return array.swapaxes(-1, -2)
    if not is_matrix(leaf):
        return array.astype(np.float32)
    bits = array.astype(ml_dtypes.bfloat16, copy=False).view(np.uint16)
    return bits.swapaxes(-1, -2) if is_turned(leaf) else bits


def restore(leaf: str, array: np.ndarray) -> np.ndarray:
    """Inverse of `arrange`: the checkpoint's own bytes."""
    if leaf.endswith("_blocks"):
        *lead, groups, _, rows = array.shape
        words = np.ascontiguousarray(array.reshape(*lead, groups * WORDS, rows).swapaxes(-1, -2))
        return words.view(np.uint8).reshape(*lead, rows, groups, -1)
    if leaf.endswith("_scales"):
        return np.ascontiguousarray(array.swapaxes(-1, -2))
    if not is_matrix(leaf):
        return array.astype(ml_dtypes.bfloat16)
    bits = np.ascontiguousarray(array.swapaxes(-1, -2)) if is_turned(leaf) else array
    return bits.view(ml_dtypes.bfloat16)


def arranged_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of an array of the checkpoint in this layout."""
    if leaf.endswith("_blocks"):
        *lead, rows, groups, _ = shape
        return (*lead, groups, WORDS, rows)
    if leaf.endswith("_scales") or is_turned(leaf):
        return (*shape[:-2], shape[-1], shape[-2])
    return shape


def arranged_dtype(leaf: str) -> Any:
    """Type of an array of the checkpoint in this layout."""
    if leaf.endswith("_scales"):
        return np.uint8
    return np.uint16 if leaf.endswith("_blocks") or is_matrix(leaf) else np.float32


def is_arranged(model: Any) -> bool:
    """Whether a `GptOss` has its weights in this layout."""
    return model.unembedding.weight.dtype == jnp.uint16


def arrange_model(model: nnx.Module) -> None:
    """Bring every array of a model in memory into this layout. `checkpoint.load` does it array by array instead."""
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        leaf = ".".join(map(str, path))
        variable.set_value(jnp.asarray(np.ascontiguousarray(arrange(leaf, np.asarray(variable.get_value())))))


def is_matrix(leaf: str) -> bool:
    """True for the large bfloat16 arrays; the router is small and stays as it is."""
    return leaf.endswith(".weight") and "router" not in leaf


def is_turned(leaf: str) -> bool:
    """True for the matrices that are multiplied with, whose rows become columns; the embedding's are looked up."""
    return is_matrix(leaf) and leaf != "embedding.weight"
