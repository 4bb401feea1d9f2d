"""Compiled programs are kept in the user's cache folder, so that a command compiles them once."""

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path


def keep_compiled_programs() -> None:
    """Tell JAX, before it is imported, where to keep what it compiles; whoever has set that already is obeyed.

    The folder's name carries the processor's abilities and the version: a home folder may be shared by machines that
    differ, and a program compiled for one may not run on another.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or os.environ.get("JAX_ENABLE_COMPILATION_CACHE") in ("0", "false"):
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gptoss_jax" / f"compiled-{_machine()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # no home to write to: every run compiles
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        abilities = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    except OSError:
        abilities = [platform.processor()]
    text = "\n".join([*abilities, platform.machine(), importlib.metadata.version("jaxlib")])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
