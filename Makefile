# Two commands matter: `make reproduce` and `make test`. PROFILE is smoke, demo, full or paper.
PROFILE ?= demo
PYTHON ?= python3
SHELL := /bin/bash
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_WAIT_POLICY := PASSIVE

.PHONY: reproduce test bench default-model sync clean wheel hooks lab

reproduce: export IN_TEST := 1
reproduce: .venv/installed
	dvc repro gallery@$(PROFILE)
	@echo "figures and tables: $$(python -c "import yaml; print(yaml.safe_load(open('params/$(PROFILE).yaml'))['profiles']['$(PROFILE)']['gallery'])")/README.md"

test: .venv/installed
	pytest tests/test_notebooks.py
	nbdev_test --n_workers 2
	pytest --ignore tests/test_notebooks.py

bench: .venv/installed
	python benchmarks/run.py

default-model: .venv/installed
	python tools/ship_model.py

sync: .venv/installed
	nbdev_export
	jupyter nbconvert --clear-output --inplace nbs/paper/*.ipynb nbs/tutorials/*.ipynb
	nbdev_clean

clean:
	rm -rf runs build dist *.egg-info .pytest_cache .hypothesis .ruff_cache

wheel: .venv/installed
	python -m build

hooks: .venv/installed
	nbdev_install_hooks
	pre-commit install

lab: .venv/installed
	jupyter lab nbs

.venv/installed: settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e ".[dev]" -c constraints.txt
	@touch $@
