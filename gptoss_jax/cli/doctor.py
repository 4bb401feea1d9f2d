"""``doctor``: what this machine has, what would fail, and how to mend it."""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from gptoss_jax import __version__


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Options of ``doctor``."""
    parser.epilog = "examples:\n  gptoss-jax doctor\n  gptoss-jax doctor --checkpoint ~/gpt-oss-20b"
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="would this checkpoint fit?")
    parser.set_defaults(run=_doctor)


class Report:
    """Lines of the examination, and how many ask for something."""

    def __init__(self) -> None:
        self.failures = 0

    def good(self, name: str, text: str) -> None:
        """Something in order."""
        print(f"  ok    {name}: {text}")

    def bad(self, name: str, text: str, remedy: str) -> None:
        """Something to mend."""
        self.failures += 1
        print(f"  MEND  {name}: {text}\n        -> {remedy}")

    def optional(self, name: str, text: str) -> None:
        """Something that only some uses need."""
        print(f"  -     {name}: {text}")


def _doctor(options: argparse.Namespace) -> int:
    report = Report()
    print(f"gptoss-jax {__version__} on {platform.platform()}")
    _python(report)
    _packages(report)
    _disk(report)
    if not report.failures:  # what follows needs the packages
        _devices(report)
        _memory(report, options.checkpoint)
        _model(report)
    print("all is well" if not report.failures else f"{report.failures} to mend")
    return 1 if report.failures else 0


def _python(report: Report) -> None:
    report.good("Python", f"{platform.python_version()} at {sys.executable}")


def _requirements() -> list[str]:
    """What the package needs, in the words of its metadata; of pyproject.toml where it is not installed."""
    try:
        return importlib.metadata.requires("gptoss-jax") or []
    except importlib.metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return project["dependencies"]


def _packages(report: Report) -> None:
    try:
        importlib.metadata.version("gptoss-jax")
    except importlib.metadata.PackageNotFoundError:
        report.bad("gptoss-jax", "not installed in this Python", "make lab, or  python -m pip install -e '.[lab]'")
    try:
        from packaging.requirements import Requirement
    except ImportError:
        missing = [need for need in _requirements() if importlib.util.find_spec(re.split(r"\W", need)[0]) is None]
        report.bad("packages", f"missing: {', '.join(missing)}", "make lab, or  python -m pip install -e '.[lab]'")
        return
    for text in _requirements():
        need = Requirement(text)
        extra = None
        if need.marker is not None:
            extra = next((e for e in ("lab", "test", "docs", "oracles") if need.marker.evaluate({"extra": e})), None)
            if extra is None:
                continue
        try:
            version = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            if extra is None:
                report.bad(need.name, "missing", f"python -m pip install '{need.name}{need.specifier}'")
            elif extra in ("lab", "test"):
                report.optional(need.name, f"missing; needed for {extra}: python -m pip install -e '.[{extra}]'")
            continue
        if not need.specifier.contains(version, prereleases=True):
            report.bad(
                need.name, f"{version}, need {need.specifier}", f"python -m pip install '{need.name}{need.specifier}'"
            )
        elif extra is None:
            report.good(need.name, version)


def _devices(report: Report) -> None:
    try:
        import jax

        devices = jax.devices()
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        report.bad("JAX devices", reason, "on a machine without a working GPU set JAX_PLATFORMS=cpu")
        return
    report.good("JAX devices", f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})")
    if devices[0].platform == "cpu" and shutil.which("nvidia-smi"):
        report.optional("GPU", "there is one, but this JAX uses the CPU: python -m pip install 'jax[cuda13]'")


def _memory(report: Report, folder: Path | None) -> None:
    from gptoss_jax.checkpoint.memory import available_memory, gib

    free = available_memory()
    if free is None:
        report.optional("memory", "this system does not say how much is free")
        return
    if free < 1.5 * 2**30:
        report.bad("memory", f"{gib(free)} free", "close other programs: a lesson needs up to 1.5 GiB")
    else:
        report.good("memory", f"{gib(free)} free")
    if folder is not None:
        from gptoss_jax.checkpoint import inspect

        found = inspect(folder)
        for problem in found.problems:
            report.bad(str(folder), problem, f"gptoss-jax verify {folder}")
        need = found.memory["bfloat16"] + found.cache_bytes
        if need > free:
            report.bad(
                found.name,
                f"needs {gib(need)} of memory",
                "load its first layers only (--first-layers 4), or --lazy-experts",
            )
        else:
            report.good(found.name, f"needs {gib(need)} of memory")


def _disk(report: Report) -> None:
    try:
        with tempfile.NamedTemporaryFile():
            pass
        report.good("temporary folder", tempfile.gettempdir())
    except OSError as error:
        report.bad("temporary folder", str(error), "set TMPDIR to a folder that you may write to")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    report.good("cores", str(cores))


def _model(report: Report) -> None:
    from gptoss_jax.checkpoint.reading import BUILT_IN

    if not (BUILT_IN / "config.json").is_file():
        report.bad("built-in model", f"missing from {BUILT_IN}", "install the package again")
        return
    try:
        import gptoss_jax as gj

        model, tokenizer = gj.load()
        model(tokenizer.encode_ordinary("Hello"))
        report.good("built-in model", f"{model.config.num_layers} layers, runs")
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        report.bad("built-in model", " ".join(str(error).split())[:200], "install the package again")
    if importlib.util.find_spec("matplotlib") is None:
        report.bad("figures", "matplotlib is missing", "python -m pip install matplotlib")
