# Every target makes its own set-up first (scripts/setup: .venv with the pinned dependencies).
PY := .venv/bin/python

.PHONY: help setup demo test test-all lint fmt docs fuzz bench bench-full bench-store bench-content bench-unixfs profile lock clean

help:           ## this list
	@sed -n 's/^\([a-z-]*\): .*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup:          ## .venv with the pinned dependencies
	@scripts/setup

demo: setup     ## move a real image between four peers on this machine (IMAGE=path takes your own)
	@$(PY) scripts/demo.py $(if $(IMAGE),--image "$(IMAGE)")

test: setup     ## the tests that any machine can run, in minutes
	@scripts/test-peers kubo
	$(PY) -m pytest -q -m "not slow"

test-all: setup ## all tests, the slow and the foreign peers too
	@scripts/test-peers
	$(PY) -m pytest -q

lint: setup     ## ruff, mypy strict, import contracts
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-cache

fmt: setup      ## format the code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

docs: setup     ## write docs/cli.md from the commands' own help
	$(PY) scripts/cli_reference.py

fuzz: setup     ## fuzz TARGET (default: the list) for SECONDS (default 600)
	$(PY) -m tests.fuzz $(if $(TARGET),$(TARGET) --seconds $(or $(SECONDS),600),all --seconds 0)

bench: setup    ## a quick table of the data path, under three minutes
	@scripts/test-peers kubo
	$(PY) -m benchmarks.data_path --quick

bench-full: setup ## all scenarios, alternating with the peers they are compared with
	@scripts/test-peers kubo
	$(PY) -m benchmarks.data_path --full
	$(PY) -m benchmarks.real_links

bench-store: setup ## the store beside plain LevelDB and one file per block
	$(PY) -m benchmarks.store

bench-content: setup ## containerd's content store over ipcs beside containerd's own (root)
	@scripts/test-peers readrate
	$(PY) -m benchmarks.content

bench-unixfs: setup ## importer, chunkers and exporter
	$(PY) -m benchmarks.unixfs

profile: setup  ## flame graph and cost per block by stage
	$(PY) -m benchmarks.profile

lock:           ## renew requirements.lock from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header -q -o requirements.lock

clean:          ## remove what the targets made
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
