"""From results.json to README.md."""

import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GB = 1e9
HEADER = """# Speed on a CPU

Written by `python -m benchmarks`; do not edit. Random weights of the published shapes: speed does not depend on them.
Engines are asked in turns and the least time counts. "processors" is the time of all cores together: on a machine that
does other work as well, the wall clock includes waiting for it, and that time is the better guide.

"""


def machine() -> dict[str, Any]:
    """What this was measured on."""
    model, memory = platform.processor(), 0
    try:
        model = next(
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        )
        memory = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
        flags = Path("/proc/cpuinfo").read_text()
    except (OSError, StopIteration):
        flags = ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    sets = [name for name in ("avx2", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16") if name in flags]
    return {
        "processor": model,
        "cores": cores,
        "memory": memory,
        "instructions": sets,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _row(*cells: Any) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _table(titles: list[str], rows: list[str]) -> str:
    return "\n".join([_row(*titles), _row(*("---" for _ in titles)), *rows]) + "\n"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}" if seconds >= 0.1 else f"{seconds * 1e3:.1f}"


def _sections(results: dict[str, Any]) -> Iterator[str]:
    m = results["machine"]
    yield (
        f"Machine: {m['processor']}, {m['cores']} cores ({', '.join(m['instructions'])}), {m['memory'] / GB:.0f} GB, "
        f"{m['system']}, Python {m['python']}. Memory read at {results.get('bandwidth', 0) / GB:.1f} GB/s by one "
        "addition a number, a thread a core, while the rest of the machine did what it did.\n"
    )
    if "slice" in results:
        yield from _slice(results["slice"], results.get("bandwidth", 0))
    if "transformers" in results:
        for instructions, limit in (
            ("all", ""),
            ("AVX2", ", both without instructions newer than AVX2, as on most laptops"),
        ):
            title = f"4 layers of gpt-oss-20b beside transformers{limit}"
            yield _pair(title, results["transformers"][instructions], {})
    if "trace" in results:
        t = results["trace"]
        more = {k: t["recorded"][k] / t["plain"][k] - 1 for k in ("wall", "processor")}
        yield (
            f"## Recording the routing\n\nA token with its routing recorded takes {more['processor']:+.1%} of "
            f"processor time and {more['wall']:+.1%} on the wall ({_ms(t['plain']['wall'])} ms without).\n"
        )
    if "context" in results:
        rows = [
            _row(f"{int(n):,}", _ms(r["wall"]), _ms(r["processor"]), f"{r['cache'] / 1e6:,.0f}")
            for n, r in results["context"].items()
            if n.isdigit() and "wall" in r
        ]
        titles = ["tokens before", "ms a token", "processors, ms", "cache, MB (float32)"]
        yield "## Cost of context (4 layers, 2 of them sliding, decode)\n\n" + _table(titles, rows)
    if "layers" in results:
        rows = [
            _row(n, _ms(r["wall"]), _ms(r["processor"]), f"{r['first']['processor']:.1f}")
            for n, r in results["layers"].items()
            if n.isdigit() and "wall" in r
        ]
        titles = ["layers", "ms a token", "processors, ms", "first step with compilation, processor s"]
        yield "## Cost of depth (decode)\n\n" + _table(titles, rows)
    if "full" in results:
        yield _full(results["full"])


def _slice(found: dict[str, Any], bandwidth: float) -> Iterator[str]:
    for kind, pair in found["pairs"].items():
        name = "4 layers of gpt-oss-20b" + ("" if kind == "alone" else f" beside llama.cpp, dense weights in {kind}")
        yield _pair(name, pair, found["bytes"], bandwidth)
    if "wall" in found["decode8"]:
        eight = found["decode8"]
        yield (
            f"Eight sequences at once: {_ms(eight['wall'])} ms a step, {8 / eight['wall']:.1f} tokens/s together "
            f"({_ms(eight['processor'])} ms of processors).\n"
        )


def _pair(title: str, pair: dict[str, Any], moved: dict[str, int], bandwidth: float = 0) -> str:
    rows = []
    for task, engines in pair.items():
        if not isinstance(engines, dict) or "ours" not in engines:
            continue
        kind, _, count = task.partition(" ")
        for name, r in engines.items():
            if "error" in r:
                rows.append(_row(task, name, r["error"], *[""] * 6))
                continue
            number = 1 if kind == "decode" else int(count)
            data = moved.get(name) if kind == "decode" else None
            ours, speed = engines["ours"], (data / r["wall"] if data else 0)
            rows.append(
                _row(
                    f"{kind} {'' if kind == 'decode' else count}",
                    name,
                    _ms(r["wall"]),
                    _ms(r["processor"]),
                    f"{number / r['wall']:.1f}",
                    f"{data / GB:.2f}" if data else "",
                    f"{speed / GB:.1f} ({speed / bandwidth:.0%})" if data and bandwidth else "",
                    f"{ours['wall'] / r['wall']:.2f} / {ours['processor'] / r['processor']:.2f}",
                    f"{r['peak'] / GB:.1f}",
                )
            )
    titles = ["task", "engine", "ms", "processors, ms", "tokens/s", "GB moved", "GB/s (of measured)"]
    titles += ["ours / it: wall / processors", "peak memory, GB"]
    info = pair.get("info", {})
    note = f"{info.get('engine', '')}" + (
        "; its repacked weights are switched off: with them it ends with a segmentation fault on this processor"
        if info.get("repack") is False
        else ""
    )
    return f"## {title}\n\n{note}\n\n" + _table(titles, rows)


def _full(found: dict[str, Any]) -> str:
    decode, prefill, load = found["decode 1"], found["prefill 256"], found["load"]
    rows = [
        _row("load", f"{min(found['loads']):.1f} s", "", f"{load['peak'] / GB:.2f}"),
        _row("prefill 256", _ms(prefill["wall"]), _ms(prefill["processor"]), f"{prefill['peak'] / GB:.2f}"),
        _row("decode", _ms(decode["wall"]), _ms(decode["processor"]), f"{decode['peak'] / GB:.2f}"),
    ]
    return (
        "## The whole gpt-oss-20b\n\n"
        + _table(["task", "ms", "processors, ms", "peak memory, GB"], rows)
        + f"\nA token moves {found['bytes'] / GB:.2f} GB. `roofline` predicts {found['predicted'] / GB:.2f} GB for "
        "weights and cache; the rest of the peak is the Python process and JAX.\n\n"
        f"Reading the files once, cold, into one small buffer took {_seconds(found['reads'])}; loading them cold, in "
        f"turns with that, {_seconds(found['loads'])}: {min(found['loads']) / min(found['reads']):.2f} times as long, "
        "the least of each. All began with free memory that had been written to a moment before. That matters on a "
        "virtual machine which returns free memory to its host: this one wrote "
        f"{found['touches'][0] / GB:.1f} GB/s into memory as it was found and {found['touches'][1] / GB:.1f} GB/s "
        f"directly after. With memory as it was found the load took {found['load_found']['seconds']:.1f} s.\n"
    )


def _seconds(values: list[float]) -> str:
    return " and ".join(f"{value:.1f} s" for value in values)


def write_table(source: Path, target: Path) -> None:
    """Write README.md from results.json."""
    text = HEADER + "\n".join(_sections(json.loads(source.read_text())))
    partial = target.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(target)


if __name__ == "__main__":
    write_table(Path(sys.argv[1]), Path(sys.argv[2]))
