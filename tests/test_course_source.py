"""From one lesson source to three notebooks: what each holds, and what a broken source is told."""

import base64
import textwrap

import nbformat
import pytest

from gptoss_jax.course import build, products, source

HEADER = """
# ---
# jupyter:
#   lesson:
#     title: Demo
#     minutes: 10
#     seconds: 3
#     needs: nothing.
#     modules: [config]
#     goals:
#       add: Add numbers.
# ---

# %%
import math
"""
BODY = """
# %% [markdown]
# ## A section & more
# [link](../docs/glossary.md)

# %% [markdown] predict="p"
# How much?
#
# ANSWER: This **much**.

# %%
print(math.pi)

# %% [markdown] exercise="add" stars=2 minutes=5 goal="add"
# ### Add
# Do it.

# %% solution="add"
def add(a, b):
    ### BEGIN SOLUTION
    total = a + b
    return total
    ### END SOLUTION


# %% check="add"
lesson.check.add(add)
"""


def write(tmp_path, text, name="42_demo.py"):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
    return path


@pytest.fixture
def demo(tmp_path):
    return source.read(write(tmp_path, HEADER + BODY))


def by_id(demo, product):
    return {cell.id: cell for cell in products.notebook(demo, product).cells}


def test_header_tasks_and_predictions(demo):
    assert (demo.number, demo.title, demo.minutes, demo.seconds, demo.modules) == ("42", "Demo", 10, 3, ("config",))
    assert demo.tasks == (source.Task("add", 2, 5, "add", "Add"),)
    assert demo.predictions == (("How much?", "This **much**."),)


@pytest.mark.parametrize("product", products.PRODUCTS)
def test_every_product_is_a_valid_notebook_with_the_first_cells(demo, product):
    book = products.notebook(demo, product)
    nbformat.validate(book)
    assert book.cells[0].source.startswith("# 42 · Demo\n")
    assert "add numbers" in book.cells[0].source
    assert 'lesson = course.start("42", seconds=3)' in book.cells[1].source
    assert "except ImportError" in book.cells[1].source
    assert len({cell.id for cell in book.cells}) == len(book.cells)


def test_reading_version_folds_the_solution_in(demo):
    cell = by_id(demo, "reading")["exercise-add-2"]
    assert cell.source == "def add(a, b):\n    total = a + b\n    return total"
    assert cell.metadata.jupyter == {"source_hidden": True}
    assert "nbgrader" not in cell.metadata


def test_students_version_has_a_stub_and_nbgrader_cells(demo):
    cells = by_id(demo, "exercises")
    stub, check = cells["exercise-add-2"], cells["check-add"]
    assert stub.source == "def add(a, b):\n    ...  # your code here"
    common = {"schema_version": 3, "task": False}
    assert stub.metadata.nbgrader == common | {"grade": False, "grade_id": "add", "locked": False, "solution": True}
    expected = {"grade": True, "grade_id": "check_add", "locked": True, "points": 2, "solution": False}
    assert check.metadata.nbgrader == common | expected
    assert "raises-exception" in check.metadata.tags


def test_solutions_keep_the_markers(demo):
    cells = by_id(demo, "solutions")
    assert source.BEGIN in cells["exercise-add-2"].source
    assert "raises-exception" not in cells["check-add"].metadata.tags


def test_the_answer_is_folded_and_the_heading_counts(demo):
    cells = by_id(demo, "exercises")
    predict = cells["a-section-more-2"].source
    assert predict.startswith("**Predict.** How much?")
    assert "<summary>Answer</summary>\n\nThis **much**.\n\n</details>" in predict
    assert cells["exercise-add-1"].source.startswith("### Exercise 1: Add ★★ (5 minutes)\n")


def test_links_fit_the_folder(demo):
    assert "](../docs/glossary.md)" in by_id(demo, "reading")["a-section-more-1"].source
    assert "](../../docs/glossary.md)" in by_id(demo, "exercises")["a-section-more-1"].source


def test_strip_solution_at_the_top_level():
    code = f"x = 1\n{source.BEGIN}\na = 1\nb = a + x\n{source.END}\ny = 2"
    assert products.strip_solution(code) == "x = 1\na = ...  # your code here\nb = ...  # your code here\ny = 2"


def test_ids_of_other_sections_survive_an_insertion(tmp_path, demo):
    longer = BODY.replace("# %% [markdown] predict", "# %%\nprint(1)\n\n# %% [markdown] predict")
    other = source.read(write(tmp_path, HEADER + longer))
    ids = [cell.id for cell in products.notebook(other, "reading").cells]
    assert {"exercise-add-1", "exercise-add-2", "check-add", "opening-1", "opening-2"} <= set(ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('goal="add"', 'goal="mul"'), "goal 'mul'"),
        (("stars=2", "stars=4"), "4 stars"),
        ((" minutes=5", ""), "lacks minutes="),
        (("# ANSWER: This", "# This"), "ANSWER:"),
        (("### BEGIN SOLUTION", "# begin"), "BEGIN SOLUTION"),
        (('check="add"', 'check="sub"'), "do not match exercises"),
        (("lesson.check.add(add)", "add(1, 2)"), "lesson.check.add"),
        (("# ## A section", "# # A section"), "title comes from the header"),
        (("# ### Add", "# Add"), "open with a heading"),
        (("print(math.pi)", "print(add(1, 2))"), "a student who skipped it would be stuck"),
        (("#     needs: nothing.\n", ""), "lacks needs"),
        (("  lesson:", "  other:"), "no `lesson:` block"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[1][:20] or "removed",
)
def test_broken_sources_are_refused(tmp_path, change, message):
    assert change[0] in HEADER + BODY
    path = write(tmp_path, (HEADER + BODY).replace(*change, 1))
    with pytest.raises(source.SourceError, match=message) as caught:
        source.read(path)
    assert "42_demo.py" in str(caught.value)


def test_a_wrong_file_name_is_refused(tmp_path):
    with pytest.raises(source.SourceError, match="NN_title"):
        source.read(write(tmp_path, HEADER, name="42-Demo.py"))


def _folder(tmp_path):
    (tmp_path / "source").mkdir()
    return write(tmp_path / "source", HEADER + BODY)


def _committed(tmp_path, path):
    lesson = source.read(path)
    for product in products.PRODUCTS:
        build.write(products.notebook(lesson, product), build.target(path, product, tmp_path))


def test_staleness_is_found(tmp_path):
    path = _folder(tmp_path)
    assert len(build.stale(path, tmp_path)) == 3 and "missing" in build.stale(path, tmp_path)[0]
    _committed(tmp_path, path)
    assert build.stale(path, tmp_path) == []
    path.write_text(path.read_text().replace("math.pi", "math.e"))
    assert all("differs from 42_demo.py" in line for line in build.stale(path, tmp_path))
    assert len(build.stale(path, tmp_path)) == 3


def test_outputs_where_none_belong_and_differing_outputs_are_found(tmp_path):
    path = _folder(tmp_path)
    _committed(tmp_path, path)
    for product, message in (("exercises", "holds outputs"), ("solutions", "outputs differ")):
        file = build.target(path, product, tmp_path)
        book = nbformat.read(file, 4)
        book.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="x")]
        build.write(book, file)
        assert any(message in line for line in build.stale(path, tmp_path))


def test_a_large_notebook_is_found(tmp_path, monkeypatch):
    path = _folder(tmp_path)
    _committed(tmp_path, path)
    monkeypatch.setattr(build, "MAX_BYTES", 100)
    assert any("at most 100" in line for line in build.stale(path, tmp_path))


def test_a_write_that_fails_leaves_the_old_notebook(tmp_path):
    path = _folder(tmp_path)
    _committed(tmp_path, path)
    file = build.target(path, "reading", tmp_path)
    before = file.read_bytes()
    broken = nbformat.read(file, 4)
    broken.cells[0].cell_type = "nonsense"
    with pytest.raises(nbformat.ValidationError):
        build.write(broken, file)
    assert file.read_bytes() == before


def test_tidy_removes_what_differs_between_runs():
    from gptoss_jax.course import display

    fig, ax = display.figure(1, 1)
    ax.plot([1, 2])
    png = display.png_of(fig)
    text = png[:33] + b"\x00\x00\x00\x03tEXta\x00b\x00\x00\x00\x00" + png[33:]
    stream = [nbformat.v4.new_output("stream", name="stdout", text=t) for t in ("a\n", "b\n")]
    image = nbformat.v4.new_output("display_data", data={"image/png": base64.b64encode(text).decode()})
    cell = nbformat.v4.new_code_cell("1", execution_count=7, outputs=[*stream, image])
    cell.metadata["execution"] = {"iopub.execute_input": "now"}
    book = build.tidy(nbformat.v4.new_notebook(cells=[cell]))
    assert cell.execution_count == 1 and not cell.metadata
    assert [o.get("text") for o in cell.outputs] == ["a\nb\n", None]
    assert base64.b64decode(cell.outputs[1].data["image/png"]) == png
    assert book.metadata.language_info == {"name": "python"}


def test_unknown_lesson_numbers_are_named():
    with pytest.raises(SystemExit, match="77"):
        build.sources(["77"])


def test_prose_changes_without_running(tmp_path):
    path = _folder(tmp_path)
    _committed(tmp_path, path)
    file = build.target(path, "reading", tmp_path)
    book = nbformat.read(file, 4)
    output = nbformat.v4.new_output("stream", name="stdout", text="kept")
    book.cells[1].outputs = [output]
    build.write(book, file)
    path.write_text(path.read_text().replace("How much?", "How many?"))
    build.build(path, tmp_path, run=False)
    assert build.stale(path, tmp_path) == []
    assert nbformat.read(file, 4).cells[1].outputs == [output]
    path.write_text(path.read_text().replace("math.pi", "math.e"))
    with pytest.raises(build.LessonFailed, match="must be run"):
        build.build(path, tmp_path, run=False)


def test_the_reading_version_points_to_the_students_copy(demo):
    assert "](exercises/42_demo.ipynb)" in by_id(demo, "reading")["opening-1"].source
    assert "exercises/" not in by_id(demo, "exercises")["opening-1"].source
