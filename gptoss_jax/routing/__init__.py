"""Seeing the experts: `metrics` of a trace, `figures` of arrays, `explorer`, a `planted` toy, `foreign` traces.

Nothing here imports JAX; the parts are loaded on first use, so that metrics do not wait for matplotlib.
"""

import importlib
from typing import Any

_PARTS = ("metrics", "figures", "report", "explorer", "planted", "foreign")

__all__ = list(_PARTS)


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"gptoss_jax.routing.{name}")
    raise AttributeError(f"module 'gptoss_jax.routing' has no attribute {name!r}; parts: {', '.join(_PARTS)}")


def __dir__() -> list[str]:
    return list(_PARTS)
