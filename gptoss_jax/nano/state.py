"""The state of a training run on disk: complete or absent, and checked when it is read.

A state is an uncompressed ``.npz``, whose zip directory carries a checksum of every array. A new one is written under
another name and takes the place of the old one at the end; the one before stays beside it. A process that is killed at
any moment leaves a good ``state.npz``.
"""

import contextlib
import errno
import json
import os
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gptoss_jax.nano.plan import TrainError

FILE, BEFORE = "state.npz", "state.previous.npz"


class State(NamedTuple):
    """Everything that training carries from step to step.

    Attributes:
      params: float32 weights.
      mean, square: running mean of each gradient and of its square.
      load: float32 [L, E], running share of the work of every expert.
      step: of the run; the rate depends on it.
      position: updates since the means were zero, which is also the number of the next batch; a run that begins from
        another run's state reads on where that one stopped.
    """

    params: dict[str, Any]
    mean: dict[str, Any]
    square: dict[str, Any]
    load: Any
    step: Any
    position: Any


def save(folder: Path, state: State, plan: dict[str, Any]) -> Path:
    """Write the state of a run.

    Raises:
      TrainError: the disk is full or cannot be written; the old state is still there.
    """
    target, partial = folder / FILE, folder / f"{FILE}.partial"
    arrays = {f"{part}/{name}": np.asarray(value) for part in ("params", "mean", "square")
              for name, value in getattr(state, part).items()}  # fmt: skip
    numbers = {name: np.asarray(getattr(state, name)) for name in ("load", "step", "position")}
    try:
        needed = sum(array.nbytes for array in arrays.values())
        if shutil.disk_usage(folder).free < needed:
            raise OSError(errno.ENOSPC, "no space left")
        with partial.open("wb") as file:
            np.savez(file, plan=np.asarray(json.dumps(plan)), **numbers, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            spare = folder / f"{BEFORE}.link"
            spare.unlink(missing_ok=True)
            os.link(target, spare)
            os.replace(spare, folder / BEFORE)
        os.replace(partial, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full; free some space and go on" if full else (error.strerror or str(error))
        raise TrainError(f"{target}: step {int(state.step)} cannot be saved: {why}. {_last(target)}") from error
    return target


def _last(target: Path) -> str:
    return "The last good state is untouched" if target.exists() else "There is no earlier state"


def restore(path: Path) -> tuple[State, dict[str, Any]]:
    """Read a state and the plan of its run.

    Args:
      path: the file, or the folder of the run.

    Raises:
      TrainError: no state, or a damaged one; names the state before it if that one is whole.
    """
    path = path / FILE if path.is_dir() else path
    try:
        return _read(path)
    except FileNotFoundError:
        raise TrainError(f"{path}: no such file; is this the folder of a training run?") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        before, advice = path.with_name(BEFORE), "there is no earlier one: begin again"
        with contextlib.suppress(Exception):
            step = int(_read(before)[0].step)
            advice = f"the one before it is whole: `mv {before} {path}` goes back to step {step}"
        raise TrainError(f"{path}: damaged ({error or type(error).__name__}); {advice}") from None


def _read(path: Path) -> tuple[State, dict[str, Any]]:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    parts = {
        part: {name.removeprefix(f"{part}/"): value for name, value in arrays.items() if name.startswith(f"{part}/")}
        for part in ("params", "mean", "square")
    }
    if not parts["params"] or any(parts[part].keys() != parts["params"].keys() for part in ("mean", "square")):
        raise ValueError("weights and their running means do not match")
    state = State(**parts, load=arrays["load"], step=arrays["step"], position=arrays["position"])
    return state, json.loads(str(arrays["plan"]))
