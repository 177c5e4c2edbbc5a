# Every target makes what it needs in .venv, from python3, pip and make alone. `make help` lists them.

PYTHON ?= python3
# Another Python needs another one: make test PYTHON=python3.13 VENV=.venv-3.13
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --progress-bar off --no-input --disable-pip-version-check --root-user-action ignore
# Four workers also on two cores: the suite waits for sockets and for other processes a good deal.
PYTEST := -m pytest -n 4
# Extra words for pytest: make test ARGS="-k race"
ARGS ?=

# Python keeps what it has compiled, also for whoever would rather it did not: else each worker compiles the whole suite
# anew, and each of the hundred programs that the tests start compiles us. It took half a minute of two cores.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
# One pip at a time may work in .venv, also under make -j.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo picture test test-long coverage lint lint-ruff lint-mypy lint-pyright format docs lab sctp bench mutate faults clean

help:
	@echo "make demo       watch a race on this machine: four addresses of one service, the last one good"
	@echo "make picture    draw the demo again, for the README"
	@echo "make test       the test suite, under three minutes"
	@echo "make test-long  all but what measures: the slow tests too, more rounds and examples, and what they cover"
	@echo "make coverage   does each pure module's own test file run every line and branch of it?"
	@echo "make lint       ruff, mypy for three platforms, pyright"
	@echo "make format     let ruff format and mend what it can"
	@echo "make docs       the documentation as a site, site/index.html, with the API reference; a warning fails it"
	@echo "make lab        tests against real kernel faults, in network namespaces of their own"
	@echo "make sctp       tests of associations on a kernel that has SCTP, in a guest that boots in seconds"
	@echo "make bench      peers side by side, ratios out, and which bounds were missed"
	@echo "make mutate     break the engine on purpose: do the tests notice?"
	@echo "make faults     put faults into the shells that somebody thought of: do the tests notice?"
	@echo "make clean      remove everything that these targets made"

demo: $(VENV)/.installed
	@$(PY) -m trio_connect.cli.demo

picture: $(VENV)/.installed
	@$(PY) -m trio_connect.cli.demo docs/pictures/demo.svg

# What measures has the machine to itself, after all others. Status 5 is pytest's for no test: with ARGS="-k word" one of
# the two may have none.
test: $(VENV)/.compiled
	@$(PY) $(PYTEST) -m "not slow and not lab and not sctp and not alone" $(ARGS); shared=$$?; \
	$(PY) -m pytest -m alone $(ARGS); alone=$$?; \
	case "$$shared $$alone" in "0 0"|"0 5"|"5 0") ;; *) exit 1 ;; esac

# The report is printed whether or not the tests passed, and the status is theirs. `coverage run` rather than a
# pytest plugin: our own plugin is imported before any plugin could start to measure.
# A tracer makes ten rounds of a sweep take minutes: hence the timeouts.
test-long: $(VENV)/.test
	@export TRIO_CONNECT_LONG=1; \
	$(PY) -m coverage erase; \
	$(PY) -m coverage run $(PYTEST) --timeout 600 -o faulthandler_timeout=590 -m "not lab and not sctp and not alone" $(ARGS); status=$$?; \
	$(PY) -m coverage combine --quiet && $(PY) -m coverage report; \
	exit $$status

coverage: $(VENV)/.test
	@$(PY) tools/own_coverage.py

# In parts, so that `make -k lint` shows what every tool has to say.
lint: lint-ruff lint-mypy lint-pyright

lint-ruff: $(VENV)/.lint
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

# What cannot be reached on one platform is there for another.
lint-mypy: $(VENV)/.lint
	$(VENV)/bin/mypy src tests examples
	MYPYPATH=src:benchmarks $(VENV)/bin/mypy $(wildcard benchmarks/*.py)
	$(VENV)/bin/mypy --platform darwin --no-warn-unreachable --cache-dir .mypy_cache/darwin src
	$(VENV)/bin/mypy --platform win32 --no-warn-unreachable --cache-dir .mypy_cache/win32 src

lint-pyright: $(VENV)/.lint
	$(VENV)/bin/pyright

format: $(VENV)/.lint
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

# The variable silences an advertisement of the theme's, which is no warning about our pages.
docs: $(VENV)/.docs
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --clean
	@$(PY) tools/docs_check.py site

# Exit status 77 is labrun's "not permitted here"; the line NOT RUN is what .ci/run looks for.
lab: $(VENV)/.test
	@$(PY) tests/lab/labrun.py $(PY) $(PYTEST) -m lab $(ARGS) tests/lab || { \
	  status=$$?; \
	  test $$status -eq 77 || exit $$status; \
	  echo "NOT RUN: make lab: this machine does not let us make network namespaces (the reason is above)"; \
	}

# Exit status 77 is run.py's "no guest here". One process: the guest has one processor.
sctp: $(VENV)/.test
	@$(PY) -m tests.sctp.guest.run $(PY) -m pytest -p no:cacheprovider -p no:xdist -m sctp $(ARGS) tests/sctp || { \
	  status=$$?; \
	  test $$status -eq 77 || exit $$status; \
	  echo "NOT RUN: make sctp: this machine cannot start a guest with SCTP (the reason is above)"; \
	}

bench: $(VENV)/.bench
	@found=$$(mktemp -d) && trap 'rm -rf "$$found"' EXIT && \
	for script in $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; $(PY) "$$script" --json "$$found/$$(basename "$$script" .py).json" $(ARGS) || exit 1; \
	done && $(PY) benchmarks/_summary.py "$$found"

mutate: $(VENV)/.mutate
	$(VENV)/bin/mutmut run $(ARGS)
	$(VENV)/bin/mutmut results
	@for module in $(wildcard src/trio_connect/_engine/[!_]*.py); do $(PY) tools/mutate_rest.py "$$module" || true; done

faults: $(VENV)/.test
	@$(PY) tools/faults.py $(ARGS)

clean:
	rm -rf $(VENV) .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis mutants dist htmlcov site
	rm -f .coverage .coverage.*
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# Debian's python3 may come without ensurepip and with a pip too old for dependency groups, so .venv starts without
# pip and gets a current one: through --python (pip 22.3 and later), else by plain ensurepip, else as a bare package.
$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trio-connect needs Python 3.11 or later, and $(PYTHON) is " + sys.version)'
	@echo "setting up $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --without-pip $(VENV)
	@for pip in "$(PYTHON) -m pip" pip3 pip; do \
	  $$pip --python $(PY) --quiet --no-input --disable-pip-version-check install --upgrade "pip>=25.1" 2>$(VENV)/pip.log && break; \
	done \
	|| { $(PY) -m ensurepip >$(VENV)/pip.log 2>&1 && $(PIP) --upgrade "pip>=25.1"; } \
	|| $(PYTHON) -m pip --quiet install --upgrade --target "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" "pip>=25.1" \
	|| { cat $(VENV)/pip.log; echo "make needs pip for $(PYTHON): on Debian, apt install python3-pip"; exit 1; }
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.pip
	@echo "installing trio-connect into $(VENV)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	@echo "installing what the tests need"
	@$(PIP) --group test
	@touch $@

# Once, before four workers do it side by side, each all of it. What is wrong with the tests they will say.
$(VENV)/.compiled: $(VENV)/.test
	@echo "compiling the tests"
	@$(PY) -m pytest --collect-only -qq >$(VENV)/compile.log 2>&1 || true
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	@echo "installing ruff, mypy and pyright"
	@$(PIP) --group lint
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	@echo "installing what builds the documentation"
	@$(PIP) --group docs
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	@echo "installing the peers to measure against"
	@$(PIP) --group bench
	@touch $@

$(VENV)/.mutate: $(VENV)/.test
	@echo "installing mutmut"
	@$(PIP) --group mutate
	@touch $@
