"""Recording: one forward pass, one generation, or a folder full of sequences."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gptoss_jax.tracing.record import Trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gptoss_jax.interventions import Intervention
    from gptoss_jax.model import GptOss
    from gptoss_jax.tokenizer import Tokenizer

TRACE_CHUNK = 1024  # tokens per dispatch; longer sequences go through the cache, which bounds attention memory


def trace(
    model: "GptOss",
    tokens: Any,
    *,
    tokenizer: "Tokenizer | None" = None,
    prompt_length: int | None = None,
    change: "Intervention | None" = None,
    logits: bool = True,
) -> Trace:
    """One forward pass over a token sequence, recorded (teacher forcing: the tokens are given, nothing is sampled).

    Args:
      model: the model.
      tokens: int [T].
      tokenizer: adds text, roles, channels and control-token marks to the trace.
      prompt_length: tokens from here on are marked as generated; None marks none.
      change: `Intervention` on the routing.
      logits: keep float32 [T, V] in memory; False saves it for long sequences and large vocabularies.

    Raises:
      ValueError: empty sequence, ids outside the vocabulary, more tokens than the model's context.
    """
    import jax.numpy as jnp

    from gptoss_jax.cache import KVCache
    from gptoss_jax.model import Record, bucket, check_tokens, run_recorded

    tokens = check_tokens(model.config, tokens)
    if tokens.ndim != 1:
        raise ValueError(f"trace() takes one sequence [T], not {list(tokens.shape)}; trace a batch row by row")
    T = len(tokens)
    if T > model.config.max_context:
        raise ValueError(f"{T} tokens exceed the model's context of {model.config.max_context}")
    cache = KVCache.create(model.config, 1, bucket(T), model.dtype) if T > TRACE_CHUNK else None
    parts = []
    for start in range(0, T, TRACE_CHUNK):
        chunk = tokens[start : start + TRACE_CHUNK]
        padded = np.zeros((1, bucket(len(chunk))), np.int32)
        padded[0, : len(chunk)] = chunk
        count = jnp.array([len(chunk)])
        output, scores = run_recorded(
            model, jnp.asarray(padded), count, cache, change, Record(routing=True), logits=logits
        )
        cache = output.cache
        routing = [np.moveaxis(np.asarray(leaf[:, 0, : len(chunk)]), 0, 1) for leaf in output.routing]
        parts.append([*routing, None if scores is None else np.asarray(scores[0, : len(chunk)])])
    router_logits, experts, weights, scores = (
        None if columns[0] is None else np.concatenate(columns) for columns in zip(*parts, strict=True)
    )
    generated = np.arange(T) >= (T if prompt_length is None else prompt_length)
    return _assemble(model, tokenizer, tokens, generated, router_logits, experts, weights, scores)


def trace_generation(
    model: "GptOss",
    prompt_ids: Any,
    max_new_tokens: int = 64,
    *,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    stop_tokens: Any = (),
    tokenizer: "Tokenizer | None" = None,
    change: "Intervention | None" = None,
) -> Trace:
    """Generate, and record the routing of prompt and new tokens as it happened; arguments as for `generate`.

    Returns:
      A `Trace` of prompt and new tokens (a stop token included), without logits.
    """
    from gptoss_jax.decoding import Decoder
    from gptoss_jax.sampling import Sampling

    sampling = Sampling.checked(temperature, top_k, top_p, seed)
    decoder = Decoder(
        model, [prompt_ids], max_new_tokens, sampling=sampling, stop_tokens=stop_tokens, change=change, record=True
    )
    tokens = [*np.asarray(prompt_ids).tolist(), int(decoder.tokens[0])]
    routings = [decoder.prompt_routing]
    limit = len(prompt_ids) + max_new_tokens
    while len(tokens) < limit and not decoder.done[0]:
        step = decoder.step(limit - len(tokens))
        tokens += step.tokens[0].tolist()
        routings.append(step.routing)
    routings.append(decoder.feed_last())
    logits, experts, weights = (
        np.moveaxis(np.concatenate(parts, axis=2)[:, 0], 0, 1) for parts in zip(*routings, strict=True)
    )
    generated = np.arange(len(tokens)) >= len(prompt_ids)
    return _assemble(model, tokenizer, np.array(tokens, np.int32), generated, logits, experts, weights, None)


def trace_files(
    model: "GptOss",
    sequences: "Mapping[str, Any]",
    out: str | Path,
    *,
    tokenizer: "Tokenizer | None" = None,
    compact: bool = True,
    change: "Intervention | None" = None,
) -> list[Path]:
    """Trace many token sequences to ``out/NAME.npz``, one after another; finished files are kept if a run is cut off.

    Args:
      sequences: name -> int [T]. A name becomes a file name and may not hold a path separator.
      compact: drop the full router logits (see `Trace.save`).
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for name in sequences:
        if not name or Path(name).name != name:
            raise ValueError(f"{name!r} cannot be a file name; use names without separators")
    return [
        trace(model, tokens, tokenizer=tokenizer, change=change, logits=False).save(
            out / f"{name}.npz", compact=compact
        )
        for name, tokens in sequences.items()
    ]


def _assemble(
    model: Any, tokenizer: Any, tokens: Any, generated: Any, router_logits: Any, experts: Any, weights: Any, logits: Any
) -> Trace:
    from gptoss_jax import __version__

    labels: dict[str, Any] = {}
    if tokenizer is not None:
        from gptoss_jax.harmony import Encoding

        seen = Encoding(tokenizer).label_tokens(tokens.tolist())
        labels = {
            "token_text": tuple(tokenizer.token_text(int(t)) for t in tokens),
            "special": np.array([label.part == "special" for label in seen]),
        }
        if labels["special"].any():  # plain text has no roles
            labels["roles"] = tuple(label.role or "" for label in seen)
            labels["channels"] = tuple(label.channel or "" for label in seen)
    return Trace(
        tokens=tokens,
        experts=experts,
        weights=weights,
        num_experts=model.config.num_experts,
        router_logits=router_logits,
        logits=logits,
        generated=generated,
        model=model.name,
        checkpoint_hash=model.checkpoint_hash,
        dtype=str(model.dtype),
        package_version=__version__,
        **labels,
    )
