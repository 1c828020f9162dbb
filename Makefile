# make run: the study of params.yaml, to tables and figures. make test: the tests. Both set up .venv first.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONPATH := src
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help setup run plan watch test test-slow faults lint format image bench bench-gpu lock

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(VENV)/complete ## set up .venv from requirements.lock (a few minutes, some 6 GB)

$(VENV)/packages: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV) from requirements.lock: some 6 GB, a few minutes."
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

# The program eqcollapse, which runs the code in src/; and no absolute path, so that the folder can be moved and copied.
$(VENV)/complete: $(VENV)/packages pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	$(BIN)/python -m eqcollapse.pipeline.environment
	@touch $@

run: $(VENV)/complete ## make every table and figure of the study in params.yaml
	@snakemake --cores $(CORES)

plan: $(VENV)/complete ## say what `make run` would do
	@snakemake --dry-run --quiet rules

watch: $(VENV)/complete ## show all cells of the study, live, beside a run
	@python -m eqcollapse watch

test: $(VENV)/complete ## lint, and the unit tests
	@$(MAKE) --no-print-directory lint
	OMP_NUM_THREADS=1 python -m pytest -q --numprocesses auto --dist loadfile

test-slow: $(VENV)/complete ## the slow, workflow, container and slurm tests (hours)
	python -m pytest -q -m "slow or workflow or container or slurm"

faults: $(VENV)/complete ## the fault suite in full: kills, full disks, hostile input (an hour; root for small disks)
	SLURM_CONF=/dev/null python -m pytest -q -m faults tests/faults -s

lint: $(VENV)/complete ## ruff, mypy, snakefmt, snakemake --lint
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

format: $(VENV)/complete ## put Python and Snakemake files in order
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

image: ## build the container image (needs apptainer; 5 to 10 minutes)
	@containers/build

bench: $(VENV)/complete .cache/torchdeq ## paired timings against the peers, as tables (some ten minutes)
	OMP_NUM_THREADS=1 PYTHONPATH=src:.cache/torchdeq python benchmarks/equilibrium.py 2> .cache/benchmark.log
	OMP_NUM_THREADS=1 python benchmarks/collapse.py
	env -u OPENBLAS_CORETYPE OMP_NUM_THREADS=1 python benchmarks/theory.py # with the processor's own kernels
	OPENBLAS_CORETYPE=Haswell OMP_NUM_THREADS=1 python benchmarks/theory.py # with those of AVX2

bench-gpu: $(VENV)/complete .cache/torchdeq ## the tests that need a GPU, and training on it against plain PyTorch and torchdeq
	python -m pytest -q -m gpu
	for how in "" "--batch 512" "--check-every 4" "--fast"; do \
		PYTHONPATH=src:.cache/torchdeq python benchmarks/training.py $$how || exit 1; done

.cache/torchdeq: $(VENV)/complete
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target $@ \
		-r benchmarks/requirements.lock

lock: ## write requirements.lock anew, keeping the versions that are in it (needs uv)
	uv pip compile pyproject.toml --extra audit --extra slurm --extra test --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet --output-file requirements.lock
	uv pip compile benchmarks/requirements.in --no-deps --generate-hashes \
		--no-emit-index-url --no-header --no-annotate --quiet --output-file benchmarks/requirements.lock
