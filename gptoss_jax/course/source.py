"""From a lesson's source, `notebooks/source/NN_title.py`, to the cells of its three notebooks (see CONTRIBUTING.md).

Pure text: nothing is executed here, so that a test can compare a committed notebook with its source in milliseconds.
"""

import ast
import copy
import dataclasses
import re
from pathlib import Path
from typing import Any, Literal

Product = Literal["reading", "exercises", "solutions"]
PRODUCTS: tuple[Product, ...] = ("reading", "exercises", "solutions")
BEGIN, END, ANSWER = "### BEGIN SOLUTION", "### END SOLUTION", "ANSWER:"
STUB = "...  # your code here"
START = """\
try:
    from gptoss_jax import course
except ImportError as problem:
    raise ImportError(
        f"{{problem}}. This kernel does not see the course's package. Choose Kernel > Change Kernel > Python 3 of the "
        "environment that `make lab` made. Or, in a terminal in the project's folder, run this kernel's Python with "
        "`-m pip install -e .[lab]`, and restart the kernel."
    ) from None

lesson = course.start("{number}", seconds={seconds})"""


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
        predictions=tuple(_prediction(path, cell) for cell in cells if "predict" in cell.metadata),
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


def _prediction(path: Path, cell: Any) -> tuple[str, str]:
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


def _plain(code: str) -> str:
    """Code without IPython's magic lines."""
    return "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in code.splitlines())


def defined(code: str) -> list[str]:
    """Names that a cell's top level binds by def, class or assignment, in order."""
    names = []
    for node in ast.parse(_plain(code)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                names += [n.id for n in ast.walk(target) if isinstance(n, ast.Name)]
    return names


def used(code: str) -> set[str]:
    """Names that a cell reads."""
    nodes = ast.walk(ast.parse(_plain(code)))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def strip_solution(code: str) -> str:
    """What the student gets: each marked region becomes one line to fill in, at the region's indentation.

    At the top level the line is ``name = ...`` for each name that the region assigns; inside a function it is ``...``.
    """
    out: list[str] = []
    region: list[str] | None = None
    for line in code.splitlines():
        if line.strip() == BEGIN:
            region, indent = [], line[: len(line) - len(line.lstrip())]
        elif line.strip() == END and region is not None:
            names = [] if indent else list(dict.fromkeys(defined("\n".join(region))))
            out += [f"{indent}{name} = {STUB}" for name in names] or [indent + STUB]
            region = None
        elif region is not None:
            region.append(line)
        else:
            out.append(line)
    return "\n".join(out)


def without_markers(code: str) -> str:
    """The solved cell as the reading version shows it."""
    return "\n".join(line for line in code.splitlines() if line.strip() not in (BEGIN, END))


def notebook(source: Source, product: Product) -> Any:
    """The unexecuted notebook, complete but for outputs."""
    import nbformat

    cells = [
        _cell("markdown", _opening(source, product)),
        _cell("code", START.format(number=source.number, seconds=source.seconds)),
    ]
    cells[1].metadata["tags"] = ["start"]
    number = 0
    for cell in source.cells:
        number += "exercise" in cell.metadata
        cells.append(_product_cell(source, cell, product, number))
    _name(cells)
    if product != "reading":
        for cell in cells:
            if cell.cell_type == "markdown":
                cell.source = cell.source.replace("](../", "](../../")
    book = nbformat.v4.new_notebook(cells=cells)
    book.nbformat_minor = 5
    book.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "lesson": {"number": source.number, "product": product, "title": source.title},
        }
    )
    return book


def _cell(kind: str, text: str) -> Any:
    import nbformat

    return getattr(nbformat.v4, f"new_{kind}_cell")(text.strip("\n"))


def _opening(source: Source, product: Product) -> str:
    goals = "\n".join(f"- {goal[0].lower()}{goal[1:].rstrip('.')};" for goal in source.goals.values())
    parts = [
        f"# {source.number} · {source.title}",
        f"**Time:** {source.minutes} minutes. **You need:** {source.needs}",
        f"After this lesson you can\n\n{goals[:-1]}.",
        "[It failed, what now?](../docs/troubleshooting.md) · [Glossary](../docs/glossary.md) · "
        "[The letters in the shapes](../docs/notation.md)",
    ]
    if product == "reading" and source.tasks:
        own = f"This copy has been run, with the solutions folded: [solve them in yours](exercises/{source.name})."
        parts.insert(3, own)
    return "\n\n".join(parts)


def _product_cell(source: Source, cell: Any, product: Product, number: int) -> Any:
    new = _cell(cell.cell_type, cell.source)
    data, tags = cell.metadata, list(cell.metadata.get("tags", []))
    if "exercise" in data:
        task = source.tasks[number - 1]
        heading = f"### Exercise {number}: {task.title} {'★' * task.stars} ({task.minutes} minutes)"
        new.source = "\n".join([heading, *new.source.splitlines()[1:]])
        new.metadata["exercise"] = dataclasses.asdict(task)
    elif "predict" in data:
        question, answer = _prediction(source.path, cell)
        new.source = f"**Predict.** {question}\n\n<details>\n<summary>Answer</summary>\n\n{answer}\n\n</details>"
        tags.append("predict")
    elif "solution" in data:
        name = data["solution"]
        tags.append("solution")
        if product == "reading":
            new.source = without_markers(new.source)
            new.metadata["jupyter"] = {"source_hidden": True}
            tags.append("hide-input")
        else:
            new.metadata["nbgrader"] = _nbgrader(name, solution=True)
            if product == "exercises":
                new.source = strip_solution(new.source)
    elif "check" in data:
        name = data["check"]
        tags.append("check")
        if product != "reading":
            new.metadata["nbgrader"] = _nbgrader(f"check_{name}", points=source.tasks[number - 1].stars)
        if product == "exercises":
            tags.append("raises-exception")  # "run all" goes on past an exercise that is not solved yet
    if tags:
        new.metadata["tags"] = tags
    return new


def _nbgrader(grade_id: str, *, solution: bool = False, points: int = 0) -> dict[str, Any]:
    """nbgrader's cell metadata, schema version 3: an answer to fill in, or a locked autograder test."""
    fields = {"grade": bool(points), "grade_id": grade_id, "locked": not solution, "schema_version": 3}
    return fields | {"solution": solution, "task": False} | ({"points": points} if points else {})


def _name(cells: list[Any]) -> None:
    """Ids from role, or from section and position in it: an edit renames only its own section."""
    section = "opening"
    count: dict[str, int] = {}
    for cell in cells:
        heading = re.search(r"^#{2,3} (.+)", cell.source, re.M) if cell.cell_type == "markdown" else None
        task = cell.metadata.get("exercise", {}).get("name")
        grading = (
            re.search(r"lesson\.check\.(\w+)\(", cell.source) if "check" in cell.metadata.get("tags", []) else None
        )
        if task:
            section = f"exercise-{task}"
        elif heading:
            section = re.sub(r"[^a-z0-9]+", "-", heading[1].lower()).strip("-")[:48] or "section"
        count[section] = count.get(section, 0) + 1
        cell.id = f"check-{grading[1]}"[:64] if grading else f"{section}-{count[section]}"[:64]


def same_source(a: Any, b: Any) -> bool:
    """Whether two notebooks agree in everything but outputs and execution counts."""
    return _bare(a) == _bare(b)


def _bare(book: Any) -> Any:
    book = copy.deepcopy(book)
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return book
