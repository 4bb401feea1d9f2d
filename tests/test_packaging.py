"""pyproject.toml, environment.yml, requirements.lock and the linters hold together."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED = [*PROJECT["dependencies"], *EXTRAS["lab"], *EXTRAS["test"]]
CONDA_NAMES = {"matplotlib": "matplotlib-base", "playwright": "playwright-python"}


def test_conda_environment_has_the_same_ranges():
    lines = (ROOT / "environment.yml").read_text("utf-8").splitlines()
    found = {re.split(r"[<>=]", line.strip("- "))[0]: line.strip(" -") for line in lines if re.search(r"[<>=]\d", line)}
    assert found.pop("python") == "python=3.12"
    for text in INSTALLED:
        need = Requirement(text)
        name = CONDA_NAMES.get(need.name, need.name)
        assert name in found, f"{name} is missing from environment.yml"
        assert Requirement(found.pop(name)).specifier == need.specifier
    assert not found, f"only in environment.yml: {sorted(found)}"


def test_lock_covers_the_ranges_and_names_no_address():
    text = (ROOT / "requirements.lock").read_text("utf-8")
    assert "://" not in text
    assert "--index" not in text
    locked: dict[str, list[Requirement]] = {}
    for line in text.splitlines():
        pin = Requirement(line)
        locked.setdefault(pin.name.lower().replace("_", "-"), []).append(pin)
    for need in map(Requirement, INSTALLED):
        pins = locked[need.name.lower().replace("_", "-")]
        for pin in pins:
            (version,) = pin.specifier
            assert version.operator == "=="
            assert need.specifier.contains(version.version), f"{pin} is outside {need}"
    heavy = {"torch", "transformers", "llama-cpp-python", "tensorflow"} & set(locked)
    assert not heavy, "oracles must stay opt-in"


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_linters_are_content(command):
    run = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]


def test_version_is_the_same_everywhere():
    import gptoss_jax

    assert gptoss_jax.__version__ == PROJECT["version"]
    assert f"\nversion: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()


def test_no_large_file_is_tracked():
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    sizes = {name: (ROOT / name).stat().st_size for name in names if name and (ROOT / name).is_file()}
    assert max(sizes.values()) < 15e6
    assert sum(sizes.values()) < 60e6
