"""Where each head looks, how far, how widely, and what its sink takes (definitions 25 and 26 of the figures).

Source: Xiao et al. 2023 (attention sinks).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gptoss_jax.causes.inputs import prepare_targets
from gptoss_jax.interventions import Intervention
from gptoss_jax.model import GptOss, Record, run_recorded


def attention_weights(model: GptOss, tokens: Any, change: Intervention | None = None) -> Float[np.ndarray, "L N T S"]:
    """Attention of every layer and query head, without the sink's share: float32 [L, N, T, S], S = T.

    Head n = k G + g shares key/value head k. Memory: 4 L N T^2 bytes, 1.6 GB for 20b and 512 tokens.

    Args:
      model: the model.
      tokens: int [T].
      change: `Intervention` on the routing.

    Raises:
      ValueError: not one sequence, or ids outside the vocabulary.
    """
    T, padded, counts, _ = prepare_targets(model.config, tokens, None)
    change = None if change is None else jax.tree.map(jnp.asarray, change)
    output: Any = run_recorded(model, padded, counts, None, change, Record(attention=True), logits=False)[0]
    weights_LKGTS = np.asarray(output.attention[:, 0, :, :, :T, :T])
    return weights_LKGTS.reshape(len(weights_LKGTS), -1, T, T)


def sink_mass(weights: Float[np.ndarray, "*P T S"]) -> Float[np.ndarray, "*P T"]:
    """What the sink takes of each query's attention: 1 minus the sum of its row; 0 .. 1."""
    return 1 - np.asarray(weights, np.float64).sum(-1)


def attention_distance(weights: Float[np.ndarray, "*P T S"]) -> Float[np.ndarray, "*P T"]:
    """Mean distance ``sum_j A[i, j] (i - j) / sum_j A[i, j]`` in tokens of what each query attends to, sink left out.

    At most the window minus 1 in a sliding layer; NaN where the sink takes everything.

    Args:
      weights: [..., T, S] with S >= T; the last query stands at the last key.
    """
    weights = _rows(weights)
    T, S = weights.shape[-2:]
    distance_TS = np.arange(S - T, S)[:, None] - np.arange(S)
    return (weights * distance_TS).sum(-1)


def attention_entropy(weights: Float[np.ndarray, "*P T S"]) -> Float[np.ndarray, "*P T"]:
    """Entropy in nats of each query's attention among the keys, sink left out: 0 for one key, ln n for n evenly."""
    weights = _rows(weights)
    return -(weights * np.log(np.where(weights > 0, weights, 1))).sum(-1)


def _rows(weights: Any) -> np.ndarray:
    """Rows scaled to sum 1, float64; NaN where a row is empty."""
    weights = np.asarray(weights, np.float64)
    if weights.ndim < 2 or weights.shape[-1] < weights.shape[-2]:
        raise ValueError(f"attention must be [..., T, S] with S >= T, not {list(weights.shape)}")
    if not (weights >= 0).all():
        raise ValueError("attention holds values that are negative or NaN")
    total = weights.sum(-1, keepdims=True)
    return np.divide(weights, total, out=np.full_like(weights, np.nan), where=total > 0)
