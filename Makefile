# Everything that is done to this repository, by name. `make` alone shows the list.

PYTEST = .venv/bin/pytest
SOURCES = src tests benches examples
there = $(wildcard $(SOURCES))
ARGS =

.DEFAULT_GOAL := help
.PHONY: help setup setup-demo setup-test demo test lint format type cov bench backends campaign docs clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-10s %s\n", $$1, $$2 }'
	@echo
	@echo '  Choose what runs with ARGS: make test ARGS="-k registry -x"'

setup: ## prepare .venv/bin/aos and what agents need on this host
	@tools/setup

demo: setup-demo ## from nothing to an agent that answers, then kill the daemon under it
	@.venv/bin/python examples/demo.py

test: setup-test ## all tests but the long ones: backends, campaign
	$(PYTEST) $(ARGS)

lint: setup ## style and mistakes (ruff)
	.venv/bin/ruff check $(there)
	.venv/bin/ruff format --check $(there)

format: setup ## put every file into the house format
	.venv/bin/ruff check --fix --quiet $(there)
	.venv/bin/ruff format $(there)

type: setup ## types (mypy --strict)
	.venv/bin/mypy $(there)

cov: setup-test ## tests with coverage of src, the daemon and the command included; at least 85 %
	@tools/coverage $(ARGS)

bench: setup-test ## speed and memory beside podman, containerd and bare runc; raw figures in benches/results
	.venv/bin/python -m benches $(ARGS)

backends: setup-test ## the conformance suite on crun, gVisor, containerd, Kata's contract; attempts to escape
	@tools/peers --try containerd
	$(PYTEST) -m backends $(ARGS)

campaign: setup-test ## kill daemon, supervisors, runtimes, agents and builds at 360 random moments; build everything in four circumstances
	$(PYTEST) -m campaign $(ARGS)

docs: setup-test ## check that documents speak of what exists: links, error codes, capabilities
	$(PYTEST) -q tests/unit/test_documents.py tests/unit/test_capabilities.py $(ARGS)

clean: ## remove what was made here (.venv and caches); agents and packages stay
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* dist

setup-demo:
	@tools/setup demo

setup-test:
	@tools/setup test
	@tools/peers --try runsc
