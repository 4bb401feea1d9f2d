"""Every lesson: up to date with its source, same outputs when run again, inside its budgets, gradable, accessible.

`pytest tests/test_notebooks.py -k 05` runs one lesson. Outputs are compared strictly by nbval. Time is counted as
processor time, so that a busy machine does not fail a lesson.
"""

import ast
import base64
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from gptoss_jax.course import build, checks, display, guide, products, source, style

ROOT = Path(__file__).parents[1]
SOURCES = build.sources()
CORES, LIMIT_SECONDS, USUAL_SECONDS, LIMIT_BYTES = 2, 45, 20, 1.5e9
each = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
all_products = pytest.mark.parametrize("product", products.PRODUCTS)


def read(path, product="reading"):
    return nbformat.read(build.target(path, product), as_version=4)


def code(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


@each
def test_committed_notebooks_are_those_of_the_source(path):
    assert build.stale(path) == [], f"run: python -m gptoss_jax.course.build {path.stem[:2]}"


def test_no_notebook_is_without_a_source():
    known = {build.target(path, product) for path in SOURCES for product in products.PRODUCTS}
    assert set((ROOT / "notebooks").rglob("*.ipynb")) - known == set()


class Meter(threading.Thread):
    """The largest memory and the processor time of the kernels below a process."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.root, self.bytes, self.seconds, self.running = psutil.Process(pid), 0, 0.0, True

    def run(self):
        while self.running:
            try:
                for child in self.root.children(recursive=True):
                    self.bytes = max(self.bytes, child.memory_info().rss)
                    self.seconds = max(self.seconds, sum(child.cpu_times()[:2]))
            except psutil.Error:
                pass
            time.sleep(0.1)


def run_again(path, **variables):
    """nbval on a committed lesson: fails where an output differs; the meter of its kernel."""
    file = build.target(path, "reading")
    options = ["--nbval", f"--nbval-sanitize-with={ROOT / 'notebooks' / 'sanitize.cfg'}", "--nbval-cell-timeout=120"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(file)]
    environment = build.kernel_environment() | variables
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    meter = Meter(process.pid)
    meter.start()
    out, _ = process.communicate(timeout=540)
    meter.running = False
    assert process.returncode == 0, re.sub(r"\x1b\[[0-9;]*m", "", out)[-6000:]
    return meter


@each
def test_the_same_outputs_again_within_the_budget(path, record_property):
    meter = run_again(path)
    record_property("kernel_cpu_seconds", round(meter.seconds, 1))
    record_property("kernel_megabytes", round(meter.bytes / 1e6))
    assert meter.seconds <= CORES * LIMIT_SECONDS, f"{meter.seconds:.0f} s of processor time"
    assert meter.bytes <= LIMIT_BYTES, f"{meter.bytes / 1e6:.0f} MB"


@pytest.mark.slow
@each
def test_the_same_outputs_on_another_instruction_set(path):
    cache = str(ROOT / ".jax_cache" / "avx")  # programs of one instruction set do not run as the other's
    run_again(path, XLA_FLAGS="--xla_cpu_max_isa=AVX", JAX_COMPILATION_CACHE_DIR=cache)


def test_declared_times():
    seconds = {path.stem: source.read(path).seconds for path in SOURCES}
    assert max(seconds.values()) <= LIMIT_SECONDS, seconds
    slow = [name for name, value in seconds.items() if value > USUAL_SECONDS]
    assert len(slow) <= len(seconds) / 10, slow


@each
def test_every_check_passed_in_the_reading_version(path):
    for cell in code(read(path)):
        if "check" in cell.metadata.get("tags", []):
            assert cell.outputs[-1].text.startswith("✓ "), cell.source


@each
def test_stubs_fail_with_a_hint(path):
    lesson = source.read(path)
    imports = [
        ast.unparse(node)
        for cell in lesson.cells
        if cell.cell_type == "code"
        for node in ast.parse(source.plain(cell.source)).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    from gptoss_jax.course.lesson import Lesson

    for task in lesson.tasks:
        names = {"lesson": Lesson(lesson.number, None)}
        exec("\n".join(imports), names)
        for cell in code(read(path, "exercises")):
            if cell.metadata.get("nbgrader", {}).get("grade_id") == task.name:
                exec(cell.source, names)
        check = next(cell for cell in lesson.cells if cell.metadata.get("check") == task.name)
        with pytest.raises(checks.CheckFailed) as caught:
            exec(check.source, names)
        assert caught.value.exercise == task.name
        assert caught.value.hint in ("not-written", "returns-nothing"), caught.value


@each
def test_a_student_who_solved_nothing_can_run_everything(path):
    book = build.execute(read(path, "exercises"))
    for cell in code(book):
        errors = [o for o in cell.outputs if o.output_type == "error"]
        if "check" in cell.metadata.get("tags", []):
            assert [e.ename for e in errors] == ["CheckFailed"], cell.source
            assert any("(hint: " in line for line in errors[0].traceback), errors[0].traceback
        else:
            assert not errors, cell.source


@each
def test_nbgrader_cells_are_complete(path):
    for product in ("exercises", "solutions"):
        cells = [cell.metadata.nbgrader for cell in read(path, product).cells if "nbgrader" in cell.metadata]
        ids = [cell.grade_id for cell in cells]
        assert len(set(ids)) == len(ids) == 2 * len(source.read(path).tasks)
        for cell in cells:
            assert cell.schema_version == 3 and cell.grade != cell.solution and cell.locked != cell.solution
            assert not cell.grade or cell.points in (1, 2, 3)


@each
@all_products
def test_pictures_have_alt_text_and_no_metadata(path, product):
    for cell in code(read(path, product)):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            png = output.get("data", {}).get("image/png")
            if png:
                assert output.metadata.get("image/png", {}).get("alt", "").strip(), f"no alt text: {cell.source}"
                raw = base64.b64decode(png)
                assert display.strip_png(raw) == raw, "the picture carries metadata"


@each
def test_outputs_do_not_depend_on_the_run(path):
    for cell in code(read(path)):
        for output in cell.outputs:
            text = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
            assert not re.search(r" at 0x[0-9a-f]{6,}>|/home/|/tmp/|\x1b\[", text), text[:300]
            assert output.get("name") != "stderr", text[:300]


@each
def test_headings_skip_no_level(path):
    level = 0
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"```.*?```", "", cell.source, flags=re.S)
            for mark in re.findall(r"^(#+) ", prose, re.M):
                assert len(mark) <= level + 1, cell.source
                level = len(mark)


@each
@all_products
def test_links_lead_to_files(path, product):
    file = build.target(path, product)
    for cell in read(path, product).cells:
        if cell.cell_type == "markdown":
            for link in re.findall(r"\]\(([^)#]+)[^)]*\)", cell.source):
                assert "://" in link or (file.parent / link).exists(), link


@each
def test_style_is_inside_the_ranges(path):
    assert style.measure(build.target(path, "reading")).problems() == []


@each
def test_terms_in_bold_are_in_the_glossary(path):
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").lower()
    terms = {term for cell in read(path).cells if cell.cell_type == "markdown" for term in _terms(cell.source)}
    missing = {
        term for term in terms if f"**{term}**" not in glossary and f"**{term.removesuffix('s')}**" not in glossary
    }
    assert missing == set(), "bold introduces a term of the glossary; emphasis is *italic*"


def _terms(text):
    """Words in bold inside a sentence, in lower case: how a lesson introduces a term."""
    return re.findall(r"(?<=[a-z,(] )\*\*([a-z][a-z -]+)\*\*", re.sub(r"\s+", " ", text))


def test_generated_pages_are_those_of_the_lessons():
    assert guide.stale() == [], "run: python -m gptoss_jax.course.guide"


def test_sources_and_notebooks_are_linted_and_formatted():
    for command in (["check"], ["format", "--check"]):
        for part in ("notebooks/source", "notebooks"):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *command, "--no-cache", part], cwd=ROOT, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout[-3000:]
