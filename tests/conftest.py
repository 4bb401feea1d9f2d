"""Shared by all tests: one compilation cache, quiet CPU, and the golden checkpoints."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import hypothesis
import pytest

GOLDEN = Path(__file__).parent / "parity" / "golden"


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Two random checkpoints with the outputs of the reference implementations; see its README."""
    return GOLDEN


# Compilation and a busy machine make single examples slow; the seed is fixed so that a failure can be repeated.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")
