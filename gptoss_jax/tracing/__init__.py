"""What a forward pass can record: `trace()` and the `Trace` it returns.

A `Trace` holds NumPy arrays only; importing this package does not import JAX, so that pictures and metrics of a
saved trace need nothing but NumPy.
"""

from gptoss_jax.tracing.record import FORMAT, FORMAT_VERSION, Trace, TraceError
from gptoss_jax.tracing.recorder import trace, trace_files, trace_generation

__all__ = ["FORMAT", "FORMAT_VERSION", "Trace", "TraceError", "trace", "trace_files", "trace_generation"]
