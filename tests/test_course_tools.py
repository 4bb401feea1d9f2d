"""The tools beside the lessons: measuring style, and the generated parts of the teachers' pages."""

import nbformat
import pytest

from gptoss_jax.config import GPT_OSS_20B, GPT_OSS_120B, TINY
from gptoss_jax.course import architecture, guide, style


def notebook(tmp_path, *cells):
    new = {"m": nbformat.v4.new_markdown_cell, "c": nbformat.v4.new_code_cell}
    book = nbformat.v4.new_notebook(cells=[new[kind](text) for kind, text in cells])
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.execution_count = 1
    path = tmp_path / "00_demo.ipynb"
    nbformat.write(book, path)
    return path


def test_style_counts(tmp_path):
    cells = ("m", "one two three four"), ("c", "x = 1\n\nassert x"), ("c", "lesson.check.a(x)"), ("m", "five six")
    found = style.measure(notebook(tmp_path, *cells))
    assert (found.cells, found.code, found.lines, found.prose, found.code_words) == (4, 2, (2, 1), 6, 6)
    assert found.words == (4, 2) and found.asserts == 2 and found.executed == 1
    assert found.row() == (1, 4, 2, 1.5, 2, 2, 3, 1.0, 2.0, 100.0, 1.0)


def test_style_problems(tmp_path):
    long = "\n".join(f"x{i} = {i}" for i in range(26))
    found = style.measure(notebook(tmp_path, ("m", "word"), ("c", long))).problems()
    assert [text.split(": ")[1].split()[0] for text in found] == ["median", "90th", "longest", "0.01", "0"]
    fine = ("m", "word " * 6), ("c", "x = 1"), ("c", "assert x")
    assert style.measure(notebook(tmp_path, *fine)).problems() != []
    assert style.measure(notebook(tmp_path, ("m", "word " * 10), *fine[1:])).problems() == []


@pytest.mark.parametrize(("values", "p", "expected"), [((1, 2, 3, 4), 50, 2), ((5,), 90, 5), (tuple(range(10)), 90, 8)])
def test_percentile(values, p, expected):
    assert style.percentile(values, p) == expected


def test_generated_parts_keep_what_is_written_by_hand():
    text = (guide.DOCS / "instructor.md").read_text(encoding="utf-8")
    current = guide.filled("instructor.md", text)
    assert guide.filled("instructor.md", current.replace("Map and set-up", "another title")) == current
    assert "Three paths" in current and "Map and set-up" in current
    with pytest.raises(ValueError, match="once each"):
        guide.filled("style.md", "no markers")


@pytest.mark.parametrize(
    ("count", "text"), [(20_914_757_184, "20.9 B"), (637_203_456, "637 M"), (33_300, "33.3 k"), (12, "12")]
)
def test_short_counts(count, text):
    assert architecture.short(count) == text


def test_the_map_shows_live_counts():
    fig, alt = architecture.draw_map({"tiny": TINY, "20b": GPT_OSS_20B, "120b": GPT_OSS_120B})
    shown = [text.get_text() for text in fig.axes[0].texts]
    assert {"20.9 B", "117 B", "3.61 B", "5.13 B", "19.1 B"} <= set(shown)
    assert "20b 20.9 B" in alt and "router" in alt
