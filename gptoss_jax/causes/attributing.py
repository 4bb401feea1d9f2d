"""The residual stream as a sum of parts: what each adds to a logit, and when the answer is there (23, 24).

Sources: Elhage et al. 2021 (the stream as a sum, direct attribution); nostalgebraist 2020 (logit lens).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gptoss_jax.causes.inputs import of_target, prepare_targets, resolve
from gptoss_jax.experts import moe
from gptoss_jax.interventions import Intervention
from gptoss_jax.model import GptOss, Record
from gptoss_jax.norms import rms_norm
from gptoss_jax.router import Routing


class Contributions(NamedTuple):
    """What each part of the model adds to one logit, and how much of its layer's output each expert is.

    The stream is a sum, so at every position ``embedding + attention.sum(-1) + experts.sum((-2, -1))`` equals `logit`
    up to rounding, once the scale of the final norm is frozen at its actual value.

    Attributes:
      chosen: int32 [T, L, X], the experts, highest weight first.
      share: float32 [T, L, X], length of an expert's weighted output over the length of the sum of all X; above 1
        where experts cancel each other.
      experts: float32 [T, L, X], the part of the target's logit that comes directly from the weighted output.
      attention: float32 [T, L], the same of each attention.
      embedding: float32 [T], the same of the token's own embedding.
      logit: float32 [T], of the target.
      targets: int32 [T], the token whose logit is taken apart.
    """

    chosen: np.ndarray
    share: np.ndarray
    experts: np.ndarray
    attention: np.ndarray
    embedding: np.ndarray
    logit: np.ndarray
    targets: np.ndarray


def contributions(model: GptOss, tokens: Any, targets: Any = None, change: Intervention | None = None) -> Contributions:
    """Expert contribution and direct logit attribution: ``w_e y_e . W_U[target]``, the final norm's scale frozen.

    *Direct* means without what later layers make of it. An expert's output y_e includes its bias. The outputs are
    computed again from the recorded stream, one rank of the choice at a time.

    Args:
      model: the model.
      tokens: int [T].
      targets: int [T], tokens whose logits to take apart; by default the token that comes next and, at the last
        position, the most likely one.
      change: `Intervention` on the routing.

    Raises:
      ValueError: not one sequence, or ids outside the vocabulary.
    """
    T, padded, counts, followed = prepare_targets(model.config, tokens, targets)
    change = None if change is None else jax.tree.map(jnp.asarray, change)
    parts = _contributions(model, padded, counts, followed, change)
    return Contributions(*(np.asarray(part)[:T] for part in parts))


@jax.jit
def _contributions(
    model: GptOss, tokens_1T: Array, counts: Array, targets_T: Array, change: Intervention | None
) -> tuple[Array, ...]:
    """The fields of `Contributions`."""
    config, mlp = model.config, model.blocks.mlp
    E, X, T = config.num_experts, config.experts_per_token, tokens_1T.shape[1]
    real_T1 = (jnp.arange(T) < counts[0])[:, None]
    record = Record(routing=True, residual=True, middle=True)
    output: Any = model.run(tokens_1T, counts, change=change, record=record)
    stream, middle_LTD = output.residual[:, 0].astype(jnp.float32), output.middle[:, 0]
    routing: Routing = jax.tree.map(lambda leaf: leaf[:, 0], output.routing)

    logits_TV = model.unembedding(output.hidden)[0]
    targets_T = resolve(targets_T, logits_TV)
    frozen_TD = jax.lax.rsqrt(jnp.mean(jnp.square(stream[-1]), axis=-1, keepdims=True) + config.rms_norm_eps)
    frozen_TD = frozen_TD * model.norm.scale[...]
    # With the scale frozen the logit is linear in the stream: its gradient is the direction W_U[target] * scale,
    # however W_U is stored.
    linear = lambda x_TD: jnp.sum(of_target(model.unembedding((x_TD * frozen_TD).astype(model.dtype)), targets_T))
    direction_TD = jax.grad(linear)(jnp.zeros_like(stream[-1]))
    toward_target = lambda part: jnp.sum(part.astype(jnp.float32) * direction_TD, axis=-1)

    def measure(layer: Array) -> tuple[Array, Array]:
        x_TD = rms_norm(middle_LTD[layer], mlp.norm.scale[...][layer], config.rms_norm_eps)

        def weighted_output(rank: Array) -> Array:
            chosen_T1, weights_T1 = routing.experts[layer, :, rank, None], routing.weights[layer, :, rank, None]
            one = Routing(routing.logits[layer], jnp.where(real_T1, chosen_T1, E), jnp.where(real_T1, weights_T1, 0))
            if callable(model.dispatch):
                return model.dispatch(x_TD, one, mlp.experts, layer)
            return moe(x_TD, one, mlp.experts.weights(), config, layer * E, model.dispatch)

        parts_XTD = jax.lax.map(weighted_output, jnp.arange(X)).astype(jnp.float32)
        whole_T = jnp.linalg.norm(jnp.sum(parts_XTD, axis=0), axis=-1)
        return jnp.linalg.norm(parts_XTD, axis=-1) / whole_T, toward_target(parts_XTD)

    share_LXT, experts_LXT = jax.lax.map(measure, jnp.arange(config.num_layers))
    return (
        jnp.einsum("LTX->TLX", routing.experts),
        jnp.einsum("LXT->TLX", share_LXT),
        jnp.einsum("LXT->TLX", experts_LXT),
        toward_target(middle_LTD.astype(jnp.float32) - stream[:-1]).T,
        toward_target(stream[0]),
        of_target(logits_TV, targets_T),
        targets_T,
    )


class Lens(NamedTuple):
    """The answer read off the stream after every layer, as if the model ended there.

    Row 0 is the embedding, row l + 1 the stream after layer l; the last row is the model's own answer.

    Attributes:
      top: int32 [L + 1, T], the most likely token.
      rank: int32 [L + 1, T], how many tokens come before the target; 0 where it leads.
      probability: float32 [L + 1, T], of the target.
      targets: int32 [T].
    """

    top: np.ndarray
    rank: np.ndarray
    probability: np.ndarray
    targets: np.ndarray


def logit_lens(model: GptOss, tokens: Any, targets: Any = None, change: Intervention | None = None) -> Lens:
    """``softmax(W_U norm(h_l))`` for every layer: the most likely token, and rank and probability of the target.

    Args:
      model: the model.
      tokens: int [T].
      targets: int [T]; by default the token that the whole model finds most likely.
      change: `Intervention` on the routing.

    Raises:
      ValueError: not one sequence, or ids outside the vocabulary.
    """
    T, padded, counts, followed = prepare_targets(model.config, tokens, targets, default="likely")
    change = None if change is None else jax.tree.map(jnp.asarray, change)
    return Lens(*(np.asarray(part)[..., :T] for part in _lens(model, padded, counts, followed, change)))


@jax.jit
def _lens(
    model: GptOss, tokens_1T: Array, counts: Array, targets_T: Array, change: Intervention | None
) -> tuple[Array, ...]:
    """The fields of `Lens`."""
    output: Any = model.run(tokens_1T, counts, change=change, record=Record(residual=True))
    targets_T = resolve(targets_T, model.unembedding(output.hidden)[0])
    ids = jnp.arange(model.config.vocab_size)

    def read(stream_TD: Array) -> tuple[Array, Array, Array]:
        logits_TV = model.unembedding(model.norm(stream_TD))
        own_T1 = of_target(logits_TV, targets_T)[:, None]
        ahead = (logits_TV > own_T1) | ((logits_TV == own_T1) & (ids < targets_T[:, None]))  # ties: the lower id leads
        probability_T = of_target(jax.nn.softmax(logits_TV), targets_T)
        return jnp.argmax(logits_TV, axis=-1), jnp.sum(ahead, axis=-1), probability_T

    return *jax.lax.map(read, output.residual[:, 0]), targets_T
