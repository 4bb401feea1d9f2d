"""The key/value cache: full-attention layers keep every position, sliding layers a ring of one window.

A ring of W slots keeps position p in slot p mod W. A chunk of new tokens attends over the old ring followed by the
chunk itself, and only then are its last W tokens written: a chunk longer than the ring loses nothing that its own
queries still see. Lengths, positions and slots are per row of the batch.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gptoss_jax.config import SLIDING, ModelConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KVCache:
    """Rotated keys, and values, of the tokens seen so far.

    Attributes:
      full_key, full_value: [full layers, B, max_len, K, H].
      ring_key, ring_value: [sliding layers, B, W, K, H].
      length: int32 [B], tokens stored per row.
    """

    full_key: Any
    full_value: Any
    ring_key: Any
    ring_value: Any
    length: Any

    @classmethod
    def create(cls, config: ModelConfig, batch: int, max_len: int, dtype: Any = jnp.float32) -> "KVCache":
        """An empty cache for `batch` rows of up to `max_len` tokens."""
        sliding = config.layer_types.count(SLIDING)
        heads = (config.num_key_value_heads, config.head_dim)
        full = (config.num_layers - sliding, batch, max_len, *heads)
        ring = (sliding, batch, config.sliding_window, *heads)
        return _zeros(cls, full, ring, batch, jnp.dtype(dtype))

    @property
    def max_len(self) -> int:
        """Positions that a full-attention layer can hold."""
        return self.full_key.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return sum(leaf.nbytes for leaf in (self.full_key, self.full_value, self.ring_key, self.ring_value))

    def advance(self, counts_B: Int[Array, "B"]) -> "KVCache":
        """Count `counts_B` more tokens per row, once all layers have stored them."""
        return dataclasses.replace(self, length=self.length + counts_B)

    def extend_full(
        self, index: Any, key: Float[Array, "B C K H"], value: Float[Array, "B C K H"], counts_B: Int[Array, "B"]
    ) -> tuple["KVCache", Float[Array, "B S K H"], Float[Array, "B S K H"], Int[Array, "B S"]]:
        """Store a chunk in full-attention layer `index`; return the cache, all keys, values and their positions."""
        slots = _slots(self.length, counts_B, key.shape[1], first=0, modulus=None, beyond=self.max_len)
        cache = dataclasses.replace(
            self,
            full_key=_write(self.full_key, index, slots, key),
            full_value=_write(self.full_value, index, slots, value),
        )
        positions = jnp.broadcast_to(jnp.arange(self.max_len), (key.shape[0], self.max_len))
        positions = jnp.where(positions < (self.length + counts_B)[:, None], positions, -1)
        return cache, cache.full_key[index], cache.full_value[index], positions

    def extend_ring(
        self, index: Any, key: Float[Array, "B C K H"], value: Float[Array, "B C K H"], counts_B: Int[Array, "B"]
    ) -> tuple["KVCache", Float[Array, "B S K H"], Float[Array, "B S K H"], Int[Array, "B S"]]:
        """The same for sliding layer `index`: keys and values are (old ring ++ chunk), S = W + C."""
        window, chunk = self.ring_key.shape[2], key.shape[1]
        keys = jnp.concatenate([self.ring_key[index], key], axis=1)
        values = jnp.concatenate([self.ring_value[index], value], axis=1)
        last = self.length[:, None] - 1
        old = last - (last - jnp.arange(window)) % window  # newest position below length in each slot; < 0 if empty
        new = self.length[:, None] + jnp.arange(chunk)
        new = jnp.where(jnp.arange(chunk) < counts_B[:, None], new, -1)
        slots = _slots(self.length, counts_B, chunk, first=counts_B - window, modulus=window, beyond=window)
        cache = dataclasses.replace(
            self,
            ring_key=_write(self.ring_key, index, slots, key),
            ring_value=_write(self.ring_value, index, slots, value),
        )
        return cache, keys, values, jnp.concatenate([old, new], axis=1)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _zeros(cls: type[KVCache], full: tuple[int, ...], ring: tuple[int, ...], batch: int, dtype: Any) -> KVCache:
    zeros = lambda shape: jnp.zeros(shape, dtype)
    return cls(zeros(full), zeros(full), zeros(ring), zeros(ring), jnp.zeros(batch, jnp.int32))


def _slots(length: Array, counts: Array, chunk: int, *, first: Any, modulus: int | None, beyond: int) -> Array:
    """Slot of every token of a chunk, [B, C]; tokens that are padding or already overtaken go `beyond` the end."""
    t = jnp.arange(chunk)
    slot = length[:, None] + t
    keep = (t < counts[:, None]) & (t >= jnp.broadcast_to(jnp.asarray(first), counts.shape)[:, None])
    return jnp.where(keep, slot if modulus is None else slot % modulus, beyond)


def _write(store: Array, index: Any, slots: Array, chunk: Array) -> Array:
    rows = jnp.arange(chunk.shape[0])[:, None]
    return store.at[index, rows, slots].set(chunk.astype(store.dtype), mode="drop")
