"""Train a small gpt-oss on running text and Harmony conversations, in three phases that share one program.

# level rate, as long as you like; Ctrl-C saves and stops, the same line goes on
gptoss-jax train --out runs/long --corpus corpus
# let the rate fall, on a copy; then the same with 4-bit experts, which is what is shipped
gptoss-jax train --out runs/decayed --from runs/long --corpus corpus --warmup 1 --steps 600 --fall 600
gptoss-jax train --out runs/final --from runs/decayed --corpus corpus --warmup 1 --steps 300 --rate 1e-4 --quantize
gptoss-jax train --out runs/final --export weights
# begin again from weights alone, on conversations alone
gptoss-jax train --out runs/more --init weights --text-share 0 --seed 1
"""

import argparse
import dataclasses
import hashlib
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gptoss_jax import checkpoint
from gptoss_jax.nano import optimizer, state
from gptoss_jax.nano.batches import Batches, tokenize
from gptoss_jax.nano.corpus import CorpusError
from gptoss_jax.nano.export import export, from_model
from gptoss_jax.nano.metrics import Log, draw
from gptoss_jax.nano.plan import PRESETS, Plan, TrainError, check_resumed
from gptoss_jax.nano.rendering import Codec
from gptoss_jax.nano.state import State

BUILT_IN = Path(__file__).parent / "weights"
EVERY = 20  # steps between two lines of the log


def token_cache(corpus: Path, codec: Codec, folder: Path) -> dict[str, np.ndarray]:
    """The training tokens of every domain, kept beside the state: encoding 46 MB takes a minute."""
    key = hashlib.sha256(repr(sorted(codec.tokenizer.ranks.items())).encode())
    for file in sorted(corpus.glob("*.txt.xz")):
        key.update(file.read_bytes())
    path = folder / f"tokens-{key.hexdigest()[:12]}.npz"
    if not path.exists():
        texts = tokenize(corpus, codec)[0]
        partial = path.with_suffix(".partial")
        with partial.open("wb") as target:
            np.savez(target, **texts)  # type: ignore[arg-type]
        partial.replace(path)
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def first_state(plan: Plan, out: Path, source: Path | None, weights: Path | None) -> State:
    """The state to go on from: this run's own, another run's, a checkpoint's weights, or random weights."""
    if (out / state.FILE).exists() or (out / state.BEFORE).exists():
        old, saved = state.restore(out)
        check_resumed(saved, plan, int(old.step), str(out / state.FILE))
    elif source is not None:
        old, _ = state.restore(source)
        _check_shapes(plan, old.params, source)
        old = old._replace(step=np.int32(0))
    elif weights is not None:
        model, _ = checkpoint.load(weights, dtype="float32")
        params = from_model(model)
        _check_shapes(plan, params, weights)
        return optimizer.begin(plan, params)
    else:
        return optimizer.begin(plan)
    return jax.tree.map(jnp.asarray, old)


def _check_shapes(plan: Plan, params: dict[str, Any], where: Path) -> None:
    wanted = {name: value.shape for name, value in optimizer.begin(plan).params.items()}
    for name, shape in wanted.items():
        found = params[name].shape if name in params else None
        if found != shape:
            raise TrainError(f"{where}: {name} is {found}, preset {plan.preset!r} needs {shape}; choose its preset")


class Stop:
    """Whether someone asked to stop: Ctrl-C, a termination signal, or the clock. Handlers are put back at the end."""

    def __init__(self, minutes: float | None):
        self._asked = False
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for name in (signal.SIGINT, signal.SIGTERM):
                self._before[name] = signal.signal(name, self._ask)
        return self

    def __exit__(self, *_: Any) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _ask(self, *_: Any) -> None:
        self._asked = True

    def __bool__(self) -> bool:
        return self._asked or (self._end is not None and time.monotonic() >= self._end)


def run(plan: Plan, batches: Batches, now: State, out: Path, *, minutes: float | None = None, save_every: float = 180):
    """Train from `now` to the plan's last step, or until asked to stop; the state is saved on the way and at the end.

    Args:
      plan: what to do.
      batches: where data comes from; a batch depends on its number alone.
      now: state to begin with.
      out: folder of the run.
      minutes: stop after so long.
      save_every: seconds between saves.

    Returns:
      The last state.
    """
    step, fields = optimizer.make_step(plan), dataclasses.asdict(plan)
    log, saved, begun, first = Log(out, int(now.step)), time.monotonic(), time.monotonic(), int(now.step)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    measured: list[dict[str, float]] = []
    position = int(now.position) - first
    with Stop(minutes) as stop, Progress(*columns, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("compiling", total=plan.steps, completed=first)
        for number in range(first, plan.steps):
            now, parts = step(now, batches.make(position + number))
            measured.append({name: float(value) for name, value in parts.items()})
            if (number + 1) % EVERY == 0 or number + 1 == plan.steps:
                speed = len(measured) * plan.rows * plan.length / (time.monotonic() - begun)
                line = log.add(number + 1, speed, measured)
                measured, begun = [], time.monotonic()
                bar.update(task, completed=number + 1, description=line)
                if bar.disable:
                    print(f"{number + 1:>8}  {line}", flush=True)
            if stop:
                break
            if time.monotonic() - saved > save_every:
                state.save(out, now, fields)
                saved = time.monotonic()
    state.save(out, now, fields)
    draw(out)
    return now


def parser() -> argparse.ArgumentParser:
    """The command line."""
    style = argparse.RawDescriptionHelpFormatter
    found = argparse.ArgumentParser("gptoss-jax train", description=__doc__, formatter_class=style)
    found.add_argument("--out", type=Path, required=True, help="folder of the run: state, metrics.csv, metrics.png")
    found.add_argument("--corpus", type=Path, help="folder of <domain>.txt.xz; not needed with --text-share 0")
    found.add_argument("--tokenizer", type=Path, default=BUILT_IN / "tokenizer.json", help="vocabulary")
    begin = found.add_mutually_exclusive_group()
    begin.add_argument("--from", dest="source", type=Path, help="begin with the state of another run")
    begin.add_argument("--init", type=Path, help="begin with the weights of a checkpoint folder")
    found.add_argument("--minutes", type=float, help="save and stop after so long")
    found.add_argument("--export", type=Path, help="do not train: write the run's weights as a checkpoint folder")
    for field in dataclasses.fields(Plan):
        name, about = "--" + field.name.replace("_", "-"), f"{field.metadata['help']} ({field.default})"
        if field.type is bool:
            found.add_argument(name, action="store_true", help=about)
        else:
            found.add_argument(name, type=field.type, default=field.default, help=about)  # type: ignore[arg-type]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; an error is one line on stderr and status 1."""
    given = parser().parse_args(arguments)
    try:
        if given.export:
            now, fields = state.restore(given.out)
            codec = Codec(given.tokenizer)
            print(export(now.params, PRESETS[fields["preset"]], codec.tokenizer, given.export))
            return 0
        plan = Plan(**{field.name: getattr(given, field.name) for field in dataclasses.fields(Plan)})
        if plan.text_rows and given.corpus is None:
            raise TrainError("--corpus is missing: give a folder of <domain>.txt.xz, or --text-share 0")
        given.out.mkdir(parents=True, exist_ok=True)
        codec = Codec(given.tokenizer)
        now = first_state(plan, given.out, given.source, given.init)
        texts = token_cache(given.corpus, codec, given.out) if plan.text_rows else {}
        rows = (plan.rows, plan.length, plan.text_rows, plan.repeat_rows)
        batches = Batches(texts, codec, *rows, plan.dialog_weight, plan.seed)
        now = run(plan, batches, now, given.out, minutes=given.minutes)
        print(f"step {int(now.step)} of {plan.steps} saved in {given.out}")
        return 0
    except (TrainError, CorpusError, checkpoint.CheckpointError, OSError, ValueError) as error:
        print(f"gptoss-jax train: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
