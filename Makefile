# Any2all: every target sets up what it needs (.venv/, for 3D Slicer's side .venv-slicer/) and runs.
PYTHON ?= python3
DATA ?= ../shared/data
OUTPUT ?= outputs
JOBS ?= 2
PORT ?= 8000
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
SLICER_PY := .venv-slicer/bin/python
STAMP := $(shell cksum < pyproject.toml | cut -d' ' -f1)
READY := .venv/.ready-$(STAMP)
SERVER_READY := .venv/.server-ready-$(STAMP)
SLICER_READY := .venv-slicer/.ready-$(shell cksum < tests/slicer/requirements.txt | cut -d' ' -f1)

# one thread for each test process, so that $(JOBS) of them do not get in each other's way
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1
OFFSCREEN := QT_QPA_PLATFORM=offscreen
# pip would make byte code on one core; files of other Pythons in the packages do not compile, and do no harm
PIP := -m pip install --quiet --disable-pip-version-check --no-compile
COMPILE := -m compileall -qq -j 0

ifeq ($(MAKELEVEL),0)
.NOTPARALLEL:  # two installations into one environment would get in each other's way
endif

.PHONY: help demo test test-main test-slicer serve lint bench soak screenshots check-data setup clean

help:
	@echo "make demo         fill the demonstration study; volumes and report.png in $(OUTPUT)/demo"
	@echo "make test         all tests"
	@echo "make serve        server with the demonstration study on 127.0.0.1:$(PORT)"
	@echo "make lint         ruff"
	@echo "make bench        times of presets, samplers, peers and the server, as ratios in the same run"
	@echo "make soak         100 jobs and 2,000 fuzzed requests against a real server"
	@echo "make screenshots  pictures of the Slicer panel"
	@echo "make check-data   DATA=<folder>: checks on real scans and measured k-space"

setup: $(READY)

$(READY): pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) $(PIP) -e ".[test]"
	$(PY) $(COMPILE) .venv/lib || true
	rm -f .venv/.ready-*
	touch $@

$(SERVER_READY): pyproject.toml
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) $(PIP) -e ".[test,server]"
	$(PY) $(COMPILE) .venv/lib || true
	rm -f .venv/.ready-* .venv/.server-ready-*
	touch $(READY) $@

$(SLICER_READY): tests/slicer/requirements.txt
	test -x $(SLICER_PY) || $(PYTHON) -m venv .venv-slicer
	$(SLICER_PY) $(PIP) -r tests/slicer/requirements.txt
	$(SLICER_PY) $(COMPILE) .venv-slicer/lib || true
	rm -f .venv-slicer/.ready-*
	touch $@

demo: $(READY)
	$(PY) -m any2all.demo --output $(OUTPUT)/demo

test:
	$(MAKE) -j2 $(SERVER_READY) $(SLICER_READY)
	$(MAKE) test-slicer test-main

test-slicer: $(SERVER_READY) $(SLICER_READY)
	$(ONE_THREAD) $(OFFSCREEN) $(SLICER_PY) -m pytest tests/slicer -n $(JOBS) --dist loadfile

test-main: $(SERVER_READY)
	$(ONE_THREAD) $(PY) -m pytest -n $(JOBS) --dist loadfile

serve: $(SERVER_READY)
	mkdir -p $(OUTPUT)/studies/demonstration
	cp bundle/demo/*.nii.gz bundle/demo/study.json $(OUTPUT)/studies/demonstration/
	$(PY) -m monailabel.main start_server --app monai_app --studies $(OUTPUT)/studies --host 127.0.0.1 --port $(PORT)

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

bench: $(SERVER_READY)
	$(PY) -m any2all.bench
	$(PY) tests/server/bench.py

soak: $(SERVER_READY)
	$(ONE_THREAD) $(PY) tests/server/soak.py --jobs 100
	ANY2ALL_FUZZ_REQUESTS=2000 $(ONE_THREAD) $(PY) -m pytest tests/server/test_fuzz.py

screenshots: $(SERVER_READY) $(SLICER_READY)
	$(OFFSCREEN) $(SLICER_PY) tests/slicer/screenshots.py

check-data: $(READY)
	$(PY) -m any2all.checks --data $(DATA) --output $(OUTPUT)/checks

clean:
	rm -rf $(OUTPUT) build .pytest_cache .ruff_cache
