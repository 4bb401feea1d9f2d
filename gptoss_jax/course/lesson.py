"""The first cell of every lesson: `start` says which model will be used, and what is wrong if something is.

It never installs, downloads or guesses a path. Whatever stops a learner is reported as one sentence that says what
to do, without a traceback.
"""

import functools
import importlib.metadata
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from gptoss_jax.course.checks import Checks

HELP = "docs/troubleshooting.md"
QUIET = {  # read by JAX and its compiler when they are first imported
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
}


class LessonError(RuntimeError):
    """What stops a lesson, in one sentence with the remedy. Notebooks show it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"This lesson cannot start: {self}", f"More help: {HELP}, or type  gptoss-jax doctor  in a terminal."]


class Lesson:
    """What `start` returns: the lesson's number, its mode, its model and its checks.

    Attributes:
      number: two digits, ``"00"`` to ``"17"``.
      checkpoint: folder named by GPTOSS_CHECKPOINT, or None for the built-in model.
      check: the graded exercises, ``lesson.check.name_of_exercise(your_function)``.
    """

    def __init__(self, number: str, checkpoint: Path | None) -> None:
        self.number = number
        self.checkpoint = checkpoint
        self.check = Checks(number)

    @property
    def builtin(self) -> bool:
        """True with the built-in model, whose numbers a lesson may assert; False with the reader's own checkpoint."""
        return self.checkpoint is None

    def model(self, first_layers: int | None = None) -> tuple[Any, Any]:
        """(model, tokenizer), loaded once and kept.

        Args:
          first_layers: with GPTOSS_CHECKPOINT, read only so many layers (a 20b layer takes 0.5 GB packed); the
            built-in model is always whole.
        """
        return _load(self.checkpoint, None if self.builtin else first_layers)

    def __repr__(self) -> str:
        return f"Lesson({self.number!r}, {'built-in model' if self.builtin else self.checkpoint})"


@functools.lru_cache(maxsize=1)  # one model in memory at a time
def _load(checkpoint: Path | None, first_layers: int | None) -> tuple[Any, Any]:
    import gptoss_jax as gj

    options = {} if first_layers is None else {"first_layers": first_layers}
    return gj.load(**options) if checkpoint is None else gj.load(checkpoint, **options)


def data(name: str) -> Path:
    """A folder of data that comes with the lessons, such as ``golden``: a small checkpoint with known answers."""
    folder = Path(__file__).parent / "data" / name
    if not folder.is_dir():
        raise LessonError(
            f"the lessons' data folder {name!r} is missing from {folder.parent}; install the package again"
        )
    return folder


def start(number: str, *, seconds: int | None = None) -> Lesson:
    """Begin a lesson: check what it stands on, print mode and versions, hand out the model and the checks.

    Args:
      number: of the lesson, ``"05"``.
      seconds: what running every cell takes on two cores.

    Raises:
      LessonError: a package is missing or of the wrong version, or GPTOSS_CHECKPOINT names no checkpoint.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    checkpoint = _checkpoint()
    if checkpoint is None and "jax" not in sys.modules:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the built-in model's numbers are those of a CPU
    versions = _versions()
    mode = f"checkpoint {checkpoint.name}" if checkpoint else "built-in model"
    about = f", about {seconds} s on two cores" if seconds else ""
    print(f"Lesson {number}: {mode}{about}")
    print(" · ".join(versions))
    print(f"It failed, what now? {HELP}, or type  gptoss-jax doctor  in a terminal.")
    _report_disk()
    _explain_missing_names()
    return Lesson(number, checkpoint)


def _checkpoint() -> Path | None:
    named = os.environ.get("GPTOSS_CHECKPOINT", "").strip()
    if not named:
        return None
    folder = Path(named).expanduser()
    remedy = "Correct it, or unset it to use the built-in model, then restart the kernel."
    if not folder.exists():
        raise LessonError(f"GPTOSS_CHECKPOINT is {named!r}, and there is no such folder. {remedy}")
    if not folder.is_dir():
        raise LessonError(f"GPTOSS_CHECKPOINT is {named!r}, a file; name the folder that holds it. {remedy}")
    for part in (folder, folder / "original"):
        if (part / "config.json").is_file() and any(part.glob("*.safetensors")):
            return folder
    raise LessonError(f"GPTOSS_CHECKPOINT is {named!r}, which holds no config.json with *.safetensors. {remedy}")


def _versions() -> list[str]:
    """Installed versions of what the lessons stand on; LessonError where one is missing or out of range."""
    from packaging.requirements import Requirement

    import gptoss_jax

    if not hasattr(gptoss_jax, "__version__"):
        raise LessonError(f"{gptoss_jax.__path__[0]!r} hides the installed package; rename it and restart the kernel")
    try:
        needs = importlib.metadata.requires("gptoss-jax") or []
    except importlib.metadata.PackageNotFoundError:
        raise LessonError(
            "the folder gptoss_jax is here but not installed in this kernel. In a terminal, in the project's folder: "
            "make lab, or  python -m pip install -e '.[lab]'  with this kernel's Python, then restart the kernel"
        ) from None
    wrong, found = [], {}
    for need in map(Requirement, needs):
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found[need.name] = importlib.metadata.version(need.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{need.name} is missing")
            continue
        if not need.specifier.contains(found[need.name], prereleases=True):
            wrong.append(f"{need.name} {found[need.name]} is outside {need.specifier}")
    if wrong:
        raise LessonError(
            f"{'; '.join(wrong)}. Choose the kernel of the project's own environment (Kernel > Change Kernel; make lab "
            f"opens the right one). This kernel is {sys.executable}"
        )
    own = importlib.metadata.version("gptoss-jax")
    return [
        f"gptoss_jax {own}",
        *(f"{n} {found[n]}" for n in ("jax", "flax", "numpy")),
        f"Python {platform.python_version()}",
    ]


def _report_disk() -> None:
    """Say so once where nothing can be written; the lessons themselves need no disk."""
    try:
        tempfile.TemporaryFile(dir=".").close()
    except OSError:
        print("This folder is read-only: the lesson runs, but keep your answers with File > Download.")
    try:
        tempfile.TemporaryFile().close()
    except OSError:
        raise LessonError("no temporary folder can be written. Set TMPDIR to a folder that can, and restart") from None
    home = Path(os.environ.get("MPLCONFIGDIR") or Path.home())
    if not os.access(home, os.W_OK):  # Matplotlib would warn into the first figure
        os.environ["MPLCONFIGDIR"] = str(Path(tempfile.gettempdir()) / f"gptoss-matplotlib-{os.getuid()}")


def _explain_missing_names() -> None:
    """From now on a NameError says which cells to run: the usual cause is a cell above that was skipped."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return

    def explain(shell: Any, kind: Any, error: Any, trace: Any, tb_offset: Any = None) -> None:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
        print(
            f"'{getattr(error, 'name', None)}' is made in a cell above that has not run since the kernel started. "
            "Use Run > Run All Above Selected Cell, then run this cell again.",
            file=sys.stderr,
        )

    shell.set_custom_exc((NameError,), explain)
