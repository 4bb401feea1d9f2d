"""The first cell of a lesson under everything that can be wrong: it says what, and what to do."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gptoss_jax.course import lesson, products

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "parity" / "golden" / "small"
CELL = products.START.format(number="00", seconds=5)


@pytest.fixture
def clean(monkeypatch):
    monkeypatch.delenv("GPTOSS_CHECKPOINT", raising=False)
    return monkeypatch


def test_built_in_mode(clean, capsys):
    begun = lesson.start("00", seconds=5)
    out = capsys.readouterr().out
    assert out.startswith("Lesson 00: built-in model, about 5 s on two cores\ngptoss_jax ")
    assert "jax " in out and "docs/troubleshooting.md" in out and "gptoss-jax doctor" in out
    assert begun.builtin and begun.number == "00"


def test_checkpoint_mode(clean, capsys):
    clean.setenv("GPTOSS_CHECKPOINT", str(GOLDEN))
    begun = lesson.start("05")
    assert "checkpoint small" in capsys.readouterr().out
    assert not begun.builtin
    model, _ = begun.model(first_layers=1)
    assert model.config.num_layers == 1
    assert begun.model(first_layers=1)[0] is model, "loaded once"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent", "there is no such folder"),
        (lambda folder: folder / "file", "a file; name the folder"),
        (lambda folder: folder, "no config.json"),
    ],
    ids=["absent", "file", "empty"],
)
def test_wrong_checkpoint(clean, tmp_path, make, message):
    (tmp_path / "file").write_text("x")
    clean.setenv("GPTOSS_CHECKPOINT", str(make(tmp_path)))
    with pytest.raises(lesson.LessonError, match=message) as caught:
        lesson.start("00")
    shown = "\n".join(caught.value._render_traceback_())
    assert "unset it to use the built-in model" in shown and "Traceback" not in shown


def test_missing_and_old_packages_are_named(clean):
    needs = ["jax>=99", "no-such-package-here>=1", "other>=1 ; extra == 'lab'"]
    clean.setattr("importlib.metadata.requires", lambda name: needs)
    with pytest.raises(lesson.LessonError, match=r"jax \S+ is outside >=99; no-such-package-here is missing"):
        lesson.start("00")


def test_package_that_is_not_installed(clean):
    def absent(name):
        raise lesson.importlib.metadata.PackageNotFoundError(name)

    clean.setattr("importlib.metadata.requires", absent)
    with pytest.raises(lesson.LessonError, match="not installed in this kernel"):
        lesson.start("00")


def test_read_only_disk(clean, capsys):
    def refuse(dir=None):
        if dir == ".":
            raise OSError("read-only file system")
        return open(os.devnull)

    clean.setattr("tempfile.TemporaryFile", refuse)
    lesson.start("00")
    assert "read-only: the lesson runs, but keep your answers with File > Download" in capsys.readouterr().out


def test_no_temporary_folder(clean):
    def refuse(dir=None):
        raise OSError("read-only file system")

    clean.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(lesson.LessonError, match="TMPDIR"):
        lesson.start("00")


def test_unwritable_home_does_not_disturb_matplotlib(clean, tmp_path, capsys):
    clean.delenv("MPLCONFIGDIR", raising=False)
    clean.setattr("os.access", lambda path, mode: False)
    lesson.start("00")
    assert "gptoss-matplotlib" in os.environ["MPLCONFIGDIR"]
    clean.delenv("MPLCONFIGDIR")


def run(code, tmp_path, **variables):
    """Run code in IPython in another folder, as a kernel would."""
    script = tmp_path / "run.py"
    script.write_text(
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\nshell.run_line_magic('colors', 'nocolor')\n"
        f"for cell in {[textwrap.dedent(c) for c in code]!r}:\n    shell.run_cell(cell, store_history=True)\n"
    )
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython"), "NO_COLOR": "1", **variables}
    environment.pop("GPTOSS_CHECKPOINT", None) if "GPTOSS_CHECKPOINT" not in variables else None
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    return done.stdout + done.stderr


def test_the_first_cell_in_another_folder(tmp_path):
    assert "Lesson 00: built-in model" in run([CELL], tmp_path)


def test_the_first_cell_without_the_package(tmp_path):
    hidden = "import sys\nsys.modules['gptoss_jax'] = None"
    out = run([hidden, CELL], tmp_path)
    assert "This kernel does not see the course's package. Choose Kernel > Change Kernel" in out
    assert "make lab" in out and "install -e" in out


def test_the_first_cell_beside_a_folder_of_the_same_name(tmp_path):
    (tmp_path / "gptoss_jax").mkdir()
    (tmp_path / "gptoss_jax" / "__init__.py").write_text("")
    here_first = "import sys\nsys.path.insert(0, '')"
    out = run([here_first, CELL], tmp_path)
    assert "does not see the course's package" in out or "hides the installed package" in out


def test_the_first_cell_with_a_wrong_checkpoint(tmp_path):
    out = run([CELL], tmp_path, GPTOSS_CHECKPOINT=str(tmp_path / "nowhere"))
    assert "This lesson cannot start: GPTOSS_CHECKPOINT is" in out and "no such folder" in out
    assert "Traceback" not in out


def test_a_cell_run_out_of_order_is_explained(tmp_path):
    out = run([CELL, "print(config)"], tmp_path)
    assert "'config' is made in a cell above that has not run since the kernel started" in out
    assert "Run All Above" in out
