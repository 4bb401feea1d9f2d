"""What a forward pass can record: `trace()` and the `Trace` it returns.

A `Trace` holds NumPy arrays only; importing this module does not import JAX, so that pictures and metrics of a
saved trace need nothing but NumPy.
"""

import dataclasses
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

FORMAT = "gptoss-jax trace"
FORMAT_VERSION = 1


class TraceError(ValueError):
    """A trace that cannot be read or used, with the field and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """Which experts served which token, in every layer.

    Attributes:
      tokens: int32 [T], token ids.
      experts: int32 [T, L, X], chosen experts, highest weight first; ties go to the lower id.
      weights: float32 [T, L, X], softmax over the chosen router logits; rows sum to 1.
      num_experts: E.
      router_logits: float32 [T, L, E], bias included; None in a compact trace.
      logits: float32 [T, V], in memory only, never saved.
      generated: bool [T], True where the model wrote the token, False in the prompt.
      token_text: T strings for display; bytes that are not UTF-8 are shown as ``\\xNN``. Empty if unknown.
      roles: T Harmony roles (``system``, ``user``, ...; "" outside a message). Empty if unknown.
      channels: T Harmony channels (``analysis``, ``final``, ...; "" where there is none). Empty if unknown.
      special: bool [T], True for control tokens such as ``<|start|>``.
      model: name of the checkpoint.
      checkpoint_hash: sha256 over its weights, or "".
      dtype: activations' dtype.
      package_version: that of gptoss_jax, or the name of the recorder.
    """

    tokens: np.ndarray
    experts: np.ndarray
    weights: np.ndarray
    num_experts: int
    router_logits: np.ndarray | None = None
    logits: np.ndarray | None = None
    generated: np.ndarray | None = None
    token_text: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    special: np.ndarray | None = None
    model: str = ""
    checkpoint_hash: str = ""
    dtype: str = ""
    package_version: str = ""

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731 - the dataclass is frozen
        put("tokens", np.asarray(self.tokens, np.int32))
        put("experts", np.asarray(self.experts, np.int32))
        put("weights", np.asarray(self.weights, np.float32))
        T = len(self.tokens) if self.tokens.ndim == 1 else -1
        for name in ("generated", "special"):
            value = getattr(self, name)
            put(name, np.zeros(max(T, 0), bool) if value is None else np.asarray(value, bool))
        if self.experts.ndim != 3 or self.experts.shape[0] != T:
            raise TraceError(f"experts must be [T, L, X] with T = {T} tokens, not {list(self.experts.shape)}")
        if self.weights.shape != self.experts.shape:
            raise TraceError(f"weights {list(self.weights.shape)} and experts {list(self.experts.shape)} differ")
        if self.experts.size and not (0 <= self.experts.min() and self.experts.max() < self.num_experts):
            bad = self.experts.min() if self.experts.min() < 0 else self.experts.max()
            raise TraceError(f"expert id {bad} lies outside 0 .. {self.num_experts - 1}")
        if not np.isfinite(self.weights).all():
            raise TraceError(f"weights hold {int((~np.isfinite(self.weights)).sum())} values that are not finite")
        for name in ("router_logits", "logits"):
            value = getattr(self, name)
            if value is not None:
                put(name, np.asarray(value, np.float32))
        expected = (*self.experts.shape[:2], self.num_experts)
        if self.router_logits is not None and self.router_logits.shape != expected:
            raise TraceError(f"router_logits must be {list(expected)}, not {list(self.router_logits.shape)}")
        for name in ("generated", "token_text", "roles", "channels", "special"):
            if len(getattr(self, name)) not in ((T,) if name in ("generated", "special") else (0, T)):
                raise TraceError(f"{name} has {len(getattr(self, name))} entries for {T} tokens")

    @property
    def num_layers(self) -> int:
        """L."""
        return self.experts.shape[1]

    @property
    def experts_per_token(self) -> int:
        """X."""
        return self.experts.shape[2]

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        T, L, X = self.experts.shape
        where = f"{self.generated.sum()} generated" if self.generated is not None else ""
        return f"Trace({T} tokens ({where}), {L} layers, {X} of {self.num_experts} experts, model={self.model!r})"
