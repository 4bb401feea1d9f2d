"""What every measurement takes: one sequence, padded, and the token whose logit is followed at each position."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gptoss_jax.config import ModelConfig
from gptoss_jax.model import check_tokens, prepare

MOST_LIKELY = -1  # stands for the token that the unchanged model finds most likely; known only inside the program


def prepare_targets(
    config: ModelConfig, tokens: Any, targets: Any, default: str = "next"
) -> tuple[int, Array, Array, Array]:
    """Check one sequence [T] and its targets [T].

    Args:
      config: the model's numbers.
      tokens: int [T].
      targets: int [T], or None for the default.
      default: ``next`` for the token that follows (at the last position the most likely one), or ``likely``.

    Returns:
      T, tokens [1, bucket], counts [1], targets [bucket].

    Raises:
      ValueError: not one sequence, ids outside the vocabulary, targets of another length.
    """
    if np.ndim(tokens) != 1:
        raise ValueError(f"one sequence [T] is measured at a time, not {list(np.shape(tokens))}")
    tokens, padded, counts = prepare(config, tokens)
    T = len(tokens)
    followed = np.full(padded.shape[1], MOST_LIKELY, np.int32)
    if targets is not None:
        targets = check_tokens(config, targets)
        if targets.shape != (T,):
            raise ValueError(f"targets must be one id for each of {T} tokens, not {list(targets.shape)}")
        followed[:T] = targets
    elif default == "next":
        followed[: T - 1] = tokens[1:]
    return T, jnp.asarray(padded), jnp.asarray(counts), jnp.asarray(followed)


def resolve(targets_T: Int[Array, "T"], logits_TV: Float[Array, "T V"]) -> Int[Array, "T"]:
    """Put the most likely token where `MOST_LIKELY` stands."""
    return jnp.where(targets_T == MOST_LIKELY, jnp.argmax(logits_TV, axis=-1), targets_T)


def of_target(scores_TV: Float[Array, "*L T V"], targets_T: Int[Array, "T"]) -> Float[Array, "*L T"]:
    """The target's entry of each row."""
    return jnp.sum(jnp.where(jnp.arange(scores_TV.shape[-1]) == targets_T[:, None], scores_TV, 0.0), axis=-1)
