"""One engine with one model, measured on demand: reads JSON requests line by line, answers each with a line of JSON.

    python benchmarks/worker.py ours LAYERS | ours-folder DIR | llama FILE.gguf | transformers LAYERS

Several workers alive at once are asked in turns, so that whatever else the machine does hits all of them alike. A peer
runs in an environment of its own; this file imports nothing of ours at the top.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def resident() -> dict[str, float]:
    """Resident memory of this process and its peak, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        return {k: int(fields[n].split()[0]) * 1024 for k, n in (("resident", "VmRSS"), ("peak", "VmHWM"))}
    except OSError:
        import resource

        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def clock(run: Callable[[], Any]) -> dict[str, float]:
    """Seconds on the wall and of all processors together."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def tokens(count: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 200_000, count).tolist()


class Ours:
    """gptoss_jax; `what` is a number of layers or a checkpoint folder."""

    def __init__(self, what: str):
        import jax

        from benchmarks import slices
        from gptoss_jax.checkpoint import load

        self.jax = jax
        started = time.perf_counter()
        self.model = slices.ours(int(what)) if what.isdigit() else load(what, progress=False)[0]
        self.seconds = time.perf_counter() - started
        self.decoders: dict[Any, Any] = {}

    def info(self) -> dict[str, Any]:
        import jax

        return {
            "engine": f"gptoss_jax on jax {jax.__version__}",
            "layers": self.model.config.num_layers,
            "seconds": self.seconds,
        }

    def _decoder(self, batch: int, prompt: int, max_len: int, record: bool = False) -> Any:
        from gptoss_jax.decoding.decoder import Decoder
        from gptoss_jax.sampling import Sampling

        rows = [tokens(prompt, b) for b in range(batch)]
        how = Sampling.checked()
        return Decoder(self.model, rows, max_len - prompt, sampling=how, max_len=max_len, record=record)

    def prefill(self, prompt: int, max_len: int = 4096) -> dict[str, Any]:
        """From ids to the first new token, compiled before."""
        first = clock(lambda: self._decoder(1, prompt, max_len).tokens) if prompt not in self.decoders else None
        self.decoders.setdefault(prompt, None)
        return {"first": first, **clock(lambda: self._decoder(1, prompt, max_len).tokens)}

    def decode(self, batch: int, steps: int = 8, max_len: int = 4096, record: bool = False) -> dict[str, Any]:
        key, first = (batch, max_len, record), None
        if key not in self.decoders:
            self.decoders[key] = self._decoder(batch, 16, max_len, record)
            first = clock(lambda: self.decoders[key].step(1).tokens)
        decoder = self.decoders[key]
        return {"first": first, **{k: v / steps for k, v in clock(lambda: decoder.step(steps).tokens).items()}}

    def context(self, length: int, steps: int = 4) -> dict[str, Any]:
        """Decoding after `length` tokens; what they were does not matter for time, so the cache only says so."""
        import dataclasses

        decoder = self._decoder(1, 16, length)
        state = decoder._cache
        decoder.step(1)
        best = None
        for _ in range(3):
            full = np.full(1, length - steps - 1, np.int32)
            decoder._cache = dataclasses.replace(decoder._cache, length=self.jax.numpy.asarray(full))
            seen = clock(lambda: decoder.step(steps).tokens)
            best = seen if best is None or seen["wall"] < best["wall"] else best
        del state
        return {k: v / steps for k, v in best.items()} | {"cache": decoder._cache.nbytes}

    def bandwidth(self) -> dict[str, float]:
        """Bytes per second of reading float32 numbers and adding them up, a thread a core."""
        from gptoss_jax.cli.bench import bandwidth

        return {"bytes_per_second": bandwidth()}


class Llama:
    """llama.cpp by way of llama-cpp-python."""

    def __init__(self, file: str):
        import llama_cpp
        import llama_cpp.llama_cpp as library

        self.repack = os.environ.get("LLAMA_REPACK", "0") == "1"
        defaults = library.llama_model_default_params

        def params() -> Any:
            chosen = defaults()
            chosen.use_extra_bufts = self.repack
            return chosen

        library.llama_model_default_params = llama_cpp.llama_model_default_params = params
        options = {"n_ctx": 4096, "n_threads": THREADS, "n_threads_batch": THREADS, "n_batch": 512, "n_ubatch": 512}
        self.model = llama_cpp.Llama(file, verbose=False, **options)
        self.version = llama_cpp.__version__

    def info(self) -> dict[str, Any]:
        return {"engine": f"llama.cpp (llama-cpp-python {self.version})", "repack": self.repack}

    def prefill(self, prompt: int) -> dict[str, Any]:
        self.model.reset()
        return clock(lambda: self.model.eval(tokens(prompt, 0)))

    def decode(self, batch: int, steps: int = 8) -> dict[str, Any]:
        self.model.reset()
        self.model.eval([1])
        ids = tokens(steps, 1)
        seen = clock(lambda: [self.model.eval([token]) for token in ids])
        return {k: v / steps for k, v in seen.items()}


class Transformers:
    """transformers in bfloat16, as it loads gpt-oss on a CPU: experts dequantized."""

    def __init__(self, layers: str):
        import torch
        import transformers

        torch.set_num_threads(THREADS)
        self.torch, self.version = torch, transformers.__version__
        config = transformers.GptOssConfig(num_hidden_layers=int(layers), num_local_experts=32)  # 128 in the 120b
        with torch.device("meta"):
            model = transformers.GptOssForCausalLM(config).to(torch.bfloat16)
        model = model.to_empty(device="cpu")
        sample = (0.02 * torch.randn((1 << 22) - 17)).to(torch.bfloat16)
        for parameter in model.parameters():
            flat = parameter.data.view(-1)
            for first in range(0, flat.numel(), sample.numel()):
                part = flat[first : first + sample.numel()]
                part.copy_(sample[: part.numel()])
        rotary = model.model.rotary_emb
        model.model.rotary_emb = type(rotary)(config)
        self.model = model.eval()

    def info(self) -> dict[str, Any]:
        return {"engine": f"transformers {self.version} on torch {self.torch.__version__}, bfloat16"}

    def _run(self, ids: list[int], past: Any = None) -> Any:
        with self.torch.no_grad():
            given = self.torch.tensor([ids])
            return self.model(given, past_key_values=past, use_cache=True, logits_to_keep=1).past_key_values

    def prefill(self, prompt: int) -> dict[str, Any]:
        return clock(lambda: self._run(tokens(prompt, 0)))

    def decode(self, batch: int, steps: int = 2) -> dict[str, Any]:
        past = self._run([1])

        def run() -> None:
            for token in tokens(steps, 1):
                self._run([token], past)

        return {k: v / steps for k, v in clock(run).items()}


ENGINES = {"ours": Ours, "llama": Llama, "transformers": Transformers}


def main() -> None:
    started = time.perf_counter()
    engine = ENGINES[sys.argv[1]](sys.argv[2])
    print(json.dumps({"ready": time.perf_counter() - started, **engine.info(), **resident()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(engine, request.pop("do"))(**request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer | resident()), flush=True)


if __name__ == "__main__":
    main()
