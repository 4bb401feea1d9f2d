"""JupyterLab as a student sees it: started for real, a lesson opened in Chromium, all cells run, the figures there."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from gptoss_jax.course import build

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.browser, pytest.mark.slow]
LESSONS = [path.stem for path in build.sources() if path.stem[:2] in ("00", "12")]  # the map, the explorer


@pytest.fixture(scope="module")
def lab(chromium, tmp_path_factory):
    """Address of a JupyterLab that serves a copy of the notebooks from a folder of its own."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints", "source"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = build.kernel_environment() | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    options += ["--IdentityProvider.token=", "--LabApp.news_url=", "--LabApp.check_for_updates_class="]
    options[-1] += "jupyterlab.NeverCheckForUpdate"
    command = [sys.executable, "-m", "jupyterlab", *options, str(folder)]
    with open(home / "log", "w") as log:
        server = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(lambda: server.poll() is not None or _answers(f"{address}/api/status"), 90)
        assert server.poll() is None, (home / "log").read_text()[-3000:]
        yield address, folder
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _answers(url):
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except (urllib.error.URLError, OSError):
        return False


def _wait(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.3)


def _open(chromium, address, notebook):
    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{address}/lab/tree/{notebook}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    page.wait_for_selector("#jp-main-statusbar >> text=/Python 3.*Idle/", timeout=90_000)  # earlier clicks are lost
    return page


def _command(page, menu, item):
    page.locator(".lm-MenuBar-itemLabel", has_text=menu).first.click()
    page.locator(".lm-Menu-itemLabel", has_text=item).first.click()


def _run_all(page, file):
    """Run every cell and save until the file has them all; its code cells."""
    _command(page, "Run", "Run All Cells")
    code = []

    def done():
        page.wait_for_timeout(1500)
        page.keyboard.press("Control+s")
        page.wait_for_timeout(500)
        code[:] = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
        return all(cell["execution_count"] for cell in code)

    _wait(done, 240)
    return code


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_runs_and_shows_its_figures(chromium, lab, name):
    address, folder = lab
    file = folder / f"{name}.ipynb"
    committed = json.loads(file.read_text())
    for cell in committed["cells"]:  # so that what is seen was made here
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    file.write_text(json.dumps(committed))
    page = _open(chromium, address, file.name)
    outputs = [output for cell in _run_all(page, file) for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error"]
    pictures = sum("image/png" in o.get("data", {}) for o in outputs)
    assert pictures, "no figure"
    seen = 0
    for i in range(len(committed["cells"])):  # cells far away are drawn when they come into view
        page.evaluate("i => document.querySelectorAll('.jp-Notebook .jp-Cell')[i]?.scrollIntoView()", i)
        page.wait_for_timeout(50)
        seen = max(
            seen, page.locator(".jp-OutputArea img").evaluate_all("x => x.filter(i => i.naturalWidth > 99).length")
        )
    assert seen >= 1, "the figures are in the file but not on the page"
    page.close()


def test_an_unsolved_exercise_shows_its_hint_and_the_rest_runs(chromium, lab):
    address, folder = lab
    file = folder / "exercises" / "00_map.ipynb"
    page = _open(chromium, address, "exercises/00_map.ipynb")
    failed = [cell for cell in _run_all(page, file) if any(o["output_type"] == "error" for o in cell["outputs"])]
    assert len(failed) == 3
    for cell in failed:
        assert cell["outputs"][0]["ename"] == "CheckFailed"
        assert len(cell["outputs"][0]["traceback"]) == 2, "the hint, without a traceback"
    page.close()
