"""Traces recorded elsewhere: vLLM's `routed_experts` and transformers' `output_router_logits`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gptoss_jax.tracing import Trace, TraceError


def from_vllm(
    routed_experts: np.ndarray,
    num_experts: int,
    prompt_tokens: Sequence[int],
    generated_tokens: Sequence[int] = (),
    **known: Any,
) -> Trace:
    """Read `CompletionOutput.routed_experts` of vLLM (server option ``enable_return_routed_experts``).

    vLLM keeps ids alone, so `has_weights` is False. The last sampled token never went through the model: with
    n ids for n + 1 tokens it is left out.

    Args:
      routed_experts: integers [tokens, layers, k].
      num_experts: E, which the ids do not tell.
      prompt_tokens, generated_tokens: token ids.
      **known: other fields of `Trace`, e.g. ``model="openai/gpt-oss-20b"``, ``token_text=...``.

    Returns:
      A `Trace` without router logits and without weights.

    Raises:
      TraceError: shapes that do not fit, or an id outside 0 .. E-1.
    """
    ids = np.asarray(routed_experts)
    if ids.ndim != 3 or ids.dtype.kind not in "iu":
        raise TraceError(f"routed_experts must be integers [tokens, layers, k], not {ids.dtype} {list(ids.shape)}")
    tokens = np.concatenate([np.asarray(list(prompt_tokens), np.int64), np.asarray(list(generated_tokens), np.int64)])
    if len(ids) not in (len(tokens), len(tokens) - 1):
        raise TraceError(
            f"routed_experts has {len(ids)} positions for {len(prompt_tokens)} prompt and {len(generated_tokens)} "
            "generated tokens; give the tokens of the same request"
        )
    tokens = tokens[: len(ids)]
    return Trace(
        tokens=tokens,
        experts=ids,
        weights=np.full(ids.shape, 1 / max(ids.shape[2], 1)),
        num_experts=num_experts,
        generated=np.arange(len(ids)) >= len(prompt_tokens),
        has_weights=False,
        **{"package_version": "vLLM"} | known,
    )


def from_transformers(
    router_logits: Sequence[Any], tokens: Sequence[int], experts_per_token: int = 4, **known: Any
) -> Trace:
    """Read the `router_logits` of a transformers model called with ``output_router_logits=True``.

    transformers 5 returns logits. In 4.55 to 4.57 the same field of gpt-oss held the *scores*: weights after the
    softmax over the chosen, scattered into zeros. Such tuples are recognized, and the trace then has weights but no
    router logits.

    Args:
      router_logits: L arrays or torch tensors [T, E] of one sequence without padding; [1, T, E] is accepted.
      tokens: T ids.
      experts_per_token: X.
      **known: other fields of `Trace`.

    Raises:
      TraceError: shapes that do not fit or values that are not finite, with the layer.
    """
    if not len(router_logits):
        raise TraceError("router_logits is empty; call the model with output_router_logits=True")
    layers: list[np.ndarray] = []
    for number, layer in enumerate(router_logits):
        if hasattr(layer, "detach"):  # a torch tensor; bfloat16 has no NumPy type
            layer = layer.detach().to("cpu").float().numpy()
        z = np.asarray(layer, np.float32)
        if z.ndim == 3 and len(z) == 1:
            z = z[0]
        if z.ndim != 2 or len(z) != len(tokens) or (layers and z.shape != layers[0].shape):
            raise TraceError(
                f"router_logits[{number}] is {list(z.shape)} for {len(tokens)} tokens; need [tokens, experts]"
            )
        if not np.isfinite(z).all():
            raise TraceError(f"router_logits[{number}] holds {int((~np.isfinite(z)).sum())} values that are not finite")
        layers.append(z)
    z = np.stack(layers, 1)
    X, E = experts_per_token, z.shape[-1]
    if not 1 <= X <= E:
        raise TraceError(f"experts_per_token {X} lies outside 1 .. {E}, the number of experts")
    experts = np.argsort(-z, axis=-1, kind="stable")[..., :X]
    top = np.take_along_axis(z, experts, -1)
    scores = X < E and z.size > 0 and ((z != 0).sum(-1) <= X).all() and np.allclose(z.sum(-1), 1, atol=1e-2)
    weights = top if scores else np.exp(top - top.max(-1, keepdims=True))
    return Trace(
        tokens=np.asarray(list(tokens)),
        experts=experts,
        weights=weights / weights.sum(-1, keepdims=True),
        num_experts=E,
        router_logits=None if scores else z,
        **{"package_version": "transformers"} | known,
    )
