# What a contributor types. Needs python3 (3.10 or later, with venv), make, and nothing else.
#
# Everything made here stands in .venv and .cache: `make clean` removes both.

PYTHON ?= python3
PYTEST_WORKERS ?= 2
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
MBPM := $(BIN)/mbpm
DEMO_HOME := .cache/demo-home
TEST_HOME := .cache/test-home
MEDICAL := .cache/medical-pack
QUESTION := What does 'bradycardia' mean?

# one thread per worker: two thread pools that spin on two cores slow each other down many times
TEST_ENV := OMP_NUM_THREADS=1 MBPM_TEST_HOME=$(TEST_HOME)

.DEFAULT_GOAL := help
.PHONY: help reference demo test test-slow torture sanitize kernels-arm lint format schemas pack-medical clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1  \2/p' Makefile | awk '{t=$$2; $$1=$$2=""; printf "  make %-14s%s\n", t, $$0}'

$(BIN)/python:
	@echo "making the environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "error: $(PYTHON) is older than 3.10" >&2; \
	      echo "hint: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	    { rm -rf $(VENV); echo "error: $(PYTHON) cannot make virtual environments" >&2; \
	      echo "hint: on Debian and Ubuntu, install python3-venv" >&2; exit 1; }

NATIVE := runtime/native/CMakeLists.txt $(wildcard runtime/native/src/*)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	@echo "installing mbpm and what it needs (minutes the first time)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "installing what the tests need"
	@$(BIN)/python -c "import tomli; print(*tomli.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['dev'], sep='\n')" > $(VENV)/dev.txt
	@$(PIP) -r $(VENV)/dev.txt
	@touch $@

demo: $(VENV)/.installed  ## Install the medical pack and ask it a question
	@$(MBPM) --home $(DEMO_HOME) install medical --yes
	@$(MBPM) --home $(DEMO_HOME) list
	@echo
	@echo "$$ mbpm run --explain \"$(QUESTION)\""
	@$(MBPM) --home $(DEMO_HOME) run --explain --seed 1 "$(QUESTION)" < /dev/null

# fetched before the tests start, so that no two of them do it at once
$(TEST_HOME)/.%: $(VENV)/.installed registry_index/bundled/bases/%.json
	@$(MBPM) --home $(TEST_HOME) base install $* --yes
	@touch $@

test: $(VENV)/.installed-dev $(TEST_HOME)/.smollm2-135m  ## Run the whole suite
	@$(TEST_ENV) $(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-dev $(TEST_HOME)/.smollm2-135m $(TEST_HOME)/.qwen2.5-0.5b  ## Run the slow tests (fetches the 0.5B base, 491 MB)
	@$(TEST_ENV) $(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

torture: $(VENV)/.installed-dev  ## Kill a thousand commands, and meet 200 schedules of bad servers
	@$(TEST_ENV) MBPM_TORTURE=200 $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal -m 'not slow' tests/torture tests/mbpm/test_network_torture.py $(PYTEST_ARGS)

# the extension again with the sanitizers, in a copy, and its tests in it
SANITIZE := .cache/sanitize
sanitize: $(VENV)/.installed-dev $(TEST_HOME)/.smollm2-135m  ## Run the native engine's tests under ASan and UBSan
	@rm -rf $(SANITIZE) && mkdir -p $(SANITIZE)
	@$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps -C cmake.define.SANITIZE=ON -C install.strip=false -w $(SANITIZE) .
	@$(BIN)/python -m zipfile -e $(SANITIZE)/mbpm-*.whl $(SANITIZE)
	@cp -r tests pyproject.toml $(SANITIZE)
	@cd $(SANITIZE) && $(SANITIZED) $(abspath $(BIN))/python -m pytest -p no:cacheprovider $(SANITIZE_TESTS) -k 'not reference and not memory' $(PYTEST_ARGS)
SANITIZE_TESTS := $(addprefix tests/runtime/test_,native_kernels.py native_engine.py native_limits.py packed.py) tests/trainer/test_passes.py
SANITIZED = LD_PRELOAD="$(foreach l,asan ubsan stdc++,$(shell $(or $(CXX),c++) -print-file-name=lib$(l).so))" \
    ASAN_OPTIONS=detect_leaks=0 OMP_NUM_THREADS=2 MBPM_TEST_HOME=$(abspath $(TEST_HOME))

# the kernels for 64-bit ARM in an emulator, from any machine
ARM_CXX ?= aarch64-linux-gnu-g++
ARM_RUN ?= qemu-aarch64 -cpu max
ARM := .cache/kernels-arm
SOURCES := runtime/native/src
kernels-arm:  ## Compare the kernels for ARM with the portable ones (needs its compiler and qemu-user)
	@for tool in $(firstword $(ARM_CXX)) $(firstword $(ARM_RUN)); do command -v $$tool > /dev/null || \
	    { echo "skipped: there is no $$tool (on Debian and Ubuntu: g++-aarch64-linux-gnu, qemu-user)"; exit 0; }; done; \
	set -e; mkdir -p $(ARM); flags="-std=gnu++17 -O2 -Wall -Wextra -Werror -Wno-psabi"; \
	$(ARM_CXX) $$flags -march=armv8.2-a+dotprod -c $(SOURCES)/kernels_neon.cpp -o $(ARM)/neon.o; \
	$(ARM_CXX) $$flags -static -pthread -o $(ARM)/kernels tests/native/kernels.cpp $(SOURCES)/cpu.cpp $(SOURCES)/pack.cpp \
	    $(SOURCES)/kernels_portable.cpp $(SOURCES)/kernels_avx2.cpp $(SOURCES)/kernels_avx_vnni.cpp \
	    $(SOURCES)/kernels_avx512.cpp $(ARM)/neon.o; \
	$(ARM_RUN) $(ARM)/kernels

lint: $(VENV)/.installed-dev  ## Check style, types, import direction and schemas
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m specs.schemas --check

format: $(VENV)/.installed-dev  ## Rewrite the source in the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

schemas: $(VENV)/.installed  ## Write the JSON Schemas again from the models
	@$(BIN)/python -m specs.schemas

reference: $(VENV)/.installed  ## Write docs/commands.md again from the commands' help
	@$(BIN)/python -m mbpm.reference

pack-medical: $(TEST_HOME)/.smollm2-135m  ## Train the bundled medical pack again
	@$(MBPM) --home $(TEST_HOME) train --recipe medical --output $(MEDICAL)
	@$(MBPM) --home $(TEST_HOME) pack $(MEDICAL)

clean:  ## Remove the environment, the caches and everything built
	rm -rf $(VENV) .cache build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	git clean -qfdX runtime/native
