"""What every metric takes: a `Trace`, or ids alone as vLLM records them, and which of its tokens count."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from gptoss_jax.tracing import Trace

Routed: TypeAlias = Trace | np.ndarray  # a trace, or expert ids [T, L, X]


class MetricError(ValueError):
    """A question that this input cannot answer, with what is missing and what to do."""


def chosen(
    routed: Routed, num_experts: int | None = None, mask: np.ndarray | None = None, least: int = 1
) -> tuple[np.ndarray, int]:
    """The chosen ids and the number of experts.

    Args:
      routed: a trace, or ids [T, L, X].
      num_experts: E, needed with plain ids: the largest id seen would hide experts that were never chosen.
      mask: bool [T], the tokens that count; all when None.
      least: how many tokens the metric needs.

    Returns:
      int64 ids [n, L, X] of the n tokens that count, and E.

    Raises:
      MetricError: too few tokens, ids outside 0 .. E-1, or an id twice in one token's set.
    """
    if isinstance(routed, Trace):
        ids, E = routed.experts, routed.num_experts
        if num_experts is not None and num_experts != E:
            raise MetricError(f"num_experts is {num_experts}, but the trace was recorded with {E}; leave it out")
    else:
        ids = np.asarray(routed)
        if ids.ndim != 3 or ids.dtype.kind not in "iu":
            raise MetricError(f"experts must be integers [tokens, layers, k], not {ids.dtype} {list(ids.shape)}")
        if num_experts is None:
            raise MetricError("num_experts is missing: plain ids do not say how many experts there were")
        E = num_experts
    if ids.size and not (ids.min() >= 0 and ids.max() < E):
        raise MetricError(f"expert id {ids.min() if ids.min() < 0 else ids.max()} lies outside 0 .. {E - 1}")
    ids = ids[_selected(mask, len(ids), least)].astype(np.int64)
    X = ids.shape[-1]
    for i in range(X):
        for j in range(i):
            if (ids[..., i] == ids[..., j]).any():
                t, layer = np.argwhere(ids[..., i] == ids[..., j])[0]
                raise MetricError(f"token {t}, layer {layer} chose expert {ids[t, layer, i]} twice")
    return ids, E


def weights_of(trace: Routed, metric: str, mask: np.ndarray | None = None) -> np.ndarray:
    """float64 weights [n, L, X] of the tokens that count, or a `MetricError` that says `metric` needs them."""
    if not isinstance(trace, Trace):
        raise MetricError(f"{metric} needs weights; ids alone do not have them: give a Trace")
    if not trace.has_weights:
        raise MetricError(f"{metric} needs weights; {trace.package_version or 'this recorder'} kept the ids alone")
    return trace.weights[_selected(mask, len(trace), 1)].astype(np.float64)


def logits_of(trace: Routed, metric: str, mask: np.ndarray | None = None) -> np.ndarray:
    """float32 router logits [n, L, E] of the tokens that count, or a `MetricError` that says `metric` needs them."""
    if not isinstance(trace, Trace) or trace.router_logits is None:
        raise MetricError(f"{metric} needs router_logits, which a compact trace lacks: save without compact")
    selected = _selected(mask, len(trace), 1)
    return trace.router_logits if selected.all() else trace.router_logits[selected]


def _selected(mask: np.ndarray | None, T: int, least: int) -> np.ndarray:
    if mask is None:
        mask = np.ones(T, bool)
    mask = np.asarray(mask)
    if mask.shape != (T,) or mask.dtype != bool:
        raise MetricError(f"mask must be bool [{T}], one entry a token, not {mask.dtype} {list(mask.shape)}")
    if mask.sum() < least:
        raise MetricError(f"{int(mask.sum())} of {T} tokens are left, the metric needs {least}: widen the mask")
    return mask


def token_mask(
    trace: Trace,
    generated: bool | None = None,
    roles: str | Collection[str] | None = None,
    channels: str | Collection[str] | None = None,
    special: bool | None = None,
) -> np.ndarray:
    """Which tokens fulfil every condition given.

    Args:
      trace: the record.
      generated: True for what the model wrote, False for the prompt.
      roles, channels: one name or several.
      special: True for control tokens alone, False for text alone.

    Returns:
      bool [T].

    Raises:
      MetricError: the trace knows no roles or channels, or none of that name.
    """
    mask = np.ones(len(trace), bool)
    if generated is not None:
        mask &= trace.generated == generated
    if special is not None:
        mask &= trace.special == special
    for field, wanted in (("roles", roles), ("channels", channels)):
        if wanted is not None:
            known = names_of(trace, field)
            names = [wanted] if isinstance(wanted, str) else sorted(wanted)
            for name in names:
                if name not in known:
                    raise MetricError(f"no token has {field[:-1]} {name!r}; this trace has {sorted(set(known))}")
            mask &= np.isin(np.array(known), names)
    return mask


def names_of(trace: Trace, field: str) -> tuple[str, ...]:
    """`roles` or `channels` of a trace; a `MetricError` where it has none."""
    names: tuple[str, ...] = getattr(trace, field)
    if not names and len(trace):
        raise MetricError(f"this trace has no {field}: record a Harmony conversation, not plain tokens")
    return names


def label_codes(labels: Sequence, T: int, mask: np.ndarray | None, name: str = "labels") -> tuple[list, np.ndarray]:
    """Distinct labels in order of first appearance, and for each token that counts the number of its label."""
    if len(labels) != T:
        raise MetricError(f"{name} has {len(labels)} entries for {T} tokens")
    kept = [label for label, keep in zip(labels, _selected(mask, T, 1), strict=True) if keep]
    number: dict = {}
    codes = np.array([number.setdefault(label, len(number)) for label in kept], np.int64)
    return list(number), codes


def same_model(a: Trace, b: Trace, across_checkpoints: bool = False) -> None:
    """Raise a `MetricError` unless an expert id means the same expert in both traces.

    Args:
      a, b: two traces.
      across_checkpoints: the caller vouches that both come from one training run.
    """
    for name in ("num_layers", "num_experts", "experts_per_token"):
        if getattr(a, name) != getattr(b, name):
            raise MetricError(f"the traces have different {name}: {getattr(a, name)} and {getattr(b, name)}")
    if not across_checkpoints and a.model and b.model and a.model != b.model:
        raise MetricError(
            f"the traces are of different models, {a.model!r} and {b.model!r}: expert 3 of one is not expert 3 of the "
            "other. If both are checkpoints of one training run, pass across_checkpoints=True"
        )


def join(traces: Mapping[str, Trace | Sequence[Trace]]) -> tuple[Trace, list[str], np.ndarray]:
    """Put traces of one model end to end, so that metrics can compare what they are about.

    Args:
      traces: one trace or several for each label, e.g. ``{"math": [trace, trace], "code": trace}``.

    Returns:
      The joined trace; the label of each token; int [T], the number of the trace that each token came from, for the
      `groups` of a metric: tokens of one document are not independent.
    """
    parts = [(label, t) for label, group in traces.items() for t in ([group] if isinstance(group, Trace) else group)]
    if not parts:
        raise MetricError("no traces to join")
    first = parts[0][1]
    for _, part in parts[1:]:
        same_model(first, part)
    every = [part for _, part in parts]

    def stack(name: str) -> np.ndarray | None:
        arrays = [getattr(part, name) for part in every]
        return None if any(array is None for array in arrays) else np.concatenate(arrays)

    def texts(name: str) -> tuple[str, ...]:
        lists = [getattr(part, name) for part in every]
        return sum(lists, ()) if all(len(x) == len(t) for x, t in zip(lists, every, strict=True)) else ()

    fields = ("tokens", "experts", "weights", "router_logits", "logits", "generated", "special")
    arrays = {name: stack(name) for name in fields}
    names = {name: texts(name) for name in ("token_text", "roles", "channels")}
    joined = Trace(
        num_experts=first.num_experts,
        model=first.model,
        checkpoint_hash=first.checkpoint_hash if len({t.checkpoint_hash for t in every}) == 1 else "",
        dtype=first.dtype if len({t.dtype for t in every}) == 1 else "",
        package_version=first.package_version,
        has_weights=all(t.has_weights for t in every),
        **arrays,  # type: ignore[arg-type]
        **names,  # type: ignore[arg-type]
    )
    labels = [label for label, part in parts for _ in range(len(part))]
    return joined, labels, np.repeat(np.arange(len(every)), [len(part) for part in every])
