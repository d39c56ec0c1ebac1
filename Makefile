# Each target does all of its own set-up, on a machine that has Python 3.11 or newer, git and make.
#   make run            the main experiment; make run ARGS="--help" shows its flags
#   make test           most laws in their fast form, and the docstrings' examples
#   make test-ci        the tests that make test leaves out and .ci/run runs every time
#   make test-all       every test but the nightly ones
#   make nightly        the tests that take minutes and add little to the rest
#   make test-floor     the tests that depend on versions, on the oldest versions that we support
#   make test-device    an accelerator against the CPU, if JAX finds one: rules, gradients, reruns
#   make check          style and types
#   make notebooks      each notebook from its text source, with setup.cfg's address in it
#   make owner          the name of the repository's owner into every address: make owner OWNER=name
#   make docs           the site, to docs/_build/html, which opens from disk
#   make test-torch     the tests that need PyTorch, in the environment of make bench
#   make bench          speed beside peers, to benchmarks/RESULTS.md; its own environment, over an hour
#   make requirements   the locks in requirements/: newest and floor
PYTHON ?= python3.13 python3.12 python3.11 python3
# The oldest NumPy that we support has no wheel for a newer one.
FLOOR_PYTHON ?= python3.12 python3.11
VENV := .venv
ARGS ?=
python := $(VENV)/bin/python

.PHONY: run test test-ci test-all nightly test-floor test-device check notebooks owner docs test-torch bench requirements

run: $(VENV)/installed
	$(python) experiments/batch_stochastic_minibatch.py $(ARGS)

test: $(VENV)/installed-test
	$(python) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not on_ci and not thorough and not nightly" $(ARGS)

test-ci: $(VENV)/installed-test
	$(python) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "on_ci and not thorough and not nightly" $(ARGS)

test-all: $(VENV)/installed-test
	$(python) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "not nightly" $(ARGS)

nightly: $(VENV)/installed-test
	$(python) -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m nightly $(ARGS)

test-floor: setup.cfg
	@$(MAKE) --no-print-directory VENV=.venv-floor PYTHON="$(FLOOR_PYTHON)" .venv-floor/installed-floor
	.venv-floor/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m "every_version and not thorough and not nightly" \
	  $(or $(ARGS),tests)

test-device: $(VENV)/installed-test
	$(python) -m tests.device $(ARGS)

check: $(VENV)/installed-check
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m pyright

notebooks: $(VENV)/installed-test
	$(python) notebooks/build.py

owner: $(VENV)/installed-test
	$(python) notebooks/build.py "$(OWNER)"

docs: $(VENV)/installed-docs
	$(python) -m docs.make_site $(ARGS)

test-torch: setup.cfg
	@$(MAKE) --no-print-directory VENV=.venv-bench .venv-bench/installed-bench
	.venv-bench/bin/python -m pytest tests/test_torch_mutants.py $(ARGS)

bench: setup.cfg
	@$(MAKE) --no-print-directory VENV=.venv-bench .venv-bench/installed-bench
	.venv-bench/bin/python -W ignore -m benchmarks $(ARGS)

lock := -m uv pip compile setup.cfg --universal --python-version 3.11 --extra test --extra notebook --quiet --upgrade \
  --no-annotate --custom-compile-command "make requirements"
requirements: $(VENV)/installed
	$(python) -m pip install --quiet --disable-pip-version-check uv
	$(python) $(lock) --output-file requirements/newest.txt
	$(python) $(lock) --output-file requirements/floor.txt --resolution lowest-direct \
	  --constraints requirements/floor-constraints.txt

# A stamp is older than setup.cfg when what we depend on may have changed.
$(VENV)/installed: extras :=
$(VENV)/installed-test: extras := [test]
$(VENV)/installed-check: extras := [test,dev]
$(VENV)/installed-docs: extras := [docs]
$(VENV)/installed-bench: extras := [test,bench]
$(VENV)/installed $(VENV)/installed-test $(VENV)/installed-check $(VENV)/installed-docs $(VENV)/installed-bench: setup.cfg pyproject.toml
	@$(environment)
	@echo "Installing into $(VENV); the first time this takes a minute or two."
	@$(python) -m pip install --quiet --disable-pip-version-check --editable '.$(extras)'
	@touch $(VENV)/installed $@

$(VENV)/installed-floor: requirements/floor.txt
	@$(environment)
	@echo "Installing the oldest versions that we support into $(VENV)."
	@$(python) -m pip install --quiet --disable-pip-version-check --requirement requirements/floor.txt
	@$(python) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# A Python that is found but cannot run (a version manager's stand-in), is too old, or lacks venv is passed over.
define environment
if ! $(python) -c '' 2>/dev/null; then \
  for candidate in $(PYTHON) none; do \
    "$$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
  done; \
  if [ "$$candidate" = none ]; then \
    echo "error: Python 3.11 or newer with venv is needed; none of these is: $(PYTHON)." >&2; \
    echo "Install one (on Debian and Ubuntu also python3-venv), or name yours: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
    exit 1; \
  fi; \
  echo "Making $(VENV) with $$("$$candidate" --version)."; \
  "$$candidate" -m venv --clear $(VENV) || exit 1; \
fi; \
$(python) -m pip --version >/dev/null 2>&1 || $(python) -m ensurepip --default-pip
endef
