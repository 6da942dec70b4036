# Two commands matter: `make reproduce` and `make test`. PROFILE is smoke, demo, full, droid or paper; the last two want LIFT_DATA=/data.
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

# Features come first, with both cores; what only reads them runs in two lanes, where more than one thread each would be in the way.
FEATURES = extract@$(PROFILE)
ifeq ($(PROFILE),full)
FEATURES += backbones@full level_extract level_cells level_parts
endif
ifneq ($(filter paper mini droid,$(PROFILE)),)
FEATURES = real_results@$(PROFILE) $(if $(filter droid,$(PROFILE)),,real_backbones@$(PROFILE))
# the synthetic benchmark in such a profile is for those who ask for it
OTHERS = ^(synth|extract|train|train_equivariant|backbones)@
endif
OTHERS ?= ^$$
named = awk '/^($(1))@/' runs/stages.txt

.PHONY: reproduce stages lanes lane-1 lane-2 test bench default-model sync clean wheel hooks lab

reproduce stages: export IN_TEST := 1
reproduce: .venv/installed
	@mkdir -p runs; dvc stage list --name-only | grep -E '@$(PROFILE)(-|$$)' | grep -vE '$(OTHERS)' > runs/stages.txt
	@dvc status > runs/status.txt
	@if grep -E '@$(PROFILE)(-[^:]*)?:$$' runs/status.txt | grep -qv '^gallery'; then $(MAKE) --no-print-directory stages; fi
	dvc repro $(if $(filter paper mini droid,$(PROFILE)),-s) gallery@$(PROFILE)
	@echo "figures and tables: $$(python -c "import yaml; print(yaml.safe_load(open('params/$(PROFILE).yaml'))['profiles']['$(PROFILE)']['gallery'])")/README.md"

stages:
	dvc repro $(FEATURES)
	OMP_NUM_THREADS=1 python tools/warm_kernels.py $(MAKE) --no-print-directory lanes

lanes:
	@$(call named,train) > runs/lane-1.txt
	@$(call named,train_equivariant|backbones|library.*|tutorials) > runs/lane-2.txt
	@$(MAKE) --no-print-directory -j2 lane-1 lane-2
	@$(call named,paper|paper_full|ablation.*|real_paper|real_droid|real_ablation) | sed -n '1~2p' > runs/lane-1.txt
	@$(call named,paper|paper_full|ablation.*|real_paper|real_droid|real_ablation) | sed '1~2d' > runs/lane-2.txt
	@$(MAKE) --no-print-directory -j2 lane-1 lane-2

# A lane is a list of stages. DVC gives up at once where the other lane is looking at the same stages: it asks again
BUSY = is busy|Unable to acquire lock
lane-1 lane-2:
	@set -o pipefail; until xargs -r dvc repro -s < runs/$@.txt 2>&1 | tee runs/$@.log \
		| sed -uE 's/^ERROR: .*($(BUSY)).*/the other lane is at these stages: trying again/'; do \
		grep -qE '$(BUSY)' runs/$@.log || exit 1; sleep 2; done

test: .venv/installed
	pytest tests/test_notebooks.py
	nbdev_test --n_workers 2
	pytest -n 2 --dist loadfile --ignore tests/test_notebooks.py

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
