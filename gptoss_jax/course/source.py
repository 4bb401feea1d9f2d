"""Read a lesson's source, `notebooks/source/NN_title.py`, and hold it to the conventions of CONTRIBUTING.md.

Pure text: nothing is executed here, so that a test can compare a committed notebook with its source in milliseconds.
"""

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any

BEGIN, END, ANSWER = "### BEGIN SOLUTION", "### END SOLUTION", "ANSWER:"


class SourceError(ValueError):
    """A lesson source that breaks the conventions: which file, which cell, and the rule."""


@dataclasses.dataclass(frozen=True)
class Task:
    """An exercise as its statement cell declares it.

    Attributes:
      name: identifier, also of its check.
      stars: difficulty, 1 to 3.
      minutes: for a reader who has followed so far.
      goal: key of the lesson's goal that it tests.
      title: the heading, without number.
    """

    name: str
    stars: int
    minutes: int
    goal: str
    title: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A parsed lesson source.

    Attributes:
      path: of the source.
      number: two digits, from the file's name.
      title, minutes, seconds, needs, modules, goals: from the header; `goals` maps a key to a sentence.
      cells: nbformat cells as written, roles in their metadata.
      tasks: the exercises in order.
      predictions: (question, answer) pairs in order.
    """

    path: Path
    number: str
    title: str
    minutes: int
    seconds: int
    needs: str
    modules: tuple[str, ...]
    goals: dict[str, str]
    cells: list[Any]
    tasks: tuple[Task, ...]
    predictions: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """File name of the notebooks, without folder."""
        return self.path.stem + ".ipynb"


def read(path: str | Path) -> Source:
    """Parse and check one lesson source. Raises SourceError."""
    import jupytext

    path = Path(path)
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    head = notebook.metadata.get("lesson")
    if not head:
        raise SourceError(f"{path}: the header has no `lesson:` block under `jupyter:`")
    if missing := {"title", "minutes", "seconds", "needs", "modules", "goals"} - head.keys():
        raise SourceError(f"{path}: the header's lesson block lacks {', '.join(sorted(missing))}")
    cells = [cell for cell in notebook.cells if cell.source.strip()]
    source = Source(
        path=path,
        number=path.stem[:2],
        title=head["title"],
        minutes=head["minutes"],
        seconds=head["seconds"],
        needs=head["needs"],
        modules=tuple(head["modules"]),
        goals=dict(head["goals"]),
        cells=cells,
        tasks=tuple(_task(path, cell) for cell in cells if "exercise" in cell.metadata),
        predictions=tuple(split_prediction(path, cell) for cell in cells if "predict" in cell.metadata),
    )
    _check(source)
    return source


def _task(path: Path, cell: Any) -> Task:
    data = cell.metadata
    first, *_ = cell.source.splitlines()
    if not first.startswith("### "):
        raise SourceError(f"{path}: exercise {data['exercise']!r} must open with a heading '### ...', not {first!r}")
    try:
        return Task(data["exercise"], data["stars"], data["minutes"], data["goal"], first.removeprefix("### ").strip())
    except KeyError as missing:
        raise SourceError(f"{path}: exercise {data['exercise']!r} lacks {missing.args[0]}=") from None


def split_prediction(path: Path, cell: Any) -> tuple[str, str]:
    """Question and answer of a predict cell."""
    question, mark, answer = cell.source.partition(ANSWER)
    if not mark or not answer.strip():
        raise SourceError(f"{path}: predict cell {cell.metadata['predict']!r} has no line '{ANSWER} ...'")
    return question.strip(), answer.strip()


def _check(source: Source) -> None:
    path, cells = source.path, source.cells
    if not re.fullmatch(r"\d\d_[a-z0-9_]+\.py", path.name):
        raise SourceError(f"{path}: the file must be named NN_title.py")
    for role in ("solution", "check"):
        names = [cell.metadata[role] for cell in cells if role in cell.metadata]
        if names != [task.name for task in source.tasks]:
            raise SourceError(f"{path}: {role} cells {names} do not match exercises {[t.name for t in source.tasks]}")
    for task in source.tasks:
        if task.goal not in source.goals:
            raise SourceError(f"{path}: exercise {task.name!r} names goal {task.goal!r}; known: {list(source.goals)}")
        if task.stars not in (1, 2, 3):
            raise SourceError(f"{path}: exercise {task.name!r} has {task.stars} stars; 1, 2 or 3")
    for cell in cells:
        where = f"{path}: cell {cell.source.splitlines()[0]!r}"
        if cell.cell_type == "markdown" and re.search(r"^# ", cell.source, re.M):
            raise SourceError(f"{where}: the title comes from the header; headings inside begin with ##")
        if "solution" in cell.metadata and not (BEGIN in cell.source and END in cell.source):
            raise SourceError(f"{where}: a solution needs the lines '{BEGIN}' and '{END}'")
        if "check" in cell.metadata and f"lesson.check.{cell.metadata['check']}(" not in cell.source:
            raise SourceError(f"{where}: a check cell calls lesson.check.{cell.metadata['check']}(...)")
    _no_solution_is_needed_elsewhere(source)


def _no_solution_is_needed_elsewhere(source: Source) -> None:
    """A student who has not solved an exercise can still run the rest: no other cell uses what a solution defines."""
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    given = {name for cell in code if "solution" not in cell.metadata for name in defined(cell.source)}
    for cell in code:
        task = cell.metadata.get("solution")
        if not task:
            continue
        for other in code:
            if task in (other.metadata.get("solution"), other.metadata.get("check")):
                continue
            if shared := (set(defined(cell.source)) - given) & used(other.source):
                raise SourceError(
                    f"{source.path}: cell {other.source.splitlines()[0]!r} uses {sorted(shared)}, which exercise "
                    f"{task!r} defines; a student who skipped it would be stuck. Use the package's function there"
                )


def plain(code: str) -> str:
    """Code without IPython's magic lines."""
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in code.splitlines())


def defined(code: str) -> list[str]:
    """Names that a cell's top level binds by def, class or assignment, in order."""
    names = []
    for node in ast.parse(plain(code)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                names += [n.id for n in ast.walk(target) if isinstance(n, ast.Name)]
    return names


def used(code: str) -> set[str]:
    """Names that a cell reads."""
    nodes = ast.walk(ast.parse(plain(code)))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
