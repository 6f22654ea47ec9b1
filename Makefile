# Everything runs in .venv, made from requirements/test.txt by the first target that needs it.
# Needs: Python 3.11 to 3.13 and make. PYTHON=… picks another interpreter.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/sbin:/sbin

ENVIRONMENT := .venv/.project

.PHONY: help demo test check format bench fuzz chaos chaos-ota scaling promise detection docs lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(ENVIRONMENT)  ## train on a real recording, then watch the agent raise alarms over MQTT
	@tocsin demo $(ARGS)

WORKERS ?= auto
test: $(ENVIRONMENT)  ## run all tests, in as many processes as there are cores; ARGS="-k outbox" for some, WORKERS=0 for one
	@.ci/programs
	@python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(ENVIRONMENT)  ## format, lint, types, import rules, repository rules
	@ruff format --check .
	@ruff check .
	@mypy
	@python -m pytest -q tests/test_imports.py tests/test_repository.py

format: $(ENVIRONMENT)  ## mend format and what lint can mend
	@ruff format .
	@ruff check --fix .

BUNDLE ?= tests/data/small.tocsin
bench: $(ENVIRONMENT)  ## measure the footprint, both TFLite runtimes, the serial source, updates (BUNDLE=file.tocsin)
	@python benchmarks/device_footprint.py "$(BUNDLE)"
	@python benchmarks/runtimes.py "$(BUNDLE)"
	@python benchmarks/source_rate.py
	@python benchmarks/update_cost.py "$(BUNDLE)"

fuzz: $(ENVIRONMENT)  ## send a million damaged bytes to every parser of sources
	@FUZZ_BYTES=1000000 python -m pytest -q tests/sources/test_fuzz.py

ROUNDS ?= 10
KILLS ?= 200
SECONDS ?= 300
CUTS ?= 5000
chaos: $(ENVIRONMENT)  ## clocks that are set, sensors that fail, kills, cuts of the power, bad disks, damaged files, a dead Modbus slave (ROUNDS=10 KILLS=200 CUTS=5000)
	@.ci/programs
	@CHAOS_ROUNDS=$(ROUNDS) python -m pytest -q --timeout 3600 tests/sources/test_chaos.py
	@CHAOS_ROUNDS=$(ROUNDS) python -m pytest -q --timeout 3600 tests/agent/test_recorder.py -k kill
	@CHAOS_KILLS=$(KILLS) python -m pytest -q -s --timeout 3600 tests/delivery/test_broker.py -k "killed or denies"
	@python -m pytest -q -s tests/fleet/test_authority.py -k "certificate"
	@CHAOS_ROUNDS=$(KILLS) python -m pytest -q -s --timeout 3600 tests/fleet/test_inbox.py -k killed
	@CHAOS_ALARMS=86400 python -m pytest -q -s tests/delivery/test_outage.py
	@CHAOS_CUTS=$(CUTS) python -m pytest -q -s tests/delivery/test_power_cut.py
	@CHAOS_DAMAGES=2000 python -m pytest -q -s tests/delivery/test_damage.py
	@python -m pytest -q -s tests/agent/test_bad_disk.py
	@python benchmarks/modbus_slaves.py --seconds $(SECONDS)
	@python benchmarks/modbus_slaves.py --seconds $(SECONDS) --shared

MODELS ?= 2000
FLEET ?= 1000
chaos-ota: $(ENVIRONMENT)  ## updates: kills in every state, attacks, cut downloads, damaged models, a fleet (MODELS=2000 FLEET=1000)
	@.ci/programs
	@CHAOS_MODELS=$(MODELS) python -m pytest -q -s --timeout 7200 tests/update
	@CHAOS_FLEET=$(FLEET) python -m pytest -q -s --timeout 7200 tests/fleet/test_rollout.py

scaling: $(ENVIRONMENT)  ## measure seconds and memory of training on 1, 10 and 100 hours: ARGS="--hours 1,10"
	@python benchmarks/train_memory.py $(ARGS)

promise: $(ENVIRONMENT)  ## measure whether promised false alarms are kept, on simulated machines: ARGS="--runs 50"
	@python benchmarks/false_alarms.py $(ARGS)

detection: $(ENVIRONMENT)  ## measure detection on labelled recordings: DATA=folder, ARGS="--quick"
	@test -n "$(DATA)" || { echo "detection: which recordings? make detection DATA=folder" >&2; exit 2; }
	@python benchmarks/detection.py --data-root "$(DATA)" $(ARGS)

docs: .venv-docs/.requirements  ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo "site/index.html"

lock:  ## write requirements/*.txt anew from pyproject.toml (UPGRADE=1: newer versions)
	@.ci/lock

clean:  ## remove environments, caches and everything built
	@rm -rf .venv .venv-docs .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site out
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The project itself, editable: done again when its metadata change, the packages only when theirs do.
$(ENVIRONMENT): .venv/.requirements pyproject.toml
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.requirements: requirements/test.txt .ci/environment
	@PATH="$${PATH#*:}" .ci/environment .venv $<
	@touch $@

.venv-docs/.requirements: requirements/docs.txt .ci/environment
	@PATH="$${PATH#*:}" .ci/environment .venv-docs $<
	@touch $@
