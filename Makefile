# Any2all: `make demo` and `make test` set up what they need in .venv/ and run.
PYTHON ?= python3
DATA ?= ../shared/data
OUTPUT ?= outputs
JOBS ?= 2

PY := .venv/bin/python
READY := .venv/.ready-$(shell cksum < pyproject.toml | cut -d' ' -f1)

# one thread for each test process, so that $(JOBS) of them do not get in each other's way
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1

.PHONY: help demo test lint bench check-data setup clean

help:
	@echo "make demo        fill the demonstration study; volumes and report.png in $(OUTPUT)/demo"
	@echo "make test        all tests"
	@echo "make lint        ruff"
	@echo "make bench       times of the presets, as ratios to mds on the same prior in the same run"
	@echo "make check-data  DATA=<folder>: checks on real scans and measured k-space"

setup: $(READY)

$(READY): pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -e ".[test]"
	rm -f .venv/.ready-*
	touch $@

demo: $(READY)
	$(PY) -m any2all.demo --output $(OUTPUT)/demo

test: $(READY)
	$(ONE_THREAD) $(PY) -m pytest -n $(JOBS) --dist loadfile

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

bench: $(READY)
	$(PY) -m any2all.bench

check-data: $(READY)
	$(PY) -m any2all.checks --data $(DATA) --output $(OUTPUT)/checks

clean:
	rm -rf $(OUTPUT) build .pytest_cache .ruff_cache
