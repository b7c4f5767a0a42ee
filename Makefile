# Two commands for everyone: `make bootstrap` and `make test`. Each sets up what it needs (Python >= 3.11 and make).
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
READY := $(VENV)/.ready-$(VERSION)
TARGETS := help bootstrap test test-long test-fresh mutants bench check lab-bundle test-lab test-lab-long test-faults test-ui docs docs-site lock clean

.PHONY: $(TARGETS)

# make drops a variable that nobody reads and a goal that is a file in silence: `make bootstrap cluster=my.yaml` and
# `make bootstrap my.yaml` would bring up the SIMULATED cluster instead. So everything that was typed must be known.
TYPED := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
UNKNOWN := $(filter-out CLUSTER ARGS PYTHON MAKEFLAGS MAKEOVERRIDES -%,$(TYPED))
ifneq ($(strip $(UNKNOWN)),)
  $(error no variable is called $(strip $(UNKNOWN)) here; there are CLUSTER=file.yaml, ARGS="--options" and PYTHON=python3.x, in upper case)
endif
ifneq ($(filter-out $(TARGETS) $(READY),$(MAKECMDGOALS)),)
  $(error no target is called $(filter-out $(TARGETS) $(READY),$(MAKECMDGOALS)); a cluster file is named by CLUSTER=file.yaml, options by ARGS="--option", and `make help` names the targets)
endif
ifneq ($(filter CLUSTER,$(TYPED)),)
  ifeq ($(strip $(CLUSTER)),)
    $(error CLUSTER is empty: name a cluster file, or leave CLUSTER out for the SIMULATED cluster)
  endif
  ifneq ($(filter-out bootstrap,$(MAKECMDGOALS)),)
    $(error CLUSTER=$(CLUSTER) is for `make bootstrap` alone)
  endif
endif
ifneq ($(filter ARGS,$(TYPED)),)
  ifneq ($(filter-out bootstrap test test-long test-fresh mutants bench,$(MAKECMDGOALS)),)
    $(error ARGS is for `make bootstrap`, `make test`, `make test-long`, `make test-fresh`, `make mutants` and `make bench`)
  endif
endif

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Shipway needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	@$(PYTHON) -m tools.set_up $(VENV) requirements.lock

bootstrap: $(READY)  ## Bootstrap CLUSTER=file.yaml; without it, a SIMULATED cluster of four hosts
	$(RUN) -m flows.bootstrap $(CLUSTER) $(ARGS)

test: $(READY)  ## Unit tests, simulated lab, conformance on the simulated side (about five minutes on two cores)
	$(RUN) -m pytest -q -n 4 --dist loadgroup $(ARGS)

test-long: $(READY)  ## Runs of flows on a Prefect API, whole processes, fleets on real sshds: as long again
	$(RUN) -m pytest -q -n 4 --dist loadgroup -m "long and not lab and not faults and not ui" $(ARGS)

test-fresh:  ## The commands that README.md begins with, on fresh Debian 12 and 13 (needs root and mmdebstrap)
	$(PYTHON) -m tests.fresh $(ARGS)

mutants: $(READY)  ## Take each safety rule away once: a test must fail; writes docs/mutants.md (two hours)
	$(RUN) -m tests.mutants $(ARGS)

bench: $(READY)  ## Measure against other tools on real sshds and at scale; resumes; writes docs/performance.md (needs root)
	$(RUN) -m tests.bench $(ARGS)

check: $(READY)  ## Lint, types, import contracts
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

lab-bundle: $(READY)  ## Mirror, images and programs for the container lab, from Debian packages (about 15 minutes once)
	$(RUN) -m lab.containers bundle

test-lab: lab-bundle  ## The flow on real hosts in containers: real kubeadm, containerd, apt (needs root)
	$(RUN) -m pytest -q -m "lab and not lab_long" --durations=40 tests

test-faults: $(READY)  ## Every exchange interrupted, controllers killed, hosts that fail: simulated (an hour)
	$(RUN) -m pytest -q -m faults -n 2 --dist loadgroup tests

test-ui: $(READY)  ## The compose layout on PostgreSQL and Redis, used with a real browser (ten minutes)
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --upgrade --target $(VENV)/server -r deployments/requirements-server.txt
	$(RUN) -m pytest -s -v -m ui tests/ui

test-lab-long: lab-bundle  ## All of test-lab, the slow cases and 100 passes with random drift as well (an hour)
	SHIPWAY_DRIFT_PASSES=100 $(RUN) -m pytest -q -m lab tests

docs: $(READY)  ## Write the generated pages, the schema and the picture of the architecture again
	$(RUN) -m tools.schema --write
	$(RUN) -m tools.reference --write
	$(RUN) -m tools.architecture --write

docs-site: $(READY)  ## Build all pages as a site into build/docs-site; reading them needs no network
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --upgrade --target $(VENV)/docs-site -r tools/requirements-docs.txt
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=$(VENV)/docs-site $(RUN) -m mkdocs build --quiet --strict

lock: $(READY)  ## Resolve requirements.in into requirements.lock, for every Python that is supported, with hashes
	$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11.0 --generate-hashes --no-strip-extras \
	  --no-emit-index-url --no-emit-find-links --no-header --output-file requirements.lock requirements.in
	echo "mkdocs-material>=9.6,<10" | $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11.0 --generate-hashes \
	  --no-strip-extras --no-emit-index-url --no-emit-find-links --no-header --output-file tools/requirements-docs.txt -

clean:  ## Remove the virtual environment
	rm -rf $(VENV)
