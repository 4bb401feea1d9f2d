"""Take experts away, one after another, and see what the answer loses (definition 22 of the figures)."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gptoss_jax.causes.inputs import of_target, prepare_targets, resolve
from gptoss_jax.interventions import Intervention
from gptoss_jax.model import GptOss, Record

WAYS = ("renormalize", "zero", "mask")


@dataclasses.dataclass(frozen=True, eq=False)
class Effects:
    """What taking one expert away does, for every expert of the layers swept (R of them) and every position.

    Attributes:
      layers: R layer numbers.
      how: ``renormalize``, ``zero`` or ``mask``.
      divergence: float32 [R, E, T], KL(model || model without the expert) of the next token, nats; >= 0, and exactly
        0 before the first token that the expert serves.
      logit_change: float32 [R, E, T], logit of the target without the expert minus with it.
      flips: bool [R, E, T], True where another token becomes the most likely one.
      served: bool [R, E, T], True where the expert is among the token's chosen in the unchanged model.
      targets: int32 [T], the token whose logit is followed.
    """

    layers: tuple[int, ...]
    how: str
    divergence: np.ndarray
    logit_change: np.ndarray
    flips: np.ndarray
    served: np.ndarray
    targets: np.ndarray

    @property
    def reached(self) -> np.ndarray:
        """bool [R, E, T]: at or after the first token served, the only positions that can change."""
        return np.logical_or.accumulate(self.served, axis=-1)

    def mean(self, where: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Averages over positions, [R, E] each, with the counts that they rest on.

        Args:
          where: bool [T], the positions to average over (generated ones, a channel, ...); all if None.

        Returns:
          ``divergence``, ``logit_change`` and ``flips`` (a share); ``served``, ``reached`` and ``positions`` (counts).
        """
        where = np.ones(len(self.targets), bool) if where is None else np.asarray(where, bool)
        if where.shape != self.targets.shape or not where.any():
            raise ValueError(f"where must mark at least one of {len(self.targets)} positions, as bool [T]")
        found = {name: getattr(self, name)[..., where].mean(-1) for name in ("divergence", "logit_change", "flips")}
        found |= {name: getattr(self, name)[..., where].sum(-1) for name in ("served", "reached")}
        return found | {"positions": np.full(self.served.shape[:2], where.sum())}


def ablation_sweep(
    model: GptOss, tokens: Any, layer: int | Iterable[int] | None = None, how: str = "renormalize", targets: Any = None
) -> Effects:
    """Take away every expert of a layer, one after another, and compare with the unchanged model.

    One compiled program serves every layer, expert and way: the changes are arrays that it loops over. An expert that
    serves no token changes nothing and is not run. Time: at most E + 1 forward passes a layer; memory: the attention
    probabilities of one layer [N, T, T] and a few arrays of logits [T, V].

    Args:
      model: the model.
      tokens: int [T].
      layer: one layer, several, or None for all.
      how: ``renormalize``, ``zero`` or ``mask``, as in `interventions.ablate`.
      targets: int [T], tokens whose logits to follow; by default the token that comes next and, at the last position,
        the one that the unchanged model finds most likely.

    Raises:
      ValueError: an unknown layer, way, or token.
    """
    config = model.config
    if layer is None:
        layers: tuple[int, ...] = tuple(range(config.num_layers))
    else:
        layers = tuple(layer) if isinstance(layer, Iterable) else (layer,)
    outside = [one for one in layers if not 0 <= one < config.num_layers]
    if outside or not layers:
        raise ValueError(f"layers {outside} lie outside 0 .. {config.num_layers - 1}; give at least one")
    if how not in WAYS:
        raise ValueError(f"how = {how!r}; known: {', '.join(map(repr, WAYS))}")
    if how == "mask" and config.num_experts == config.experts_per_token:
        raise ValueError(f"masking one of {config.num_experts} experts leaves fewer than {config.experts_per_token}")
    T, padded, counts, followed = prepare_targets(config, tokens, targets)
    swept = [_sweep(model, padded, counts, followed, jnp.int32(one), jnp.int32(WAYS.index(how))) for one in layers]
    stacked = [np.stack([np.asarray(part)[..., :T] for part in parts]) for parts in zip(*swept, strict=True)]
    divergence, logit_change, flips, served, targets_RT = stacked
    return Effects(layers, how, divergence, logit_change, flips, served, targets_RT[0])


@jax.jit
def _sweep(
    model: GptOss, tokens_1T: Array, counts: Array, targets_T: Array, layer: Array, how: Array
) -> tuple[Array, ...]:
    """Divergence, logit change, flips and service [E, T] of one layer, and the targets [T].

    The unchanged model is the loop's first turn, with a change that falls outside the arrays. It is the same compiled
    code as every other turn, so that a position which nothing reaches is equal bit for bit.
    """
    config = model.config
    L, E, T = config.num_layers, config.num_experts, tokens_1T.shape[1]
    real_T1 = (jnp.arange(T) < counts[0])[:, None]
    masks = how == WAYS.index("mask")

    def without(row: Array, e: Array) -> tuple[Array, Array]:
        change_at = lambda start, value: jnp.full((L, E), start, jnp.float32).at[row, e].set(value, mode="drop")
        change = Intervention(
            selection_LE=change_at(0.0, jnp.where(masks, -jnp.inf, 0.0)),
            keep_LE=change_at(1.0, jnp.where(masks, 1.0, 0.0)),
            renormalize=how == WAYS.index("renormalize"),
        )
        output: Any = model.run(tokens_1T, counts, change=change, record=Record(routing=True))
        served_TE = jnp.any(output.routing.experts[layer, 0, :, :, None] == jnp.arange(E), axis=1)
        return model.unembedding(output.hidden)[0], served_TE & real_T1

    def turn(base: tuple[Array, Array], e: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        first = e < 0
        needed = first | jnp.any(base[1][:, e])
        found = jax.lax.cond(needed, lambda: without(jnp.where(first, L, layer), e), lambda: base)
        base_TV, served_TE = jax.tree.map(lambda new, old: jnp.where(first, new, old), found, base)
        log_p, log_q = jax.nn.log_softmax(base_TV), jax.nn.log_softmax(found[0])
        divergence_T = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
        change_T = of_target(found[0] - base_TV, resolve(targets_T, base_TV))
        flips_T = jnp.argmax(found[0], axis=-1) != jnp.argmax(base_TV, axis=-1)
        return (base_TV, served_TE), (jnp.maximum(divergence_T, 0), change_T, flips_T, served_TE[:, e])

    nothing = jnp.zeros((T, config.vocab_size), jnp.float32), jnp.zeros((T, E), bool)
    (base_TV, _), seen = jax.lax.scan(turn, nothing, jnp.arange(-1, E))
    return *(part[1:] for part in seen), resolve(targets_T, base_TV)
