# Two commands for everyone: `make bootstrap` and `make test`. Each sets up what it needs (Python >= 3.11 and make).
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: help bootstrap test bench check lab-bundle test-lab test-lab-long test-faults test-ui docs lock clean

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# --no-deps: the lock is complete, and pip's resolver takes `sqlalchemy[asyncio]` of Prefect for an unpinned requirement.
$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Shipway needs Python 3.11 or newer; this is " + sys.version.split()[0])'
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: install it (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@touch $@

bootstrap: $(READY)  ## Bootstrap CLUSTER=file.yaml; without it, a SIMULATED cluster of four hosts
	$(RUN) -m flows.bootstrap $(CLUSTER) $(ARGS)

test: $(READY)  ## Unit tests, simulated lab, conformance on the simulated side
	$(RUN) -m pytest -q -n 2 --dist loadgroup

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
	$(RUN) -m pytest -q -m faults -n 2 tests/faults

test-ui: $(READY)  ## The compose layout on PostgreSQL and Redis, used with a real browser (ten minutes)
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/server -r deployments/requirements-server.txt
	$(RUN) -m pytest -s -v -m ui tests/ui

test-lab-long: lab-bundle  ## All of test-lab, the slow cases and 100 passes with random drift as well (an hour)
	SHIPWAY_DRIFT_PASSES=100 $(RUN) -m pytest -q -m lab tests

docs: $(READY)  ## Write the generated pages and the schema again
	$(RUN) -m shipway.schema --write
	$(RUN) -m shipway.reference --write

lock:  ## Resolve requirements.in into requirements.lock, with hashes
	$(VENV)/bin/pip-compile -q --generate-hashes --allow-unsafe --no-emit-index-url --no-emit-find-links \
	  --no-emit-trusted-host --strip-extras --no-header -o requirements.lock requirements.in

clean:  ## Remove the virtual environment
	rm -rf $(VENV)
