"""Measure gpt-oss on a CPU, beside llama.cpp and transformers in the same run, and write the table.

    python -m benchmarks [--peers PYTHON] [--folder DIR] [--parts NAME ...] [--rounds N] [--json FILE]

`--peers` is the Python of an environment with llama-cpp-python, gguf, torch and transformers; without it ours is
measured alone. `--folder` is a full checkpoint (``gptoss-jax convert --synthesize gpt-oss-20b DIR`` writes a random one
of the published size). Engines are asked in turns; the least of all rounds counts, since other work on the machine can
only add. Seconds are given on the wall and of the processors together: on a busy machine only ratios mean something.
"""

import argparse
import datetime
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import machine, write_table
from gptoss_jax import roofline
from gptoss_jax.checkpoint.memory import available_memory
from gptoss_jax.config import GPT_OSS_20B

HERE = Path(__file__).parent
LAYERS = 4
PARTS = ("slice", "trace", "context", "layers", "transformers", "full")  # in this order
CONTEXTS = (128, 1024, 4096, 32_768)
REST = 60  # seconds after which a virtual machine has given free memory back
Q8_BITS = 8.5  # 32 values and a float16
# What makes either engine do without instructions newer than AVX2, as on most laptops
AVX2 = {
    "ours": {
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2 --xla_cpu_experimental_ynn_fusion_type=",  # one matrix library ignores it,
        "ONEDNN_MAX_CPU_ISA": "AVX2",  # the other has a limit of its own
    },
    "transformers": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}


class Worker:
    """A process with one engine; see worker.py."""

    def __init__(self, python: str, *args: str, env: dict[str, str] | None = None):
        command = [python, str(HERE / "worker.py"), *args]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, env=os.environ | (env or {}), **pipes)
        self.info = self._read()

    def _read(self) -> dict[str, Any]:
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        return {"error": f"the engine ended with status {self.process.wait()}"}

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        if self.process.poll() is not None:
            return {"error": f"the engine ended with status {self.process.returncode}"}
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def in_turns(workers: dict[str, Worker], rounds: int, do: str, **arguments: Any) -> dict[str, Any]:
    """Ask every engine the same, `rounds` times in turns: {engine: least wall and processor seconds, ...}."""
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            seen[name].append(worker.ask(do, **arguments))
    result = {}
    for name, answers in seen.items():
        errors = [answer["error"] for answer in answers if "error" in answer]
        if errors:
            result[name] = {"error": errors[0]}
            continue
        walls = [answer["wall"] for answer in answers]
        result[name] = {
            "wall": min(walls),
            "all_walls": walls,
            "processor": min(answer["processor"] for answer in answers),
            "first": next((answer["first"] for answer in answers if answer.get("first")), None),
            "peak": answers[-1]["peak"],
        }
        print(
            f"  {do} {arguments} {name}: {result[name]['wall']:.3f} s, {result[name]['processor']:.3f} s of processors"
        )
    return result


def slice_of(layers: int) -> dict[str, int]:
    """Bytes that one token moves through a slice, by engine."""
    config = GPT_OSS_20B.first_layers(layers)
    count = roofline.parameters(config)
    dense = count.attention + count.unembedding
    ours = roofline.decode_bytes(config, 0)
    return {"ours": ours, "llama Q8_0": int(ours - dense * (16 - Q8_BITS) / 8), "llama BF16": ours}


def measure_slice(args: argparse.Namespace, ours: Worker) -> dict[str, Any]:
    """The slice in our package and in llama.cpp, twice: with dense weights in Q8_0 and in BF16."""
    asks = [("decode", {"batch": 1}), *(("prefill", {"prompt": count}) for count in (32, 256, 2048))]
    result: dict[str, Any] = {"bytes": slice_of(LAYERS), "load": ours.info, "pairs": {}}
    result["decode8"] = in_turns({"ours": ours}, args.rounds, "decode", batch=8, steps=4)["ours"]
    for kind in ("Q8_0", "BF16") if args.peers else ():
        file = Path(args.gguf or tempfile.gettempdir()) / f"gpt-oss-{LAYERS}-layers-{kind}.gguf"
        if not file.exists():
            subprocess.run([args.peers, str(HERE / "slices.py"), str(file), str(LAYERS), kind], check=True)
        llama = Worker(args.peers, "llama", str(file))
        pair = {"ours": ours, f"llama {kind}": llama}
        result["pairs"][kind] = {"info": llama.info} | {
            f"{do} {next(iter(rest.values()))}": in_turns(pair, args.rounds, do, **rest)
            for do, rest in asks
            if kind == "Q8_0" or rest != {"prompt": 2048}
        }
        llama.end()
    if not args.peers:
        result["pairs"]["alone"] = {
            f"{do} {next(iter(rest.values()))}": in_turns({"ours": ours}, args.rounds, do, **rest) for do, rest in asks
        }
    return result


def measure_transformers(args: argparse.Namespace) -> dict[str, Any]:
    """The slice in transformers, which unpacks experts: with all instructions of the processor, and with AVX2."""
    result = {}
    for instructions, env, prompts in (("all", {}, (32, 256)), ("AVX2", AVX2, (32,))):
        peer = Worker(args.peers, "transformers", str(LAYERS), env=env.get("transformers"))
        ours = Worker(sys.executable, "ours", str(LAYERS), env=env.get("ours"))
        pair = {"ours": ours, "transformers": peer}
        result[instructions] = {"info": peer.info, "decode 1": in_turns(pair, args.rounds, "decode", batch=1)}
        for prompt in prompts:
            rounds = args.rounds if instructions == "all" else 2  # a minute each
            result[instructions][f"prefill {prompt}"] = in_turns(pair, rounds, "prefill", prompt=prompt)
        for worker in pair.values():
            worker.end()
    return result


def measure_trace(args: argparse.Namespace, ours: Worker) -> dict[str, Any]:
    """Decoding with the routing recorded, and without."""
    seen: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for _ in range(2 * args.rounds):
        for record, answers in seen.items():
            answers.append(ours.ask("decode", batch=1, steps=16, record=record))
    return {
        "recorded" if record else "plain": {
            key: min(answer[key] for answer in answers) for key in ("wall", "processor")
        }
        for record, answers in seen.items()
    }


def measure_layers(args: argparse.Namespace) -> dict[str, Any]:
    """Decoding and compiling slices of different depth."""
    result = {}
    for layers in (2, 4, 6):
        worker = Worker(sys.executable, "ours", str(layers))
        result[layers] = in_turns({"ours": worker}, args.rounds, "decode", batch=1)["ours"]
        worker.end()
    return result


def drop(folder: str) -> list[Path]:
    """The weight files, none of them in the system's file cache."""
    files = sorted(Path(folder).glob("*.safetensors"))
    for file in files:
        with file.open("rb") as source:
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return files


def read_cold(folder: str) -> float:
    """Seconds to read every weight file once, none of it in the system's file cache; none is left there either."""
    buffer = memoryview(bytearray(1 << 26))
    started = time.perf_counter()
    for file in drop(folder):
        with file.open("rb", buffering=0) as source:
            while source.readinto(buffer):
                os.posix_fadvise(source.fileno(), 0, source.tell(), os.POSIX_FADV_DONTNEED)  # as `load` does
    return time.perf_counter() - started


def touch(share: float = 0.9) -> float:
    """Bytes per second at which every page of a share of the free memory is written once; all of it is given back.

    A virtual machine returns memory that lies free to its host, and getting it back, page by page, can take longer than
    reading as many bytes from the disk. After this, it is there.
    """
    nbytes, started = int(share * available_memory()), time.perf_counter()
    np.empty(nbytes, np.uint8)[:: mmap.PAGESIZE] = 1
    return nbytes / (time.perf_counter() - started)


def measure_full(args: argparse.Namespace) -> dict[str, Any]:
    """The whole model from a folder, loaded cold: with memory as it is found, and in turns with cold reads."""
    time.sleep(REST)
    touches = [touch(), touch()]
    time.sleep(REST)
    drop(args.folder)
    found = Worker(sys.executable, "ours", args.folder)
    found.end()
    reads, loads = [], []
    for last in (False, True):
        touch()
        reads.append(read_cold(args.folder))
        touch()
        worker = Worker(sys.executable, "ours", args.folder)
        loads.append(worker.info["seconds"])
        if not last:
            worker.end()
    result = {"prefill 256": in_turns({"ours": worker}, args.rounds, "prefill", prompt=256)["ours"]}
    result["decode 1"] = in_turns({"ours": worker}, args.rounds, "decode", batch=1)["ours"]
    worker.end()
    result |= {"load": worker.info, "loads": loads, "load_found": found.info, "touches": touches, "reads": reads}
    result["bytes"] = roofline.decode_bytes(GPT_OSS_20B, 256)
    result["predicted"] = roofline.checkpoint_bytes(GPT_OSS_20B) + roofline.cache_bytes(GPT_OSS_20B, 4096, itemsize=4)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--peers", help="Python of an environment with llama-cpp-python, gguf, torch, transformers")
    parser.add_argument("--folder", help="a full gpt-oss-20b checkpoint; leave out to measure the slice alone")
    parser.add_argument("--gguf", help="where GGUF files are written and looked for (default: the temporary folder)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3, help="how often every engine is asked (default 3)")
    parser.add_argument("--json", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    results = json.loads(args.json.read_text()) if args.json.exists() else {}
    alone = {"layers", "transformers", "full"}  # these start engines of their own
    ours = None
    jobs = {
        "slice": lambda: measure_slice(args, ours),
        "trace": lambda: measure_trace(args, ours),
        "context": lambda: {length: ours.ask("context", length=length) for length in CONTEXTS},
        "layers": lambda: measure_layers(args),
        "transformers": lambda: measure_transformers(args) if args.peers else None,
        "full": lambda: measure_full(args) if args.folder else None,
    }
    for part in (name for name in PARTS if name in args.parts):
        print(part, flush=True)
        if ours is None and part not in alone:
            ours = Worker(sys.executable, "ours", str(LAYERS))
            results["bandwidth"] = ours.ask("bandwidth")["bytes_per_second"]
        if ours and part in alone:  # the memory is theirs
            ours.end()
            ours = None
        found = jobs[part]()
        if found is not None:
            when = datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")
            results[part] = found | {"when": when, "load_average": os.getloadavg()[0]}
        results["machine"] = machine()
        partial = args.json.with_suffix(".partial")
        partial.write_text(json.dumps(results, indent=1) + "\n")
        partial.rename(args.json)
        write_table(args.json, HERE / "README.md")
    if ours:
        ours.end()


if __name__ == "__main__":
    main()
