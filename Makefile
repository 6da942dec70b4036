# Two commands matter: `make reproduce` and `make test`. ONLY=name makes the figures of one notebook. PROFILE is smoke, demo, full, droid or paper; the last two read LIFT_DATA.
PROFILE ?= demo
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export LIFT_DATA
# glibc gives memory back after every batch and pays for each page again: up to half of the time of a training
export MALLOC_TRIM_THRESHOLD_ := 1073741824
export MALLOC_MMAP_THRESHOLD_ := 1073741824

.PHONY: reproduce test coverage faults bench default-model sync clean wheel hooks lab lab-test docs
reproduce: .venv/installed
	snakemake --cores all --configfile config/$(PROFILE).yaml --scheduler greedy --rerun-incomplete --nolock --keep-going --quiet rules -- $(ONLY:%=runs/$(PROFILE)/notebooks/%.ipynb)
	@echo "figures and tables: $$(sed -n 's/^gallery: //p' config/$(PROFILE).yaml)/README.md"
test: .venv/installed
	pytest tests/test_notebooks.py
	OMP_NUM_THREADS=1 nbdev_test --n_workers 2
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile --ignore tests/test_notebooks.py
default-model: .venv/installed
	python tools/ship_model.py
sync: .venv/installed
	nbdev_export
	jupyter nbconvert --clear-output --inplace nbs/paper/*.ipynb nbs/tutorials/*.ipynb
	nbdev_clean
clean:
	rm -rf runs build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache .coverage .snakemake
wheel: .venv/installed
	python -m build
hooks: .venv/installed
	nbdev_install_hooks
	pre-commit install
LAB ?= nbs
lab: .venv/installed
	jupyter lab $(LAB)
include tools/checks.mk
.venv/installed: settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e ".[dev]" -c constraints.txt
	@touch $@
