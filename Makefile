# `make` lists the targets. `make run ARGS="--rebuild --width 256"` passes options on to the command it runs.
# `make PYTHON=/path/to/python …` builds .venv with that Python instead of looking for one.

VENV_PYTHON := .venv/bin/python
PIP_INSTALL := $(VENV_PYTHON) -m pip --quiet --disable-pip-version-check install --no-deps
COMPILE_LOCK := .venv/bin/uv --quiet pip compile --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
PRINT_VERSION := import sys; print("%d.%d.%d" % sys.version_info[:3])

ifeq ($(origin PYTHON),undefined)
PYTHONS := python3 python3.13 python3.12 python3.11 /usr/bin/python3
WANTED :=
else
PYTHONS := "$(PYTHON)"
WANTED := $(or $(shell "$(PYTHON)" -c '$(PRINT_VERSION)' 2>/dev/null),none)
endif

# A checkout that was moved, or a Python that was removed or upgraded, breaks .venv without making it look old.
STAMP_HOLDS := import os, sys; \
	print(open(".venv/.locked").read() == os.getcwd() and sys.argv[1] in ("", "%d.%d.%d" % sys.version_info[:3]))
ifneq ($(shell $(VENV_PYTHON) -c '$(STAMP_HOLDS)' "$(WANTED)" 2>/dev/null),True)
REBUILD := rebuild
endif

# Sets $python and $version, or says what is missing and how to get it.
define FIND_PYTHON
seen=
for python in $(PYTHONS); do
    version=$$("$$python" -c '$(PRINT_VERSION)' 2>/dev/null) || { version=; continue; }
    case $$version in 3.11.*|3.12.*|3.13.*) break ;; esac
    seen="$$seen $$python is $$version."
    version=
done
if [ -z "$$version" ]; then
    echo "Darkroom needs Python 3.11, 3.12 or 3.13, and found none.$$seen"
    echo "  Debian, Ubuntu:  sudo apt-get install python3 python3-venv"
    echo "                   (where that is another version: python3.13 python3.13-venv, or 3.12, or 3.11)"
    echo "  macOS:           brew install python@3.13"
    echo "  elsewhere:       make PYTHON=/path/to/python3.13 …"
    exit 1
fi >&2
if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "$$python ($$version) cannot make virtual environments: its venv or ensurepip module is missing."
    echo "  Debian, Ubuntu:  sudo apt-get install python$${version%.*}-venv"
    exit 1
fi >&2
endef
export FIND_PYTHON

.PHONY: help run stack deploy worker test lint slow nights chaos hosts fuzz screenshots bench lock clean rebuild

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

run: .venv/.installed | data/sample ## prepare the sample dataset: data/sample → data/out
	.venv/bin/darkroom run data/sample data/out $(ARGS)

stack: .venv/.installed | data/sample ## Prefect server, UI, deployments and a worker, until Ctrl-C
	@$(VENV_PYTHON) -m darkroom.deployments.stack

deploy: .venv/.installed ## bring the server at PREFECT_API_URL up to date with deployments/prefect.yaml
	@$(VENV_PYTHON) -m darkroom.deployments.deploy

worker: .venv/.installed ## run the deployments' flow runs, until Ctrl-C
	@$(VENV_PYTHON) -m darkroom.deployments.flow_worker $(ARGS)

test: .venv/.installed .venv/.dev-locked ## run the tests
	$(VENV_PYTHON) -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/.installed .venv/.dev-locked ## check format, style and types
	$(VENV_PYTHON) -m ruff format --check .
	$(VENV_PYTHON) -m ruff check .
	$(VENV_PYTHON) -m mypy

slow: .venv/.installed .venv/.dev-locked ## the tests that take too long for `make test`
	$(VENV_PYTHON) -m pytest --numprocesses 3 --dist loadfile -m slow $(ARGS)

nights: .venv/.installed .venv/.dev-locked ## three nights of a generated dataset, checked to the byte (IMAGES=5000)
	$(VENV_PYTHON) -m pytest --capture=no tests/flows/test_nights.py

chaos: .venv/.installed .venv/.dev-locked ## kill workers, flows, servers at random moments: tens of minutes (ARGS="--trials 5")
	$(VENV_PYTHON) -m tests.chaos $(ARGS)

hosts: .venv/.installed .venv/.dev-locked ## a run on several hosts (network namespaces), one of them cut off: takes root
	$(VENV_PYTHON) -m pytest -m slow tests/flows/test_hosts.py

fuzz: .venv/.installed .venv/.dev-locked ## damaged and hostile files, for five minutes (ARGS="--seconds 3600 --seed 1")
	@$(VENV_PYTHON) -m tests.fuzz $(ARGS)

screenshots: .venv/.installed .venv/.dev-locked ## the pictures of README and docs, by the browser test (needs Debian's chromium)
	SCREENSHOTS=docs $(VENV_PYTHON) -m pytest tests/flows/test_ui.py

bench: .venv/.installed ## measure what docs/benchmarks.md quotes
	$(VENV_PYTHON) -m benchmarks $(ARGS)

lock: .venv/.dev-locked ## renew both lock files after a change to pyproject.toml (ARGS=--upgrade: newest versions)
	$(COMPILE_LOCK) pyproject.toml --group build --output-file requirements.lock $(ARGS)
	$(COMPILE_LOCK) --group dev --constraint requirements.lock --output-file requirements-dev.lock $(ARGS)

clean: ## remove all that the other targets made, data/sample and data/out included
	rm -rf .venv data/sample data/out data/.unfinished-* data/chaos-* build dist src/*.egg-info
	rm -rf .pytest_cache .hypothesis .mypy_cache .ruff_cache .fuzz
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are written last, so that what was interrupted is done again.

.venv/.locked: requirements.lock $(REBUILD)
	@eval "$$FIND_PYTHON"; \
	echo "Making .venv with Python $$version from requirements.lock: about a minute."; \
	"$$python" -m venv --clear .venv
	@$(PIP_INSTALL) --require-hashes -r requirements.lock
	@$(VENV_PYTHON) -c 'import os; open("$@", "w").write(os.getcwd())'

.venv/.installed: .venv/.locked pyproject.toml
	@$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

.venv/.dev-locked: .venv/.locked requirements-dev.lock
	@echo "Adding the development tools of requirements-dev.lock to .venv."
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

# The folder appears whole or not at all, so its being there is enough.
data/sample: | .venv/.locked
	@echo "Making the sample dataset: about 10 seconds."
	@$(VENV_PYTHON) data/generate.py $@
