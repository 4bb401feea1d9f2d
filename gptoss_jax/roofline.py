"""What a model costs: parameters, bytes, cache and FLOPs per token, for any `ModelConfig`. Plain integers.

A generated token reads every active weight once and the cached keys and values once; it multiplies each active
weight once. Whichever of the two takes longer on a machine bounds the speed: its roofline.

The published figures (20.9 B and 116.8 B parameters, 3.6 B and 5.1 B active, 12.8 and 60.8 GiB) come from OpenAI's
gpt-oss model card (arXiv 2508.10925, table 1) and are reproduced here exactly.
"""

import dataclasses
from fractions import Fraction

from gptoss_jax.config import MXFP4_GROUP, SLIDING, ModelConfig

BF16_BYTES = 2
MXFP4_BYTES = Fraction(1, 2) + Fraction(1, MXFP4_GROUP)  # 4-bit codes and one scale byte a group: 4.25 bits a value
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Parameter counts by part, summed over all layers; biases belong to their part.

    Attributes:
      embedding: V * D.
      attention: fused qkv, output projection, sinks.
      norms: two scales a layer and the final one.
      router: E * D + E a layer.
      experts: gate-up and down projections with biases.
      unembedding: V * D; not shared with the embedding.
      packed: those of `experts` that are stored as MXFP4, the two weight matrices.
    """

    embedding: int
    attention: int
    norms: int
    router: int
    experts: int
    unembedding: int
    packed: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.attention + self.norms + self.router + self.experts + self.unembedding


def parameters(config: ModelConfig) -> Parameters:
    """Count the parameters of `config`.

    >>> from gptoss_jax.config import GPT_OSS_20B
    >>> parameters(GPT_OSS_20B).total
    20914757184
    """
    return _parameters(config, config.num_experts)


def active_parameters(config: ModelConfig) -> int:
    """Parameters that one token multiplies: X of E experts, and no input embedding, which is a row looked up."""
    touched = _parameters(config, config.experts_per_token, routers=config.num_experts)
    return touched.total - touched.embedding


def _parameters(config: ModelConfig, experts: int, routers: int | None = None) -> Parameters:
    c, L, D, F = config, config.num_layers, config.hidden_size, config.intermediate_size
    heads = c.num_attention_heads
    weights = 2 * F * D + D * F
    return Parameters(
        embedding=c.vocab_size * D,
        attention=L * (c.qkv_size * (D + 1) + D * (heads * c.head_dim + 1) + heads),
        norms=(2 * L + 1) * D,
        router=L * (routers or experts) * (D + 1),
        experts=L * experts * (weights + 2 * F + D),
        unembedding=c.vocab_size * D,
        packed=L * experts * weights,
    )


def checkpoint_bytes(config: ModelConfig) -> int:
    """Bytes of the published layout: expert matrices in MXFP4, everything else in bfloat16."""
    return _stored(parameters(config))


def _stored(count: Parameters) -> int:
    return BF16_BYTES * (count.total - count.packed) + int(MXFP4_BYTES * count.packed)


def cache_bytes(config: ModelConfig, context: int, *, itemsize: int = BF16_BYTES, ring: bool = True) -> int:
    """Bytes of keys and values for one sequence of `context` tokens.

    Args:
      context: tokens, at least 0.
      itemsize: bytes of one value; 4 for float32.
      ring: sliding layers keep only their window; False counts every layer in full.
    """
    if context < 0:
        raise ValueError(f"context must be at least 0 tokens, not {context}")
    row = 2 * config.num_key_value_heads * config.head_dim * itemsize
    held = (min(context, config.sliding_window) if ring and kind == SLIDING else context for kind in config.layer_types)
    return row * sum(held)


def decode_bytes(config: ModelConfig, context: int, *, batch: int = 1) -> int:
    """Bytes read from memory to generate one token for each of `batch` sequences, weights as stored.

    Weights are read once for the whole batch, but B sequences that choose independently touch
    E * (1 - (1 - X/E)^B) experts a layer on average; the cache is read once a sequence.
    """
    E, X = config.num_experts, config.experts_per_token
    one = _parameters(config, 1, routers=E)
    missed = (1 - Fraction(X, E)) ** batch
    experts = E * (1 - missed)
    apart = dataclasses.replace(one, experts=0, packed=0, embedding=0)
    expert = BF16_BYTES * (one.experts - one.packed) + MXFP4_BYTES * one.packed
    rows = batch * config.hidden_size * BF16_BYTES
    return int(_stored(apart) + experts * expert) + rows + batch * cache_bytes(config, context)


def decode_flops(config: ModelConfig, context: int) -> int:
    """Floating-point operations for one token after `context` others: two a multiplied weight, and attention's two
    products (queries with keys, probabilities with values) over the keys each layer sees."""
    heads = config.num_attention_heads * config.head_dim
    seen = sum(
        min(context + 1, config.sliding_window) if kind == SLIDING else context + 1 for kind in config.layer_types
    )
    return 2 * active_parameters(config) + 4 * heads * seen


def seconds_per_token(
    config: ModelConfig, context: int, *, bytes_per_second: float, flops_per_second: float, batch: int = 1
) -> float:
    """The roofline: no machine generates `batch` tokens in one step faster than this.

    Args:
      context: tokens already in each sequence.
      bytes_per_second: memory bandwidth.
      flops_per_second: peak arithmetic rate in the dtype used.
      batch: sequences generated together.
    """
    for name, value in (
        ("bytes_per_second", bytes_per_second),
        ("flops_per_second", flops_per_second),
        ("batch", batch),
    ):
        if not value > 0:
            raise ValueError(f"{name} must be positive, not {value}")
    memory = decode_bytes(config, context, batch=batch) / bytes_per_second
    return max(memory, batch * decode_flops(config, context) / flops_per_second)
