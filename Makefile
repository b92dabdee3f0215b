# `make` alone prints what there is. Needs GNU make and Python 3.11 or later, and installs the rest into .venv itself.
#
# Variables that can be given on the command line:
#   PYTHON=python3.12    the Python to create environments with
#   WORKERS=4            how many test processes run side by side
#   ARGS="-k health -x"  more arguments for pytest; for make bench the sections: ARGS="in_process start"
#   RETRY=2              a test that fails runs so often again, and has failed only if it fails each time: on a busy
#                        machine a real server can be slower than a test allows
#   QUICK=1              make bench does everything once, to show that it works; such numbers say nothing
#   CHECK=1              make demo calls every address itself, prints what it saw, and exits

# The first Python on the PATH that is new enough.
PYTHON ?= $(or $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; \
	done),python3)
WORKERS ?= 2
ARGS ?=
RETRY ?=
CHECK ?=
QUICK ?=
COVERAGE_MIN ?= 100

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST := -m pytest -n $(WORKERS) $(if $(RETRY),--reruns $(RETRY) --reruns-delay 1)
GROUPS := --group test --group lint
BENCHED := $(VENV)/.bench
# How the load generator of the benchmarks is installed, where it is missing: no wheel brings it.
ROOT_DO := $(shell test "$$(id -u)" = 0 || echo sudo)
WRK := if command -v brew >/dev/null; then brew install --quiet wrk; else \
	$(ROOT_DO) apt-get update --quiet && $(ROOT_DO) apt-get install --quiet --yes --no-install-recommends wrk; fi
# What `make test` runs. `make test-all` runs everything.
SELECTION := -m "not full"
# Nothing asks a question, and pip does not advertise its own updates.
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# $(call create,folder,constraints): a new environment in the folder, with pip at the version of the constraints.
define create
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'Python 3.11 or later is needed, which "$(PYTHON)" is not. Name one: make PYTHON=/path/to/python3.12' >&2; \
		exit 1; }; \
	"$(PYTHON)" -m venv "$(1)" || { \
		echo '"$(PYTHON)" cannot create a virtual environment; on Debian and Ubuntu, install python3-venv.' >&2; \
		exit 1; }; \
	"$(1)/bin/python" -m pip install --quiet --constraint $(2) pip
endef

# $(call install,folder,constraints,what): install that and all that the tests and the tools need.
define install
	"$(1)/bin/python" -m pip install --quiet --constraint $(2) --build-constraint $(2) $(3) $(GROUPS)
endef

# A folder in $$tmp that is gone when the recipe ends, however it ends.
define temporary
	set -eu; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM
endef

.DEFAULT_GOAL := help
.PHONY: help install test test-all test-oldest test-wheel lint typecheck format demo bench fault-table constraints clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (a minute or two when it is new) ..."
	@test -x $(BIN)/python || { $(call create,$(VENV),constraints.txt); }
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	@$(call install,$(VENV),constraints.txt,--editable '.[all]')
	@touch $@

install: $(INSTALLED) ## Create .venv, or bring it up to date (every target below does this when needed)

test: $(INSTALLED) ## Run the tests that suit every edit, against real NATS servers
	$(BIN)/python $(PYTEST) $(SELECTION) $(ARGS)

test-all: $(INSTALLED) ## Run every test, none skipped, and fail if a line or branch is not covered
	$(BIN)/coverage erase
	FASTSTREAM_ADAPTERS_NO_SKIP=1 $(BIN)/coverage run $(PYTEST) $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=$(COVERAGE_MIN)

# Old releases of the frameworks warn about the newer libraries below them. That is not ours to mend, so here warnings
# do not fail a test.
test-oldest: ## Run the tests with the oldest versions that we support, in a new environment
	@$(temporary); \
	echo "Installing the oldest supported versions ..."; \
	$(call create,$$tmp/venv,constraints-oldest.txt); \
	$(call install,$$tmp/venv,constraints-oldest.txt,--editable '.[all]'); \
	"$$tmp/venv/bin/python" $(PYTEST) $(SELECTION) -W default $(ARGS)

# The tests run in a folder that holds all they read but not the package, which can only come from the wheel.
test-wheel: ## Build the wheel and run the tests against it, in a new environment without the source
	@$(temporary); \
	echo "Building the wheel, and installing it ..."; \
	$(call create,$$tmp/venv,constraints.txt); \
	"$$tmp/venv/bin/python" -m pip wheel --quiet --no-deps --build-constraint constraints.txt --wheel-dir "$$tmp" .; \
	$(call install,$$tmp/venv,constraints.txt,"$$(ls "$$tmp"/*.whl)[all]"); \
	mkdir "$$tmp/run"; \
	for item in tests examples bench docs README.md pyproject.toml; do \
		if test -e $$item; then cp -R $$item "$$tmp/run"; fi; \
	done; \
	cd "$$tmp/run"; \
	"$$tmp/venv/bin/python" -c 'import sys, sysconfig, faststream_adapters as package; \
	print("Testing", package.__file__); \
	sys.exit(0 if package.__file__.startswith(sysconfig.get_path("purelib")) else "This is not the wheel.")'; \
	"$$tmp/venv/bin/python" $(PYTEST) $(SELECTION) $(ARGS)

lint: $(INSTALLED) ## Look for mistakes, wrong formatting and outdated constraint files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/constraints.py --check

typecheck: $(INSTALLED) ## Check the types of the package, the tests and the examples
	$(BIN)/mypy

format: $(INSTALLED) ## Format the code and mend what can be mended automatically
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

demo: $(INSTALLED) ## Run the demo until Ctrl-C; with CHECK=1 it checks itself and exits
	@$(if $(CHECK),CHECK=$(CHECK) )$(BIN)/python -m examples.demo

$(BENCHED): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	@touch $@

bench: $(BENCHED) ## Measure side by side with bare ASGI and with faststream.asgi, and write docs/benchmarks.md (half an hour)
	@command -v wrk >/dev/null || { echo "Installing wrk, which makes the load ..."; $(WRK); }
	$(if $(QUICK),QUICK=$(QUICK) )$(BIN)/python -m bench $(ARGS)

fault-table: $(INSTALLED) ## Measure the faults of docs/faults.md, and write that page (some minutes)
	$(BIN)/python $(PYTEST) tests/faults --fault-table docs/faults.md $(ARGS)

constraints: $(INSTALLED) ## Look for newer versions, and write the two constraint files
	$(BIN)/python tools/constraints.py

clean: ## Remove .venv and everything else that these targets write
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
