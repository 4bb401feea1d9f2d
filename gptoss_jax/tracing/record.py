"""`Trace`: which experts served which token, as NumPy arrays that can be saved and read back."""

import dataclasses
import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "gptoss-jax trace"
FORMAT_VERSION = 1
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


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
      has_weights: False where the recorder kept the ids alone (vLLM); `weights` then holds 1 / X as a stand-in.
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
    has_weights: bool = True

    def __post_init__(self) -> None:
        put = lambda name, value: object.__setattr__(self, name, value)
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
        if self.experts.size and not (self.experts.min() >= 0 and self.experts.max() < self.num_experts):
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
        if self.router_logits is not None and np.isnan(self.router_logits).any():
            raise TraceError(f"router_logits hold {int(np.isnan(self.router_logits).sum())} NaN values")
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

    def save(self, path: str | Path, compact: bool = False) -> Path:
        """Write the trace as an ``.npz`` without pickles; the file appears complete or not at all.

        Everything but `logits` comes back bit for bit. ``compact=True`` also leaves out `router_logits` and keeps the
        weights as 16-bit fixed point (`_pack_weights`: error <= 1e-5 for X = 4), which makes 512 tokens x 36 layers
        of 128 experts at most 200 KiB.

        Args:
          path: the file, taken as it is; its folder must exist.
          compact: trade the full router logits and the last bits of the weights for size.

        Returns:
          The path.

        Raises:
          TraceError: the file cannot be written there.
        """
        path = Path(path)
        names = ("model", "checkpoint_hash", "dtype", "package_version", "has_weights", "num_experts")
        meta = {"format": FORMAT, "format_version": FORMAT_VERSION, "shape": self.experts.shape, "compact": compact}
        meta |= {name: getattr(self, name) for name in (*names, "token_text", "roles", "channels")}
        arrays: dict[str, Any] = {"tokens": self.tokens, "generated": self.generated, "special": self.special}
        arrays["experts"] = self.experts.astype(np.min_scalar_type(max(self.num_experts - 1, 0)))
        packed = _pack_weights(self.weights) if compact else None
        arrays |= {"weights": self.weights} if packed is None else {"packed_weights": packed}
        if self.router_logits is not None and not compact:
            arrays["router_logits"] = self.router_logits
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(buffer.getbuffer())
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise TraceError(f"{path}: cannot write the trace: {error.strerror}; give a file in a folder") from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
          TraceError: no such file, not a trace, written by a newer version, or damaged; names the file.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                if not zipfile.is_zipfile(file):
                    raise TraceError("not a trace; Trace.save writes .npz files, other recorders: gptoss_jax.routing")
                with np.load(file, allow_pickle=False) as archive:
                    if "meta" not in archive.files:
                        raise TraceError(f"not a {FORMAT}: an .npz with {', '.join(archive.files[:5]) or 'no arrays'}")
                    meta = json.loads(archive["meta"].tobytes())
                    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
                        raise TraceError(f"not a {FORMAT}")
                    if meta.get("format_version") != FORMAT_VERSION:
                        raise TraceError(
                            f"format version {meta.get('format_version')!r}; this package reads {FORMAT_VERSION}: "
                            "record the trace again, or install the gptoss_jax that wrote it"
                        )
                    arrays = {name: archive[name] for name in archive.files if name != "meta"}
            if "packed_weights" in arrays:
                arrays["weights"] = _unpack_weights(arrays.pop("packed_weights"))
            fields = {field.name for field in dataclasses.fields(cls)}
            text = {name: tuple(meta[name]) for name in ("token_text", "roles", "channels")}
            trace = cls(**{name: meta[name] for name in meta if name in fields} | arrays | text)
            if list(trace.experts.shape) != meta["shape"]:
                raise TraceError(f"holds {list(trace.experts.shape)} choices where {meta['shape']} were written")
        except TraceError as error:
            raise TraceError(f"{path}: {error}") from None
        except OSError as error:
            raise TraceError(f"{path}: cannot read the trace: {error.strerror or error}") from None
        except (*_DAMAGE, ValueError, KeyError, TypeError) as error:
            raise TraceError(f"{path}: damaged trace ({error}); copy or record it again") from None
        return trace

    def __repr__(self) -> str:
        T, L, X = self.experts.shape
        where = f"{self.generated.sum()} generated" if self.generated is not None else ""
        return f"Trace({T} tokens ({where}), {L} layers, {X} of {self.num_experts} experts, model={self.model!r})"


def _pack_weights(weights: np.ndarray) -> np.ndarray | None:
    """Weights [T, L, X] as uint16 [T, L, X-1], or None where rows do not sum to 1, highest first.

    The i-th highest of weights that sum to 1 is at most 1 / i, so i * w_i lies in 0 .. 1 and is kept in steps of
    1 / 65535; the highest is 1 minus the rest. Errors: w_i 0.5 / (65535 i), w_1 at most 7.63e-6 (1/2 + ... + 1/X),
    which is 8.3e-6 for X = 4 and 1.3e-5 for X = 8.
    """
    X = weights.shape[-1]
    if not weights.size or weights.min() < 0 or (np.diff(weights) > 0).any():
        return None
    if np.abs(weights.sum(-1) - 1).max() > 1e-5:
        return None
    return np.round(weights[..., 1:].astype(np.float64) * np.arange(2, X + 1) * 65535).clip(0, 65535).astype(np.uint16)


def _unpack_weights(packed: np.ndarray) -> np.ndarray:
    rest = packed / (np.arange(2, packed.shape[-1] + 2) * 65535)
    weights = np.concatenate([1 - rest.sum(-1, keepdims=True), rest], -1)
    return -np.sort(-weights).astype(np.float32)  # rounding may swap near ties; sorting adds no error
