"""Where the command line keeps compiled programs."""

import os

from gptoss_jax.cli.compiled import keep_compiled_programs

NAMES = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


def test_a_folder_of_the_users_cache_is_made(monkeypatch, tmp_path):
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compiled_programs()
    [folder] = (tmp_path / "gptoss_jax").iterdir()
    assert os.environ[NAMES[0]] == str(folder)


def test_what_the_user_has_set_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(NAMES[0], "elsewhere")
    keep_compiled_programs()
    assert os.environ[NAMES[0]] == "elsewhere"
    assert not list(tmp_path.iterdir())


def test_a_home_that_cannot_be_written_to_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv(NAMES[0], "")
    monkeypatch.delenv(NAMES[0])
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_compiled_programs()
    assert NAMES[0] not in os.environ
