"""The three notebooks of a lesson: reading version, students' version, solutions. Pure text, nothing is executed."""

import copy
import dataclasses
import re
from typing import Any, Literal

from gptoss_jax.course.source import BEGIN, END, Source, defined, split_prediction

Product = Literal["reading", "exercises", "solutions"]
PRODUCTS: tuple[Product, ...] = ("reading", "exercises", "solutions")
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
        question, answer = split_prediction(source.path, cell)
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
