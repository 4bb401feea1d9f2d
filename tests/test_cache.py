"""The cache on its own: slots, positions, wrap-around, rows of different lengths."""

import jax.numpy as jnp
import numpy as np
import pytest

from gptoss_jax.cache import KVCache
from gptoss_jax.config import TINY

W, K, H = TINY.sliding_window, TINY.num_key_value_heads, TINY.head_dim


def chunk_of(first, counts, size):
    """Keys whose value is their position, rows padded with -100."""
    positions = np.array([first[b] + np.arange(size) for b in range(len(counts))], np.float32)
    positions[np.arange(size) >= np.array(counts)[:, None]] = -100
    return jnp.asarray(np.broadcast_to(positions[:, :, None, None], (*positions.shape, K, H)))


@pytest.mark.parametrize("sizes", [[1] * 40, [3, 3, 3, 3, 3, 3], [20, 1, 1, 5], [8, 8, 8], [7, 9, 16, 2]])
def test_every_key_knows_its_position(sizes):
    rng = np.random.default_rng(0)
    cache = KVCache.create(TINY, 2, 64)
    lengths = np.zeros(2, int)
    for size in sizes:
        counts = np.array([size, rng.integers(0, size + 1)])
        chunk = chunk_of(lengths, counts, size)
        ring_cache, ring_keys, _, ring_positions = cache.extend_ring(1, chunk, chunk, jnp.asarray(counts))
        cache, keys, _, positions = ring_cache.extend_full(0, chunk, chunk, jnp.asarray(counts))
        for b in range(2):
            total = lengths[b] + counts[b]
            seen = np.asarray(positions[b])
            assert sorted(seen[seen >= 0].tolist()) == list(range(total))
            assert np.array_equal(keys[b, :, 0, 0][seen >= 0], seen[seen >= 0])
            seen = np.asarray(ring_positions[b])
            expected = set(range(max(0, lengths[b] - W), total))  # (old ring ++ chunk)
            assert set(seen[seen >= 0].tolist()) == expected
            assert np.array_equal(ring_keys[b, :, 0, 0][seen >= 0], seen[seen >= 0])
        cache = cache.advance(jnp.asarray(counts))
        lengths += counts
    assert cache.length.tolist() == lengths.tolist()


def test_memory_is_what_the_layers_need():
    cache = KVCache.create(TINY, 3, 64, jnp.bfloat16)
    assert cache.full_key.shape == (2, 3, 64, K, H)
    assert cache.ring_key.shape == (2, 3, W, K, H)
    assert cache.nbytes == 2 * (2 * 3 * 64 + 2 * 3 * W) * K * H * 2
    assert cache.max_len == 64
