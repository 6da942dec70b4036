# What is run now and then: measurements, faults on purpose, a browser, the site. `make` reads this file.
bench: .venv/installed
	python benchmarks/run.py
coverage: .venv/installed
	OMP_NUM_THREADS=1 pytest -n 2 --dist loadfile --ignore tests/test_notebooks.py --cov
SEED ?= $(shell date +%s)
faults: .venv/installed
	@echo "again with the same faults: make faults SEED=$(SEED)"
	LIFT_FAULTS_SEED=$(SEED) OMP_NUM_THREADS=1 pytest tests/faults -m "slow_faults or not slow_faults" -n 2 --dist load --durations 5
lab-test: .venv/installed
	$(MAKE) reproduce PROFILE=smoke
	OMP_NUM_THREADS=1 pytest tests/lab -m "all_notebooks or not all_notebooks" --durations 5
docs: .venv/docs $(patsubst nbs/%,_docs/%,$(wildcard nbs/tutorials/*.ipynb))
	python -m sphinx -q -W --keep-going -j auto -c docs -b html -d _docs/doctrees . _docs/html
	python docs/check.py _docs/html
	@echo "the site: _docs/html/index.html"
_docs/tutorials/%.ipynb: nbs/tutorials/%.ipynb $(wildcard lift/*.py lift/data/*.py) | .venv/docs
	@mkdir -p $(@D)
	IN_TEST=1 papermill --no-progress-bar $< $@ --cwd nbs/tutorials
.DELETE_ON_ERROR:
.venv/docs: .venv/installed
	$(BIN)/pip install --quiet -e ".[docs]" -c constraints.txt
	@touch $@
