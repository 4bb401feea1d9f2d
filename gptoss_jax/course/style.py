"""Measure the lessons' style beside the admired notebooks': ``python -m gptoss_jax.course.style``.

Prose that is pleasant to follow comes in small steps: short code cells, more words than code, a check every few cells.
The ranges are those found in the teaching notebooks that people praise.
"""

import ast
import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

from gptoss_jax.course import build

MEDIAN_LINES, P90_LINES, MAX_LINES = 6, 20, 25
PROSE_TO_CODE = (1.5, 3.05)
CELLS_PER_ASSERT = 3
COLUMNS = "set | n | cells | code | median | p90 | max | words/md | prose:code | words/line | asserts/100 | executed"
ANCHORS = (  # measured on these repositories, non-blank lines; cells and code cells a notebook
    ("rasbt/LLMs-from-scratch ch02-07 (28c65cd)", 6, 135, 45, 4, 20, 68, 19, 1.82, None, 1.9, 0.71),
    ("rasbt reasoning-from-scratch", 19, 33, 12, 7, 27, 130, 15, 1.88, None, 1.6, 0.75),
    ("phlippe/uvadlc_notebooks, JAX (0da8037)", 22, 65, 28, 11, 38, 157, 60, 2.12, None, 2.7, 0.37),
    ("google-deepmind/penzai (aac7808)", 7, 134, 65, 3, 13, 101, 27, 3.04, None, 1.8, 0.0),
    ("TransformerLens demos (4cd36aa)", 30, 19, 10, 9, 28, 216, 34, 1.27, None, 4.9, 0.39),
)


@dataclasses.dataclass(frozen=True)
class Style:
    """Sizes of one notebook; lines are non-blank lines of a code cell.

    Attributes:
      name: of the notebook.
      cells, code: all cells, code cells.
      lines: of each code cell.
      prose, code_words: words in Markdown and in code.
      words: of each Markdown cell.
      asserts: assert statements and graded checks.
      executed: share of code cells with an execution count.
    """

    name: str
    cells: int
    code: int
    lines: tuple[int, ...]
    prose: int
    code_words: int
    words: tuple[int, ...]
    asserts: int
    executed: float

    def row(self) -> tuple[Any, ...]:
        """The numbers under `COLUMNS`, from n on."""
        return (
            *(1, self.cells, self.code, statistics.median(self.lines), percentile(self.lines, 90), max(self.lines)),
            *(statistics.median(self.words), self.prose / self.code_words, self.code_words / sum(self.lines)),
            *(100 * self.asserts / self.code, self.executed),
        )

    def problems(self) -> list[str]:
        """Where the notebook leaves the ranges, one line each."""
        median, p90, ratio = statistics.median(self.lines), percentile(self.lines, 90), self.prose / self.code_words
        low, high = PROSE_TO_CODE
        found = {
            f"median code cell has {median} lines, at most {MEDIAN_LINES}": median > MEDIAN_LINES,
            f"90th percentile of code cells is {p90} lines, at most {P90_LINES}": p90 > P90_LINES,
            f"longest code cell has {max(self.lines)} lines, at most {MAX_LINES}": max(self.lines) > MAX_LINES,
            f"{ratio:.2f} words of prose for a word of code; {low} to {high}": not low <= ratio <= high,
            f"{self.asserts} asserts in {self.code} code cells; 1 for {CELLS_PER_ASSERT}": (
                self.asserts * CELLS_PER_ASSERT < self.code
            ),
            f"{self.executed:.0%} of the code cells are executed": self.executed < 1,
        }
        return [f"{self.name}: {text}" for text, holds in found.items() if holds]


def percentile(values: tuple[int, ...], p: int) -> int:
    """The smallest value that is at least as large as p percent of them."""
    return sorted(values)[max(0, -(-len(values) * p // 100) - 1)]


def measure(file: Path) -> Style:
    """The style of one notebook. The first code cell, the same in every lesson, is not counted as code."""
    import nbformat

    cells = nbformat.read(file, as_version=4).cells
    code = [c for c in cells if c.cell_type == "code" and "start" not in c.metadata.get("tags", [])]
    prose = [c.source.split() for c in cells if c.cell_type == "markdown"]
    return Style(
        name=file.stem,
        cells=len(cells),
        code=len(code),
        lines=tuple(sum(bool(line.strip()) for line in c.source.splitlines()) for c in code),
        prose=sum(map(len, prose)),
        code_words=sum(len(c.source.split()) for c in code),
        words=tuple(map(len, prose)),
        asserts=sum(_asserts(c.source) for c in code),
        executed=sum(c.execution_count is not None for c in code) / len(code),
    )


def _asserts(code: str) -> int:
    nodes = ast.walk(ast.parse("\n".join(line for line in code.splitlines() if not line.startswith("%"))))
    return sum(isinstance(node, ast.Assert) for node in nodes) + code.count("lesson.check.")


def report(styles: list[Style]) -> str:
    """A Markdown table: every lesson, all lessons together, and the anchors."""
    rows = [(style.name, *style.row()) for style in styles]
    rows.append(("**these lessons, mean**", len(styles), *(statistics.mean(r[i] for r in rows) for i in range(2, 12))))
    lines = [f"| {COLUMNS} |", "| --- " * (COLUMNS.count("|") + 1) + "|"]
    for name, *values in [*rows, *ANCHORS]:
        lines.append(f"| {name} | " + " | ".join("" if v is None else f"{v:.3g}" for v in values) + " |")
    return "\n".join(lines)


def main() -> int:
    """Print the table and what lies outside the ranges; 1 if anything does."""
    files = [build.target(path, "reading") for path in build.sources()]
    styles = [measure(file) for file in files if file.exists()]
    print(report(styles))
    problems = [text for style in styles for text in style.problems()]
    print("\n".join(problems), file=sys.stderr)
    return bool(problems)


if __name__ == "__main__":
    raise SystemExit(main())
