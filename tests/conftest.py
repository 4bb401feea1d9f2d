"""Shared by all tests: one compilation cache, quiet CPU, and the golden checkpoints."""

import collections
import gc
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import hypothesis
import jax
import pytest

GOLDEN = Path(__file__).parent / "parity" / "golden"


MAPS, MOST_MAPS = Path("/proc/self/maps"), 20_000


@pytest.fixture(autouse=True)
def room_for_programs():
    """Forget compiled programs before they fill the process's table of memory maps.

    Each program takes a dozen of the 65,530 maps that Linux grants a process by default; one more, and the compiler
    dies of a segmentation fault. Compiling again is cheap: the persistent cache keeps the programs.
    """
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Two random checkpoints with the outputs of the reference implementations; see its README."""
    return GOLDEN


# Compilation and a busy machine make single examples slow; the seed is fixed so that a failure can be repeated.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")


def pytest_terminal_summary(terminalreporter):
    """The ledger: where the time went, by file, in seconds of all workers together."""
    seconds = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.split("::")[0]] += report.duration
    terminalreporter.section(f"ledger: {seconds.total():.0f} s of tests")
    for name, spent in seconds.most_common(20):
        terminalreporter.write_line(f"{spent:7.1f}  {name}")
