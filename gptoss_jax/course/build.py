"""Execute the lessons and write their notebooks: ``python -m gptoss_jax.course.build [NN ...] [--check]``.

Needs the packages of the `test` extra (jupytext, nbclient). One run of the reading version serves the solutions
version too: they hold the same code.
"""

import argparse
import base64
import copy
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from gptoss_jax.course import products, source
from gptoss_jax.course.display import strip_png

FOLDER = Path(__file__).parents[2] / "notebooks"
KERNEL = {
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OMP_NUM_THREADS": "2",
    "PYTHONHASHSEED": "0",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
MAX_BYTES = 300_000


class LessonFailed(RuntimeError):
    """A cell of a lesson raised: which lesson, which cell, and the end of the traceback."""


def sources(numbers: list[str] | None = None, folder: Path = FOLDER) -> list[Path]:
    """Lesson sources in order, all or those with the given numbers."""
    paths = sorted((folder / "source").glob("[0-9][0-9]_*.py"))
    if unknown := set(numbers or []) - {path.stem[:2] for path in paths}:
        raise SystemExit(f"no source for lesson {', '.join(sorted(unknown))} in {folder / 'source'}")
    return [path for path in paths if not numbers or path.stem[:2] in numbers]


def target(path: Path, product: products.Product, folder: Path = FOLDER) -> Path:
    """Where a product of the source lies."""
    return folder / ("" if product == "reading" else product) / f"{path.stem}.ipynb"


def kernel_environment(folder: Path = FOLDER) -> dict[str, str]:
    """The environment of a lesson's kernel in builds and tests: CPU, quiet, one compilation cache, no checkpoint."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(folder.parent / ".jax_cache")
    kept = {key: value for key, value in os.environ.items() if key not in ("GPTOSS_CHECKPOINT", "MPLBACKEND")}
    return kept | KERNEL | {"JAX_COMPILATION_CACHE_DIR": cache}


def execute(book: Any, folder: Path = FOLDER, *, timeout: int = 120) -> Any:
    """A copy of the notebook with outputs as they are committed.

    Args:
      timeout: seconds for one cell.

    Raises:
      LessonFailed: a cell raised that is not tagged ``raises-exception``.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    book = copy.deepcopy(book)
    client = NotebookClient(book, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    try:
        client.execute(env=kernel_environment(folder))
    except CellExecutionError as error:
        failed = re.sub(r"\x1b\[[0-9;]*m", "", str(error))[-3000:]
        raise LessonFailed(f"lesson {book.metadata.lesson.number}: {failed}") from None
    return tidy(book)


def tidy(book: Any) -> Any:
    """Remove what differs between two equal runs: times, counters' gaps, split streams, PNG metadata."""
    count = 0
    book.metadata.language_info = {"name": "python"}
    for cell in book.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        count += 1
        cell.execution_count = count
        merged: list[Any] = []
        for output in cell.outputs:
            last = merged[-1] if merged else None
            if last and output.output_type == last.output_type == "stream" and output.name == last.name:
                last.text += output.text
                continue
            if "execution_count" in output:
                output.execution_count = count
            png = output.get("data", {}).get("image/png")
            if png:
                output.data["image/png"] = base64.b64encode(strip_png(base64.b64decode(png))).decode()
            merged.append(output)
        cell.outputs = merged
    return book


def stale(path: Path, folder: Path = FOLDER) -> list[str]:
    """What is wrong with the committed notebooks of a source, one line each; empty if they are up to date."""
    import nbformat

    lesson, found, outputs = source.read(path), [], {}
    for product in products.PRODUCTS:
        file = target(path, product, folder)
        if not file.exists():
            found.append(f"{file}: missing")
            continue
        book = nbformat.read(file, as_version=4)
        outputs[product] = [cell.outputs for cell in book.cells if cell.cell_type == "code"]
        if not products.same_source(book, products.notebook(lesson, product)):
            found.append(f"{file}: differs from {path.name}")
        if product == "exercises" and any(outputs[product]):
            found.append(f"{file}: the students' version holds outputs")
        if file.stat().st_size > MAX_BYTES:
            found.append(f"{file}: {file.stat().st_size} bytes; at most {MAX_BYTES}")
    if outputs.get("reading") != outputs.get("solutions"):
        found.append(f"{target(path, 'solutions', folder)}: outputs differ from the reading version's")
    return found


def write(book: Any, file: Path) -> None:
    """Write a notebook whole or not at all."""
    import nbformat

    nbformat.validate(book)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(nbformat.writes(book) + "\n", encoding="utf-8")
    partial.replace(file)


def keep_outputs(book: Any, file: Path) -> Any:
    """The notebook with the outputs of its committed version, whose code must be the same."""
    import nbformat

    old = nbformat.read(file, as_version=4)
    was, now = ([cell for cell in b.cells if cell.cell_type == "code"] for b in (old, book))
    if [cell.source for cell in was] != [cell.source for cell in now]:
        raise LessonFailed(f"{file.name}: its code has changed, so it must be run; leave out --text")
    for cell, before in zip(now, was, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    return book


def build(path: Path, folder: Path = FOLDER, *, run: bool = True) -> float:
    """Write the three notebooks of one source; the seconds that running it took.

    Args:
      run: False keeps the committed outputs, where only prose has changed.
    """
    lesson = source.read(path)
    begun = time.monotonic()
    reading = products.notebook(lesson, "reading")
    reading = execute(reading, folder) if run else keep_outputs(reading, target(path, "reading", folder))
    seconds = time.monotonic() - begun
    solutions = products.notebook(lesson, "solutions")
    for cell, ran in zip(solutions.cells, reading.cells, strict=True):
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    write(reading, target(path, "reading", folder))
    write(products.notebook(lesson, "exercises"), target(path, "exercises", folder))
    write(solutions, target(path, "solutions", folder))
    return seconds


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if every lesson was built, or with --check if every notebook is up to date."""
    parser = argparse.ArgumentParser(prog="python -m gptoss_jax.course.build", description=__doc__)
    parser.add_argument("lessons", nargs="*", metavar="NN", help="two-digit numbers; all lessons if none is given")
    parser.add_argument("--check", action="store_true", help="only report notebooks that differ from their source")
    parser.add_argument("--text", action="store_true", help="only prose has changed: keep the outputs")
    options = parser.parse_args(arguments)
    wrong = []
    for path in sources(options.lessons):
        try:
            if not options.check:
                print(f"{path.stem}: {build(path, run=not options.text):.1f} s", flush=True)
            wrong += stale(path)
        except (source.SourceError, LessonFailed) as error:
            wrong.append(str(error))
    print("\n".join(wrong) or "all notebooks are up to date", file=sys.stderr if wrong else sys.stdout)
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
