# NotifyHub. Every target makes .venv/ if it is missing or out of date, and is quick when there is nothing to do.
PYTHON ?= python3
FOLLOWERS ?= 5000
VENV := .venv
SHELL := /bin/bash
RUN := $(VENV)/bin/python

.PHONY: demo test test-processes test-others chaos bench stack lint audit install clean

demo: install  ## Everything at once: servers, followers, processes, trades; watch alerts arrive.
	@$(RUN) -m devstack.demo --followers $(FOLLOWERS)

# Two halves side by side, each on servers of its own: one drives whole processes and mostly waits, the other computes.
# ARGS goes to both; TESTS="tests/web" runs only that.
PROCESS_TESTS := tests/chaos tests/devstack tests/end_to_end tests/delivery/test_consumer.py
TESTS ?=

test: install  ## All tests, against real servers of their own.
ifeq ($(TESTS),)
	@$(MAKE) --no-print-directory --keep-going -j2 test-processes test-others
else
	@$(RUN) -m pytest $(ARGS) $(TESTS)
endif

test-processes: install
	@set -o pipefail; $(RUN) -m pytest $(ARGS) $(PROCESS_TESTS) 2>&1 | sed -u 's/^/processes | /'

test-others: install
	@set -o pipefail; $(RUN) -m pytest $(ARGS) $(PROCESS_TESTS:%=--ignore=%) 2>&1 | sed -u 's/^/others    | /'

chaos: install  ## Kills, restarts, outages and a bad network under load; fails if anything is lost. CHAOS="--short" is quicker.
	@$(RUN) -m devstack.chaos $(CHAOS)

BENCHMARKS := fan_out deliver end_to_end idle_latency steady burst vendor_hang sockets review inbox

bench: install  ## Every benchmark beside its yardsticks, about an hour. BENCH="fan_out --followers 10000" runs one alone.
ifdef BENCH
	@$(RUN) -m bench $(BENCH)
else
	@for name in $(BENCHMARKS); do $(RUN) -m bench $$name || exit 1; done
endif

stack: install  ## Only the servers, until Ctrl-C; settings for the processes in $$DEVSTACK_DIR/env.
	@$(RUN) -m devstack

# Enough to load the settings where nothing is run.
NO_SERVERS := DJANGO_SECRET_KEY=not-a-secret MONGODB_URL=mongodb://127.0.0.1/none REDIS_URL=redis://127.0.0.1 \
	ENDPOINT_ENCRYPTION_KEYS=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= \
	ENDPOINT_HASH_KEY=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

lint: install  ## Style, types, and what Django itself checks.
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@env $(NO_SERVERS) $(RUN) -m mypy .
	@env $(NO_SERVERS) $(RUN) manage.py check --fail-level ERROR

audit: install  ## Known holes in the installed packages; fails if the advisories cannot be had, too. Needs the open internet.
	@test -x $(VENV)/audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install --quiet pip-audit==2.10.*; }
	@$(VENV)/audit/bin/pip-audit --strict --path "$$($(RUN) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements-otel.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "NotifyHub needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing Python packages into $(VENV)/ (about a minute, once) …"
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:  ## Removes the dev stack's data; packages stay.
	rm -rf .devstack
