# Needs Python >= 3.11, make and a package index. Without make: see "Without make" in README.md.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: lab test test-long demo lint site clean

lab: $(READY)  ## JupyterLab on the first lesson
	$(BIN)/python -m jupyterlab notebooks/00_map.ipynb

test: $(READY)  ## lint, types, units, parity, lessons; all but the long tests
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow"

test-long: $(READY)  ## the long tests: fuzz, every chunk size, lessons on another instruction set
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m slow

demo: $(READY)  ## a real text through the model: experts printed, heat map in out/demo
	$(BIN)/python -m gptoss_jax demo

lint: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

site: $(READY)  ## static pages of all lessons, in build/site
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/python docs/build_site.py

clean:
	rm -rf .venv .jax_cache build out

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed, this is ' + sys.version.split()[0] + ': make PYTHON=python3.12 ...')"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $(READY)
