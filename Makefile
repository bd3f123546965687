# Two targets do everything on a fresh machine: `make demo` and `make test`.
# PYTHON may name another interpreter (3.11 or later).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test install install-dev lint check newest release man clean

demo: install
	$(BIN)/srcli upscale examples/photos --overwrite --verbose
	@echo "The enlarged photos are in examples/photos_x3; the originals are in examples/originals."

test: install-dev lint check

install: .venv/installed
install-dev: .venv/installed-dev

# The constraints pin torch. On Linux the package index serves it with CUDA, which is large; for a
# small install put the CPU build into .venv first.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	@touch $@

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Each process needs about a gigabyte of memory.
check:
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# What a user gets who installs without the constraints: the newest torch and all else.
newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.venv-newest/bin/python -m pip install --quiet --upgrade --editable . --group dev
	.venv-newest/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

# All but the upload.
release: test newest
	rm -rf dist
	$(BIN)/python -m hatchling build
	$(BIN)/python -m twine check --strict dist/*
	@echo "dist is ready. To publish it: $(BIN)/python -m twine upload dist/*"

# For packagers: what --help says, as a page for man(1).
man: install
	@mkdir -p build
	$(BIN)/python docs/manpage.py > build/srcli.1

clean:
	rm -rf .venv .venv-newest build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis examples/photos_x3
