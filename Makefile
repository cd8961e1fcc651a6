# Every target starts from nothing: `make test` on a fresh machine sets everything up first.
# ROS_DISTRO=kilted make test   another ROS 2 than the default (docs/install.md)
# make test ARGS="-k planner"   arguments for what the target runs

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
ENTER := source scripts/environment.sh

.PHONY: help setup demo test bench lint clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 14

setup: ## install what is missing: system packages, .venv, ROS 2, interfaces
	@scripts/setup.sh

demo: setup ## simulated scene and planner as ROS nodes, ten goals, a report in runs/demo
	@$(ENTER) && python -m lewm_ros.demo --out runs/demo $(ARGS)

# Nodes of the tests talk to nobody but each other.
test: setup ## run the tests
	@$(ENTER) && export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST && python -m pytest $(ARGS)

bench: setup ## run every benchmark; results as JSON in runs/bench
	@$(ENTER) && mkdir -p runs/bench && for file in benchmarks/*.py; do \
	  name=$$(basename $$file .py); echo "== $$file"; \
	  python $$file --json runs/bench/$$name.json $(ARGS); done

lint: setup ## check the style of all Python files
	@$(ENTER) && ruff check . $(ARGS)

clean: ## remove what was built; virtual environments, runs/ and data/ stay
	rm -rf build install log *.egg-info .pytest_cache .ruff_cache .venv*/lewm-setup/interfaces
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
