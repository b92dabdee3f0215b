# `make` alone lists the targets. They need GNU make and Python 3.11 or later, and install everything else into .venv.
#
# Variables that can be given on the command line:
#   PYTHON=python3.12    the Python to create environments with
#   WORKERS=4            how many test processes run side by side
#   ARGS="-k health -x"  more arguments for pytest; for make bench the sections: ARGS="in_process start"
#   RETRY=2              a test that fails runs so often again, and has failed only if it fails each time: on a busy
#                        machine a real server can be slower than a test allows
#   QUICK=1              make bench runs everything once, to show that it works; the numbers mean nothing
#   VERSION=0.1.0        the version that make release prepares
#   WHEEL=...            the FastStream of make test-upstream: a wheel, a directory or a requirement
#   IGNORE="CVE-1 ..."   known vulnerabilities that make audit and make release do not count
#   CHECK=1              make demo requests every URL itself, prints the responses, and exits

# The first Python on the PATH that is new enough.
PYTHON ?= $(or $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; \
	done),python3)
WORKERS ?= 2
ARGS ?=
RETRY ?=
VERSION ?=
WHEEL ?=
IGNORE ?=
CHECK ?=
QUICK ?=
COVERAGE_MIN ?= 100

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Each process gets a stretch of the tests in their order, so that it starts the servers of few modules, and takes over
# what is left of another one's in the end.
PYTEST := -m pytest -n $(WORKERS) --dist worksteal $(if $(RETRY),--reruns $(RETRY) --reruns-delay 1)
GROUPS := --group test --group lint
BENCHED := $(VENV)/.bench
AUDITED := $(VENV)/.audit
TYPECHECKED := $(VENV)/.typecheck
WORKFLOWS := $(VENV)/.workflows
SITE := $(VENV)/.docs-site
PACKAGED := $(VENV)/.release
# The largest wheel, in bytes: no file that is not code gets into it unnoticed, such as the AsyncAPI viewer, which is
# a package of its own.
WHEEL_MAX := 450000
SYSTEM_PACKAGES := chromium mosquitto nginx-light postgresql prometheus rabbitmq-server
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)
# Resolves the dependencies for every supported Python, and prints lines like `name==version`, without URLs.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-annotate \
	--custom-compile-command "make constraints" --extra all pyproject.toml
# What `make test` runs. `make test-all` runs everything.
SELECTION := -m "not full"
# pip neither prompts nor mentions its own updates.
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# $(call create,directory,constraints): create an environment, with the version of pip in the constraints.
define create
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo '"$(PYTHON)" is not Python 3.11 or later. Choose another one: make PYTHON=/path/to/python3.12' >&2; \
		exit 1; }; \
	"$(PYTHON)" -m venv "$(1)" || { \
		echo '"$(PYTHON)" cannot create a virtual environment; on Debian and Ubuntu, install python3-venv.' >&2; \
		exit 1; }; \
	"$(1)/bin/python" -m pip install --quiet --constraint $(2) pip
endef

# $(call install,directory,constraints,package): install the package, and what the tests and the linters need.
define install
	"$(1)/bin/python" -m pip install --quiet --constraint $(2) --build-constraint $(2) $(3) $(GROUPS)
endef

# Create the directory $$tmp, which is removed when the recipe ends, also after an error or a signal.
define temporary
	set -eu; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM
endef

.DEFAULT_GOAL := help
.PHONY: help install test test-all test-python test-loops test-oldest test-newest test-upstream test-wheel system-packages build release lint typecheck format docs reference demo bench fault-table rollout audit constraints clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (the first time takes a minute or two) ..."
	@test -x $(BIN)/python || { $(call create,$(VENV),constraints.txt); }
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	@$(call install,$(VENV),constraints.txt,--editable '.[all]' --group compare)
	@touch $@

install: $(INSTALLED) ## Create or update .venv (every target below does this when needed)

test: $(INSTALLED) ## Run the tests that suit every edit, against real NATS servers
	$(BIN)/python $(PYTEST) $(SELECTION) $(ARGS)

test-all: $(SITE) ## Run every test, none skipped, and fail if a line or branch is not covered
	$(BIN)/coverage erase
	FASTSTREAM_ADAPTERS_NO_SKIP=1 $(BIN)/coverage run $(PYTEST) $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=$(COVERAGE_MIN)

test-python: ## Run the tests with another Python, in a new environment: make test-python PYTHON=python3.13
	@$(temporary); \
	echo "Installing everything for $(PYTHON) ..."; \
	$(call create,$$tmp/venv,constraints.txt); \
	$(call install,$$tmp/venv,constraints.txt,--editable '.[all]'); \
	"$$tmp/venv/bin/python" $(PYTEST) $(SELECTION) $(ARGS)

# uvloop is not in .venv: uvicorn would use it by itself, and then no test would run on asyncio's loop as well.
test-loops: ## Run the tests that suit any event loop with eager tasks and with uvloop (needs Python 3.12 or later)
	@$(temporary); \
	echo "Installing everything and uvloop for $(PYTHON) ..."; \
	$(call create,$$tmp/venv,constraints.txt); \
	$(call install,$$tmp/venv,constraints.txt,--editable '.[all]' --group loops); \
	for loop in eager uvloop; do \
		"$$tmp/venv/bin/python" $(PYTEST) $(SELECTION) --event-loop $$loop tests/unit $(ARGS); \
	done

# Old releases of the frameworks warn about the newer libraries below them. That is not ours to mend, so here warnings
# do not fail a test.
test-oldest: ## Run the tests with the oldest versions that we support, in a new environment
	@$(temporary); \
	echo "Installing the oldest supported versions ..."; \
	$(call create,$$tmp/venv,constraints-oldest.txt); \
	$(call install,$$tmp/venv,constraints-oldest.txt,--editable '.[all]'); \
	"$$tmp/venv/bin/python" $(PYTEST) $(SELECTION) -W default $(ARGS)

test-newest: ## Run the tests with the newest version of everything, in a new environment
	@$(temporary); \
	echo "Installing the newest versions ..."; \
	$(call create,$$tmp/venv,constraints.txt); \
	"$$tmp/venv/bin/python" -m pip install --quiet --editable '.[all]' $(GROUPS); \
	"$$tmp/venv/bin/python" $(PYTEST) $(SELECTION) $(ARGS)

# FastStream's new version may be one that the package does not admit yet: pip says so, and installs it.
test-upstream: ## Show which private names a FastStream (WHEEL=...) lacks, and run the tests with it, in a new environment
	@test -n "$(WHEEL)" || { echo 'Name a FastStream: make test-upstream WHEEL=/path/to/faststream.whl' >&2; exit 1; }
	@$(temporary); \
	echo "Installing, and then replacing FastStream ..."; \
	$(call create,$$tmp/venv,constraints.txt); \
	$(call install,$$tmp/venv,constraints.txt,--editable '.[all]'); \
	"$$tmp/venv/bin/python" -m pip install --quiet "$(WHEEL)"; \
	failed=0; \
	"$$tmp/venv/bin/python" -m pytest tests/unit/test_private_names.py || failed=1; \
	"$$tmp/venv/bin/python" $(PYTEST) $(SELECTION) $(ARGS) || failed=1; \
	exit $$failed

# The tests run in the unpacked sdist without the package, which can only come from the wheel.
test-wheel: ## Build the sdist, from it the wheel, and run the sdist's tests against the wheel, in a new environment
	@$(temporary); \
	echo "Building the package, and installing it ..."; \
	$(call create,$$tmp/venv,constraints.txt); \
	"$$tmp/venv/bin/python" -m pip install --quiet --constraint constraints.txt --group build; \
	"$$tmp/venv/bin/python" -m hatchling build --target sdist --directory "$$tmp"; \
	"$$tmp/venv/bin/python" -m pip wheel --quiet --no-deps --build-constraint constraints.txt --wheel-dir "$$tmp" \
		"$$tmp"/*.tar.gz; \
	$(call install,$$tmp/venv,constraints.txt,"$$(ls "$$tmp"/*.whl)[all]"); \
	mkdir "$$tmp/run"; \
	tar -xzf "$$tmp"/*.tar.gz --strip-components 1 -C "$$tmp/run"; \
	rm -r "$$tmp/run/faststream_adapters"; \
	cd "$$tmp/run"; \
	"$$tmp/venv/bin/python" -c 'import sys, sysconfig, faststream_adapters as package; \
	print("Testing", package.__file__); \
	sys.exit(0 if package.__file__.startswith(sysconfig.get_path("purelib")) else "This is not the wheel.")'; \
	"$$tmp/venv/bin/python" $(PYTEST) $(SELECTION) $(ARGS)

$(WORKFLOWS): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group workflows
	@touch $@

lint: $(WORKFLOWS) ## Check the code, the formatting, the imports between packages, the constraint files, the workflows and the Compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/check_constraints.py
	$(BIN)/zizmor --offline --quiet --pedantic .github
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms \
		.github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec examples/docker/compose.yaml

$(TYPECHECKED): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group typecheck
	@touch $@

typecheck: $(TYPECHECKED) ## Check the types with mypy, and those that users see with basedpyright, ty and pyrefly
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/ty check --python $(VENV)
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

format: $(INSTALLED) ## Format the code, and apply the fixes that the linter offers
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

$(SITE): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs-site
	@touch $@

docs: $(SITE) ## Build the documentation as HTML into site, and check its links
	rm -rf site
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs site
	$(BIN)/python tools/check_site.py site
	@echo "Open site/index.html"

reference: $(INSTALLED) ## Write the tables of the documentation that come from the code: names, keywords, supported versions
	$(BIN)/python tools/reference.py

$(PACKAGED): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group build --group release
	@touch $@

build: $(PACKAGED) ## Build the sdist and the wheel into dist/, and check them
	rm -rf dist
	$(BIN)/python -m hatchling build
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	@size=$$(cat dist/*.whl | wc -c); echo "The wheel has $$size bytes, of $(WHEEL_MAX) at most."; test $$size -le $(WHEEL_MAX)

release: $(PACKAGED) ## Do everything for a release (VERSION=...) up to its tag, and say what remains
	@$(BIN)/python tools/release.py check "$(VERSION)"
	$(MAKE) lint typecheck audit test-wheel
	$(BIN)/python tools/release.py commit "$(VERSION)"
	SETUPTOOLS_SCM_PRETEND_VERSION="$(VERSION)" $(MAKE) build
	@$(BIN)/python tools/release.py remaining "$(VERSION)"

system-packages: ## Install what the tests need and no wheel provides, with apt
	$(SUDO) apt-get update --quiet
	$(SUDO) apt-get install --quiet --yes --no-install-recommends $(SYSTEM_PACKAGES)

demo: $(INSTALLED) ## Run the demo until Ctrl-C; with CHECK=1 it checks itself and exits
	@$(if $(CHECK),CHECK=$(CHECK) )$(BIN)/python -m examples.demo

$(BENCHED): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group bench
	@touch $@

bench: $(BENCHED) ## Compare with bare ASGI and faststream.asgi, and write docs/benchmarks.md (20 minutes)
	$(if $(QUICK),QUICK=$(QUICK) )$(BIN)/python -m bench $(ARGS)

fault-table: $(INSTALLED) ## Measure the effects of faults, and write docs/faults.md (some minutes)
	$(BIN)/python $(PYTEST) tests/faults --fault-table docs/faults.md $(ARGS)

rollout: $(INSTALLED) ## Replace processes and servers while messages flow, and write the table in docs/faults.md (20 minutes; ARGS=start: only that section)
	$(BIN)/python $(PYTEST) tests/rollout --rollout docs/faults.md $(ARGS)

$(AUDITED): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group audit
	@touch $@

audit: $(AUDITED) ## Look up known vulnerabilities of all pinned versions, on the internet (part of make release)
	@$(BIN)/python tools/audit.py $(IGNORE:%=--ignore-vuln=%)

# The oldest versions are those of the package's own requirements; what the tests need beyond them is new.
constraints: $(INSTALLED) ## Update the two constraint files to the newest versions that work together
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group constraints
	$(COMPILE) --group pinned --output-file constraints.txt
	$(COMPILE) --resolution lowest-direct | \
		$(COMPILE) --group pinned --constraint - --output-file constraints-oldest.txt

clean: ## Remove .venv and everything else that the targets write
	rm -rf $(VENV) build dist site htmlcov .coverage .coverage.* .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
