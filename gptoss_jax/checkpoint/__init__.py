"""Checkpoints in the published byte format: load, save, verify, inspect, convert, synthesize."""

import importlib
from typing import Any

_HOME = {
    "CheckpointError": "files",
    "open_checkpoint": "folder",
    "load": "reading",
    "save": "saving",
    "convert": "converting",
    "synthesize": "synthesizing",
    "inspect": "inspecting",
    "verify": "verifying",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"gptoss_jax.checkpoint.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gptoss_jax.checkpoint' has no attribute {name!r}")
