"""The state machine below generation: a prompt read in chunks, then a compiled loop that decodes many tokens."""

import functools
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gptoss_jax.cache import KVCache
from gptoss_jax.config import ModelConfig
from gptoss_jax.interventions import Intervention
from gptoss_jax.model import GptOss, Record, bucket, check_tokens
from gptoss_jax.router import Routing
from gptoss_jax.sampling import Sampling, sample
from gptoss_jax.sharding import make_cache

PREFILL_CHUNK = 256  # tokens of a prompt per dispatch: bounds the memory of attention scores
DECODE_CHUNK = 32  # tokens per dispatch of the decode loop, at most


class Step(NamedTuple):
    """Several decoded tokens.

    Attributes:
      tokens: int32 [B, n], sampled after the tokens fed.
      routing: `Routing` of the n tokens fed, arrays [L, B, n, ...]; None if not recorded.
    """

    tokens: np.ndarray
    routing: Routing | None


@functools.partial(jax.jit, static_argnames=("record",), donate_argnames=("cache", "hidden_BD"))
def _prefill(
    model: GptOss,
    cache: KVCache,
    hidden_BD: Float[Array, "B D"],
    tokens_BT: Int[Array, "B T"],
    counts_B: Int[Array, "B"],
    change: Intervention | None,
    record: bool,
) -> tuple[KVCache, Float[Array, "B D"], Routing | None]:
    """One chunk; `hidden_BD` keeps the last real token's state of rows that have ended."""
    output = model.run(tokens_BT, counts_B, cache, change, Record(routing=record))
    last = jnp.take_along_axis(output.hidden, jnp.maximum(counts_B - 1, 0)[:, None, None], axis=1)[:, 0]
    assert output.cache is not None
    return output.cache, jnp.where(counts_B[:, None] > 0, last, hidden_BD), output.routing


@jax.jit
def _first_token(
    model: GptOss, hidden_BD: Array, positions_B: Array, how: Sampling, stop_tokens: Array
) -> tuple[Array, Array]:
    token_B = sample(model.unembedding(hidden_BD), positions_B, how, model.config.num_tokens)
    return token_B, jnp.any(token_B[:, None] == stop_tokens, axis=1)


@functools.partial(jax.jit, static_argnames=("record",), donate_argnames=("cache",))
def _decode(
    model: GptOss,
    cache: KVCache,
    token_B: Int[Array, "B"],
    done_B: Array,
    steps: Array,
    stop_tokens: Array,
    how: Sampling,
    change: Intervention | None,
    record: bool,
) -> tuple[KVCache, Array, Array, Array, Routing | None]:
    """Feed a token per row, sample the next, up to `steps` times or until every row has sampled a stop token."""
    config, B = model.config, len(token_B)
    buffer = jnp.zeros((DECODE_CHUNK, B), jnp.int32)
    shape = (DECODE_CHUNK, config.num_layers, B)
    recorded = Routing(
        jnp.zeros((*shape, config.num_experts)),
        jnp.zeros((*shape, config.experts_per_token), jnp.int32),
        jnp.zeros((*shape, config.experts_per_token)),
    )

    def unfinished(state: tuple[Any, ...]) -> Array:
        i, _, _, done, _, _ = state
        return (i < steps) & ~jnp.all(done)

    def step(state: tuple[Any, ...]) -> tuple[Any, ...]:
        i, cache, token, done, buffer, routing = state
        output = model.run(token[:, None], jnp.where(done, 0, 1), cache, change, Record(routing=record))
        assert output.cache is not None
        logits = model.unembedding(output.hidden[:, 0])
        new = sample(logits, output.cache.length, how, config.num_tokens)
        new = jnp.where(done, token, new)
        if record:
            routing = jax.tree.map(lambda all_, one: all_.at[i].set(one[:, :, 0]), routing, output.routing)
        done = done | jnp.any(new[:, None] == stop_tokens, axis=1)
        return i + 1, output.cache, new, done, buffer.at[i].set(new), routing

    state = (jnp.int32(0), cache, token_B, done_B, buffer, recorded if record else None)
    _, cache, token_B, done_B, buffer, routing = jax.lax.while_loop(unfinished, step, state)
    return cache, token_B, done_B, buffer, routing


def check_request(
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop_tokens: Collection[int] = (),
    max_len: int | None = None,
) -> tuple[list[np.ndarray], np.ndarray, int]:
    """The prompts as int32 rows, the stop tokens, and the positions that the longest row needs.

    Raises:
      ValueError: no prompts, an empty one, ids outside the vocabulary, or more tokens than context or cache hold.
    """
    rows = [check_tokens(config, prompt) for prompt in prompts]
    if not rows:
        raise ValueError("no prompts: give at least one")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    longest = max(map(len, rows)) + max_new_tokens
    if longest > config.max_context:
        raise ValueError(
            f"prompt and new tokens need {longest} positions, the model's context is {config.max_context}: "
            "shorten the prompt or lower max_new_tokens"
        )
    if max_len is not None and longest > max_len:
        raise ValueError(f"prompt and new tokens need {longest} positions, the cache has max_len = {max_len}")
    stops = np.unique(check_tokens(config, list(stop_tokens))) if len(stop_tokens) else np.array([-1], np.int32)
    return rows, stops, longest


class Decoder:
    """A batch of sequences being written: the cache, the last token of each row, and which rows have ended.

    Args:
      model: the model.
      prompts: B sequences of ids, of any lengths.
      max_new_tokens: room to reserve behind each prompt.
      sampling: how to pick tokens.
      stop_tokens: ids that end a row.
      change: `Intervention` on the routing.
      record: keep the routing of every token fed.
      chunk: tokens of the prompt per dispatch.
      max_len: cache length; the next power of two that holds the longest row if None.

    Attributes:
      tokens: int32 [B], the newest token of each row, sampled but not yet fed.
      done: bool [B], rows that have sampled a stop token.
      prompt_routing: `Routing` with arrays [L, B, T, ...] if recorded.
    """

    def __init__(
        self,
        model: GptOss,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        sampling: Sampling,
        stop_tokens: Collection[int] = (),
        change: Intervention | None = None,
        record: bool = False,
        chunk: int = PREFILL_CHUNK,
        max_len: int | None = None,
    ):
        config = model.config
        rows, stops, longest = check_request(config, prompts, max_new_tokens, stop_tokens, max_len)
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1, not {chunk}")
        self.model, self.change, self.record, self.sampling = model, change, record, sampling
        self._stop_tokens = jnp.asarray(stops)
        size = max_len or min(bucket(longest, 64), config.max_context)
        self._cache = self._beside_weights(make_cache(model, len(rows), size))
        self.prompt_routing: Routing | None = None
        self._prefill(rows, chunk)

    def _beside_weights(self, arrays: Any) -> Any:
        """Bind arrays to the device of the weights, as results are: JAX would compile once more for the difference."""
        sharding = self.model.norm.scale[...].sharding
        return jax.device_put(arrays, sharding) if len(sharding.device_set) == 1 else arrays

    def _prefill(self, rows: list[np.ndarray], chunk: int) -> None:
        lengths = np.array([len(row) for row in rows])
        hidden = self._beside_weights(np.zeros((len(rows), self.model.config.hidden_size), self.model.dtype))
        recorded = []
        for start in range(0, int(lengths.max()), chunk):
            counts = np.clip(lengths - start, 0, chunk).astype(np.int32)
            tokens = np.zeros((len(rows), bucket(int(counts.max()), 1)), np.int32)
            for b, row in enumerate(rows):
                tokens[b, : counts[b]] = row[start : start + chunk]
            self._cache, hidden, routing = _prefill(
                self.model, self._cache, hidden, jnp.asarray(tokens), jnp.asarray(counts), self.change, self.record
            )
            if routing is not None:
                longest = int(counts.max())
                recorded.append(jax.tree.map(lambda leaf, n=longest: np.asarray(leaf)[:, :, :n], routing))
        if recorded:
            self.prompt_routing = jax.tree.map(lambda *parts: np.concatenate(parts, axis=2), *recorded)
        self._token, self._done = _first_token(self.model, hidden, self._cache.length, self.sampling, self._stop_tokens)

    @property
    def tokens(self) -> np.ndarray:
        return np.asarray(self._token)

    @property
    def done(self) -> np.ndarray:
        return np.asarray(self._done)

    def step(self, count: int) -> Step:
        """Decode up to `count` (at most `DECODE_CHUNK`) more tokens per row; fewer if all rows end."""
        count = min(count, DECODE_CHUNK)
        before = np.asarray(self._cache.length).max()
        self._cache, self._token, self._done, buffer, routing = _decode(
            self.model,
            self._cache,
            self._token,
            self._done,
            jnp.int32(count),
            self._stop_tokens,
            self.sampling,
            self.change,
            self.record,
        )
        taken = int(np.asarray(self._cache.length).max() - before)
        if routing is not None:
            routing = jax.tree.map(lambda leaf: np.moveaxis(np.asarray(leaf)[:taken], 0, 2), routing)
        return Step(np.asarray(buffer)[:taken].T, routing)

    def feed_last(self) -> Routing:
        """Run the newest tokens through the model without sampling, for their routing: arrays [L, B, 1, ...]."""
        hidden = jnp.zeros((len(self.tokens), self.model.config.hidden_size), self.model.dtype)
        counts = jnp.ones(len(self.tokens), jnp.int32)
        self._cache, _, routing = _prefill(
            self.model, self._cache, hidden, self._token[:, None], counts, self.change, True
        )
        return jax.tree.map(np.asarray, routing)
