# Everything a newcomer needs: `make demo`, `make test`.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
# A laptop's Ray needs no token file in a home that may be read-only, nor usage reports; a cluster sets its own.
export RAY_USAGE_STATS_ENABLED ?= 0
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo serve test bench lint lock hooks page clean

$(VENV)/.ready: pyproject.toml infra/requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/pip install --quiet --constraint infra/requirements.lock torch
	$(BIN)/pip install --quiet --constraint infra/requirements.lock --editable '.[dev]'
	touch $@

## make demo: the whole path, from a cohort to results/demo/report.html; DATA=folder takes your own recordings
demo: $(VENV)/.ready
	$(BIN)/python jobs/pipeline.py --config configs/experiments/demo.yaml $(if $(DATA),--cohort.recordings $(DATA))

## make serve: the API and the page on 127.0.0.1:8000 (PORT=), with the registry's champion or the demo's model
serve: $(VENV)/.ready
	$(BIN)/python -m serve.main $(if $(PORT),--port $(PORT)) $(if $(BUNDLE),--bundle $(BUNDLE))

results/demo/metrics.json:
	$(MAKE) demo

## make test: lint, types and the whole suite
test: $(VENV)/.ready lint
	$(BIN)/pytest -n 2 --dist loadgroup

## make bench: every benchmark, ratios against the alternative in one run
bench: $(VENV)/.ready results/demo/metrics.json
	@for script in benchmarks/*/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

hooks: $(VENV)/.ready
	$(BIN)/pre-commit install

lock: $(VENV)/.ready
	{ echo "# Exact versions of a set that is known to work together. Renew: make lock"; \
	  $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > infra/requirements.lock

## make page: builds serve/static from serve/page (Node 20); the built page is part of the repository
page:
	$(BIN)/python -m serve.openapi
	cd serve/page && npm ci && npm run types && npm run build

clean:
	rm -rf results
