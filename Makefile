# `make demo` and `make test` are all that a fresh machine needs; `make help` lists the rest.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUN := $(BIN)/docker-interpreter
NOTEBOOK := examples/analysis.ipynb
RESULT := build/demo/analysis.ipynb
# Open WebUI for its tests: large, and so kept where every checkout finds it
OPENWEBUI_VERSION := 0.12.4
OPENWEBUI := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/docker-interpreter/openwebui-$(OPENWEBUI_VERSION)
REPORT := build/demo/analysis.html

.DEFAULT_GOAL := help
.PHONY: help venv engine image image-example demo test tool e2e browser proxy gvisor compose openwebui fuzz bench audit lowest lint clean-engine clean

help:
	@echo 'make demo           replay a data analysis in a container of its own, and say where the results are'
	@echo 'make test           every check and every test (about half an hour once the images are built)'
	@echo 'make e2e            the tour of the README, word for word, and the tool in a real Open WebUI and a real browser'
	@echo 'make fuzz           hostile bytes for all that reads what containers send, a minute each'
	@echo 'make bench          what sessions cost, beside other ways to the same end: a table, JSON and a plot (15 minutes)'
	@echo 'make audit          known holes in the packages that are installed, asked of a service'
	@echo 'make lowest         the tests of the package by itself, with the oldest packages that it allows'
	@echo 'make tool           dist/openwebui_tool.py: Open WebUI'"'"'s tool with the package inside, to be pasted'
	@echo 'make lint           the checks alone: ruff and mypy'
	@echo 'make venv           the virtual environment, in $(VENV)'
	@echo 'make engine         a container engine that answers; on Debian and Ubuntu, as root, it is installed and started'
	@echo 'make image          the default image'
	@echo 'make image-example  the image for data analysis'
	@echo 'make clean-engine   stop the engine that `make engine` started, if it did'
	@echo 'make clean          remove the virtual environment, results and caches'

venv: $(READY)

# PYTHON=... chooses another interpreter
$(READY): pyproject.toml
	@set -eu; \
	python="$(PYTHON)"; \
	for candidate in $$python python3 python3.13 python3.12 python3.11; do \
	    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python="$$candidate"; break; fi; \
	done; \
	if ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo 'Python 3.11 or newer is needed, and none is on the PATH. Name one: make PYTHON=/path/to/python3.12' >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$python has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$($$python --version)"; \
	"$$python" -m venv --clear $(VENV); \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev]'; \
	touch $@

engine: venv
	$(RUN) engine start

image: engine
	$(RUN) image build

image-example: image
	$(RUN) image build --example

demo: image-example
	@mkdir -p $(dir $(RESULT))
	$(RUN) replay $(NOTEBOOK) --image example -o $(RESULT) --html $(REPORT)
	@echo
	@echo 'The executed notebook, with its plots: $(RESULT)'
	@echo 'As a page:                             $(REPORT)'

lint: venv
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint image-example proxy gvisor
	$(BIN)/pytest --ignore=tests/e2e tests

tool: venv
	$(BIN)/python -m session_manager.single_file dist/openwebui_tool.py

e2e: image-example browser compose openwebui
	TEST_OPENWEBUI=$(OPENWEBUI) $(BIN)/pytest tests/e2e

# each for so many seconds; what is found is kept in tests/fuzz/corpus, and tried again by `make test`
FUZZ_SECONDS := 60
FUZZED := frames zmtp messages journal door options

fuzz: venv
	@set -eu; \
	$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[fuzz]'; \
	for target in $(FUZZED); do \
	    echo "Fuzzing $$target for $(FUZZ_SECONDS) s"; \
	    log=$$(mktemp); \
	    if ! $(BIN)/python -m tests.fuzz.run "$$target" $(FUZZ_SECONDS) > "$$log" 2>&1; then tail -n 60 "$$log"; exit 1; fi; \
	    grep -E '^(Done|stat::peak)' "$$log"; \
	    rm -f "$$log"; \
	done

# BENCH=--quick, or BENCH="--only ours-cold,bare": see benchmarks/README.md
BENCH :=

bench: image-example
	$(BIN)/python -m benchmarks.run $(BENCH)

# asks a service for known holes in what is installed, and fails where that knows nothing of a package
audit: venv
	@mkdir -p build
	$(BIN)/python -m pip freeze --exclude-editable > build/installed.txt
	$(BIN)/python -m pip install -qq --disable-pip-version-check 'pip-audit>=2.9'
	$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r build/installed.txt

# with the oldest versions that pyproject.toml allows, in an environment of their own
LOWEST := build/lowest
# it blames what is left open on whichever test runs as that is found
OLD_PYTEST := -p no:unraisableexception

lowest: image-example
	$(BIN)/python -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install -qq --disable-pip-version-check 'uv>=0.5'
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[dev]'
	$(LOWEST)/bin/pytest -q -p no:cacheprovider $(OLD_PYTEST) tests/unit tests/conformance/test_cells.py

openwebui: $(OPENWEBUI)/.ready

# with PyTorch for processors alone, whose version is held while the rest is resolved
$(OPENWEBUI)/.ready: | venv
	@set -eu; \
	echo 'Installing Open WebUI $(OPENWEBUI_VERSION) for the tests (3 GB, some minutes)'; \
	rm -rf $(OPENWEBUI); \
	$(BIN)/python -m venv $(OPENWEBUI); \
	echo 'torch==2.13.0' > $(OPENWEBUI)/constraints.txt; \
	pip="$(OPENWEBUI)/bin/python -m pip install -qq --disable-pip-version-check -c $(OPENWEBUI)/constraints.txt"; \
	$$pip torch; \
	$$pip open-webui==$(OPENWEBUI_VERSION); \
	$$pip 'docker~=7.1' 'jupyter_client~=8.10' 'pyzmq~=27.0' 'nbformat~=5.10'; \
	touch $@

# $(call installed,PROGRAMS,PACKAGE,WHAT): one of the programs is there; on Debian and Ubuntu, as root, it is installed
define installed
	@set -eu; \
	for program in $(1); do \
	    if PATH="$$PATH:/usr/sbin" command -v "$$program" > /dev/null; then exit 0; fi; \
	done; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then \
	    echo 'What is missing here: $(3).' >&2; exit 1; \
	fi; \
	echo 'Installing $(2)'; \
	apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $(2) > /dev/null
endef

browser:
	$(call installed,chromium chromium-browser google-chrome,chromium,Chromium or Chrome)

# it stands before the engine's socket in one of the compose files
proxy:
	$(call installed,nginx,nginx-light,nginx)

# another kernel between code and the host's, for the tests that run sessions under it
gvisor:
	$(call installed,runsc,runsc,gVisor)

compose:
	$(call installed,docker-compose,docker-compose,docker-compose)

# without the command nothing was started from here
clean-engine:
	@if [ -x $(RUN) ]; then $(RUN) engine stop; fi

clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
