"""The main job, as a newcomer runs it: offline, from another folder, with nothing set."""

import os
import subprocess
import sys

import pytest

from gptoss_jax.checkpoint.reading import BUILT_IN

pytestmark = pytest.mark.skipif(not BUILT_IN.is_dir(), reason="no built-in model")

OFFLINE = """
import socket, sys

def refuse(*_):
    raise OSError("the demo must not need the network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from gptoss_jax.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run(arguments, folder):
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:  # only to save time
        environment["JAX_COMPILATION_CACHE_DIR"] = os.environ["JAX_COMPILATION_CACHE_DIR"]
    return subprocess.run(
        [sys.executable, "-c", OFFLINE, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_demo_prints_experts_and_draws_them(tmp_path):
    done = run(["demo"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "universally" in done.stdout.replace('"', "") or '"ally"' in done.stdout or '"al"' in done.stdout
    assert "layer 0" in done.stdout
    assert "The model continues" in done.stdout
    picture = tmp_path / "out" / "demo" / "figures" / "load.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "demo" / "explorer.html").stat().st_size > 10_000


def test_doctor_finds_nothing_to_mend(tmp_path):
    done = run(["doctor"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all is well" in done.stdout


def test_doctor_on_a_bare_machine_names_what_is_missing(tmp_path):
    """A Python without any package: the folder alone is on the path."""
    from pathlib import Path

    root = Path(__file__).parents[1]
    code = "import sys; sys.path.insert(0, sys.argv.pop()); from gptoss_jax.cli import main; sys.exit(main(['doctor']))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(root)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "MEND" in done.stdout
    for name in ("jax", "flax", "safetensors"):
        assert name in done.stdout
    assert "make lab" in done.stdout
    assert "Traceback" not in done.stderr
