"""How much memory this machine can still give, asked before anything large is allocated."""

import os
from pathlib import Path
from typing import Any


def _read_number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping, within the control group's limit; None where it is unknown."""
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    except OSError:
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        most, now = _read_number(limit), _read_number(used)
        if most is not None and now is not None:
            limits.append(most - now + _reclaimable(Path(used).parent))
    return max(0, min(limits)) if limits else None


def device_memory(device: Any) -> int | None:
    """Bytes that a `jax.Device` can still give within JAX's share of it; None where its runtime does not say."""
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else None


def _reclaimable(group: Path) -> int:
    """Cached file pages count as used but are given up when asked for."""
    try:
        fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return int(fields.get("inactive_file", 0)) + int(fields.get("active_file", 0))


def gib(nbytes: float) -> str:
    """``12.8 GiB``, ``640.0 MiB``: bytes for people."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes:.0f} B"
