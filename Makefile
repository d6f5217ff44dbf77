# Pointsman: every task of the project. `make help` lists them.
SHELL := /bin/bash
PY := .venv/bin/python
BIN := .venv/bin
PIP_INDEX ?=
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE := 1

.DEFAULT_GOAL := help
.PHONY: $(shell grep -oE '^[a-z-]+:' $(firstword $(MAKEFILE_LIST)) | tr -d ':')

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: .venv/.installed ## create .venv with the pinned, hashed requirements (PIP_INDEX=... for an index of your own)

.venv/.installed: requirements.txt requirements-uv.txt pyproject.toml
	@test -x $(PY) || python3 -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@echo "installing the requirements (torch is large: half a minute to a few minutes)"
	@$(BIN)/uv pip install --quiet --python $(PY) --require-hashes $(if $(PIP_INDEX),--index-url $(PIP_INDEX)) -r requirements.txt
	@$(BIN)/uv pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
	@touch $@

kafka-jars: setup ## fetch Kafka's jars into the cache (POINTSMAN_CACHE), each as locked in deploy/kafka
	@$(BIN)/pointsman kafka fetch

models: setup ## train the difficulty routers that traffic is made with, into the cache
	@$(PY) -m loadtests.router

demo: setup kafka-jars models ## a fleet's traffic with planted attacks through the whole service (SHORT=1: 40 s of it)
	@$(PY) -m loadtests.demo $(if $(SHORT),--short)

bench: setup kafka-jars models ## speed, as ratios measured side by side, into .bench/report.json (SHORT=1: a minute of it)
	@$(PY) -m loadtests.bench $(if $(SHORT),--short)

bench-compare: setup ## what became worse between two reports (OLD=a/report.json NEW=b/report.json)
	@$(PY) -m loadtests.bench.compare $(OLD) $(NEW)

drill: setup models ## a benign day and a day of attacks, replayed: what was told, into .drill/report.json (SHORT=1)
	@$(PY) -m loadtests.drill $(if $(SHORT),--short) $(ARGS)

load: setup kafka-jars models ## a Locust scenario with all around it, judged by ids (SCENARIO=steady; ARGS="--gateways 8"), into .load
	@$(PY) -m loadtests.load $(or $(SCENARIO),steady) $(ARGS)

faults: setup kafka-jars models ## every fault under load, then random combinations, into .faults/report.json (SHORT=1; ARGS="--seed 7")
	@$(PY) -m loadtests.faults $(if $(SHORT),--short) $(ARGS)

eval: setup models ## what is found and what is flagged falsely, on POINTSMAN_DATA, into .eval/report.json (SHORT=1: a minute of it)
	@$(PY) -m loadtests.evaluations $(if $(SHORT),--short)

test: setup kafka-jars ## the tests but for `test-long`'s: in two processes, first what needs no broker, then what waits for one
	$(BIN)/pytest -n 2 -m "not kafka and not cluster"
	$(BIN)/pytest -n 2 --dist loadgroup -m "kafka or cluster"

test-long: setup kafka-jars ## the tests that take minutes each, and that `make test` has a short form of
	POINTSMAN_LONG_TESTS=1 $(BIN)/pytest -m long

test-search: setup ## the property tests without a broker on examples that were never tried, and five times as many
	$(BIN)/pytest -n 2 --hypothesis-profile=search -m "hypothesis and not kafka and not cluster"

lint: setup ## ruff: rules (with bandit's) and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## rewrite to the format, and fix what ruff can
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format -q .

types: setup ## mypy --strict over everything
	$(BIN)/mypy

lock: setup ## compile requirements.in anew (hashes, no addresses)
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header requirements.in -o requirements.txt

clean: ## remove what the targets wrote (not the environment)
	rm -rf .demo .bench .eval .drill .faults .load .mypy_cache .ruff_cache .hypothesis
