"""The parts of the teachers' pages that follow from the lessons: ``python -m gptoss_jax.course.guide``.

The matrix of goals, exercises and tests, the expected answers to the predictions, the hints of every check and the
table of styles are written between markers; everything else in these pages is written by hand.
"""

from pathlib import Path

from gptoss_jax.course import build, checks, source, style

DOCS = Path(__file__).parents[2] / "docs"


def matrix(lessons: list[source.Source]) -> str:
    """One row a goal: the exercises that practice it and the tests that hold the code and the checks."""
    lines = ["| lesson | after it you can | exercises | tests |", "| --- | --- | --- | --- |"]
    for lesson in lessons:
        tests = [f"`tests/test_{module}*`" for module in lesson.modules] + [
            f"`tests/mutants/lesson_{lesson.number}.py`"
        ]
        for key, goal in lesson.goals.items():
            tasks = ", ".join(f"{t.title} {'★' * t.stars}" for t in lesson.tasks if t.goal == key) or "predictions"
            lines.append(
                f"| {lesson.number} | {goal[0].lower()}{goal[1:].rstrip('.')} | {tasks} | {', '.join(tests)} |"
            )
    return "\n".join(lines)


def times(lessons: list[source.Source]) -> str:
    """One row a lesson: minutes to read, to solve, seconds to run."""
    head = "| lesson | title | minutes | of these for exercises | seconds to run |\n| --- | --- | --- | --- | --- |"
    rows = [
        f"| {s.number} | [{s.title}](../notebooks/{s.name}) | {s.minutes} | {sum(t.minutes for t in s.tasks)} "
        f"| {s.seconds} |"
        for s in lessons
    ]
    return "\n".join([head, *rows])


def predictions(lessons: list[source.Source]) -> str:
    """Every question that is put before its answer, with the answer to expect."""
    blocks = []
    for lesson in lessons:
        blocks.append(f"### {lesson.number} · {lesson.title}")
        blocks += [f"**{_line(question)}**\n\n{_line(answer)}" for question, answer in lesson.predictions]
    return "\n\n".join(blocks)


def hints(lessons: list[source.Source]) -> str:
    """Every named hint: the mistakes that the checks recognize, so the ones to expect in class."""
    lines = ["| exercise | hint | what the student reads |", "| --- | --- | --- |"]
    for lesson in lessons:
        for name, task in checks.exercises(lesson.number).items():
            lines += [f"| {lesson.number} {name} | {hint} | {_line(text)} |" for hint, text in task.hints.items()]
    return "\n".join(lines)


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def styles(lessons: list[source.Source]) -> str:
    """The measured style of every executed lesson beside that of admired notebooks."""
    files = [build.target(lesson.path, "reading") for lesson in lessons]
    return style.report([style.measure(file) for file in files if file.exists()])


PARTS = {
    "instructor.md": {"matrix": matrix, "times": times, "predictions": predictions, "hints": hints},
    "style.md": {"style": styles},
}


def filled(name: str, text: str) -> str:
    """The page `name` with the parts between its markers written anew."""
    lessons = [source.read(path) for path in build.sources()]
    for part, write in PARTS[name].items():
        begin, end = f"<!-- {part}: generated -->", f"<!-- {part}: end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{name} must hold {begin} and {end} once each")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{write(lessons)}\n\n{end}{rest.split(end)[1]}"
    return text


def stale() -> list[str]:
    """The pages that differ from what the lessons say."""
    pages = {name: (DOCS / name).read_text(encoding="utf-8") for name in PARTS}
    return [name for name, text in pages.items() if filled(name, text) != text]


def main() -> int:
    """Write the generated parts."""
    for name in stale():
        text = filled(name, (DOCS / name).read_text(encoding="utf-8"))
        partial = DOCS / f"{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(DOCS / name)
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
