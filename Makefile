# Two commands matter: `make reproduce` and `make test`. PROFILE is smoke, demo, full or paper; paper wants LIFT_DATA=/data.
PROFILE ?= demo
PYTHON ?= python3
SHELL := /bin/bash
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export OMP_WAIT_POLICY := PASSIVE
export LIFT_DATA
# glibc gives memory back after every batch and pays a page fault for each page of the next: up to half of the time of training
export MALLOC_TRIM_THRESHOLD_ := 1073741824
export MALLOC_MMAP_THRESHOLD_ := 1073741824

# What the notebooks of a profile share is made first; then the notebooks, two at a time; then what is left, in order.
SHARED = train@$(PROFILE) train_equivariant@$(PROFILE) backbones@$(PROFILE)
ifeq ($(PROFILE),full)
SHARED += level_extract level_cells
endif
ifneq ($(filter paper mini,$(PROFILE)),)
SHARED = real_results@$(PROFILE)
endif

# DVC gives up at once where another one is looking at the same stages; what is done is not done again
notebooks = for attempt in {1..20}; do dvc repro -s $$(sed -n '$(1)' runs/notebooks.txt) && break; sleep 2; done

.PHONY: reproduce test bench default-model sync clean wheel hooks lab

reproduce: export IN_TEST := 1
reproduce: .venv/installed
	dvc repro $(SHARED)
	@dvc stage list --name-only | grep -E '^(paper|ablation.*|library.*|tutorials|real_paper)@$(PROFILE)-' > runs/notebooks.txt
	@$(call notebooks,1~2p) & sleep 3; $(call notebooks,2~2p); wait
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
