"""gpt-oss, opened up: the open-weight mixture-of-experts models in readable JAX and Flax.

The public names are loaded on first use, so that ``import gptoss_jax`` costs nothing:

>>> import gptoss_jax as gj
>>> model, tokenizer = gj.load()
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "ModelConfig": "config",
    "Tokenizer": "tokenizer",
    "GptOss": "model",
    "load": "checkpoint",
    "save": "checkpoint",
    "verify": "checkpoint",
    "generate": "decoding",
    "trace": "tracing",
    "Trace": "tracing",
}
_MODULES = {"mxfp4", "tracing", "harmony", "routing", "interventions", "causes", "roofline"}

__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"gptoss_jax.{_HOME[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"gptoss_jax.{name}")
    raise AttributeError(f"module 'gptoss_jax' has no attribute {name!r}; public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
