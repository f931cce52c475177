# GNU make 3.81, which macOS ships, and a POSIX shell are enough for everything in here.

HOST ?= 127.0.0.1
PORT ?= 7860
MODEL ?= saved_models/commands-8
PYTEST_ARGS ?=
# `make test SYSTEM_PACKAGES=no` leaves the machine's package manager alone.
SYSTEM_PACKAGES ?= yes
# `make app PYTHON=/path/to/python` chooses the interpreter; else the first usable one is taken.
PYTHON ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# A name on the PATH proves nothing (a pyenv shim may stand for a version that is not installed), so each is run.
usable := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
find_python = for p in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	if "$$p" -c '$(usable)' >/dev/null 2>&1; then echo "$$p"; break; fi; done

# How to become root without a question: "env", "sudo -n env", or nothing when there is no way.
find_root = if [ '$(SYSTEM_PACKAGES)' != yes ]; then :; elif [ "$$(id -u)" = 0 ]; then echo env; \
	elif sudo -n true 2>/dev/null; then echo sudo -n env; fi
apt_install = DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends

# What some tests want of the machine. Homebrew: sounddevice brings its own PortAudio there.
DEBIAN_PACKAGES := libportaudio2 libasound2-plugins pulseaudio pulseaudio-utils chromium espeak-ng ffmpeg gcc libc6-dev
BREW_FORMULAE := espeak-ng ffmpeg
PROGRAMS := pulseaudio chromium espeak-ng ffmpeg cc

.NOTPARALLEL:
.PHONY: help app test campaign lint docs wheel constraints system clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

app: $(VENV)/.installed-app ## Start the browser app (HOST=, PORT=, MODEL=)
	$(BIN)/python app.py --host '$(HOST)' --port '$(PORT)' --model '$(MODEL)'

# Two at a time, but what listens or plays in real time gets the machine for itself.
test: system lint ## Run every check: ruff, mypy, pytest (PYTEST_ARGS=)
ifeq ($(PYTEST_ARGS),)
	@failed=0; set -x; \
	$(BIN)/python -m pytest -m 'not campaign and not browser and not sound' -n 2 --dist loadfile || failed=1; \
	$(BIN)/python -m pytest -m '(browser or sound) and not campaign' || failed=1; \
	{ set +x; } 2>/dev/null; exit $$failed
else
	$(BIN)/python -m pytest $(PYTEST_ARGS)
endif

campaign: $(VENV)/.installed-test ## Run the stress tests, an hour or more; results go to docs/campaigns.json
	$(BIN)/python -m pytest -m campaign tests/security tests/e2e $(PYTEST_ARGS)

lint: $(VENV)/.installed-test ## Run ruff and mypy
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

docs: $(VENV)/.installed-test ## Build the site with the API reference, in build/site
	$(BIN)/python -m mkdocs build --strict --quiet

wheel: $(VENV)/.installed-test ## Build wheel and source distribution, in dist
	$(BIN)/python -m hatchling build

constraints: $(VENV)/.created ## Resolve constraints.txt anew from pyproject.toml
	@tmp=$$(mktemp -d) && trap 'rm -rf "$$tmp"' EXIT && \
	$(BIN)/python -m venv "$$tmp" && "$$tmp/bin/python" -m pip --disable-pip-version-check -q install 'uv>=0.5,<1' && \
	"$$tmp/bin/python" -m uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--fork-strategy fewest --no-annotate --custom-compile-command 'make constraints' \
		--extra train --extra export --extra app --extra mic --extra wyoming --extra cluster --extra docs --extra dev --output-file constraints.txt pyproject.toml && \
	echo 'constraints.txt is resolved anew.'

clean: ## Delete the environment, builds and caches (keeps data, runs and models)
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@python=$$($(find_python)); \
	if [ -z "$$python" ] && [ -z '$(PYTHON)' ] && command -v apt-get >/dev/null; then \
		root=$$($(find_root)); \
		if [ -n "$$root" ]; then \
			echo 'Installing python3-venv'; \
			$$root apt-get -qq update && $$root $(apt_install) python3 python3-venv >/dev/null || :; \
			python=$$($(find_python)); \
		fi; \
	fi; \
	if [ -z "$$python" ]; then \
		echo 'No usable Python: 3.11, 3.12 or 3.13 with its venv module is needed.' >&2; \
		echo 'Debian: apt-get install python3 python3-venv    macOS: brew install python@3.13' >&2; \
		echo 'Another one: make PYTHON=/path/to/python ...' >&2; \
		exit 1; \
	fi; \
	echo "Creating $(VENV) with $$python"; \
	"$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.installed-app: $(VENV)/.created pyproject.toml constraints.txt
	@echo 'Installing into $(VENV) (about 500 MB the first time, half a minute)'
	$(PIP) install --quiet -c constraints.txt -e '.[app]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created pyproject.toml constraints.txt
	@echo 'Installing into $(VENV) (about 2 GB the first time, a minute or two)'
	$(PIP) install --quiet -c constraints.txt -e '.[train,export,app,mic,wyoming,cluster,docs,dev]'
	@touch $(VENV)/.installed-app $@

# Never fails: a test that lacks its program is skipped, and what is lacking is said here.
system:
	@add() { :; }; \
	if command -v dpkg-query >/dev/null; then \
		wanted='$(DEBIAN_PACKAGES)'; \
		have() { dpkg-query -W -f='$${Status}' "$$1" 2>/dev/null | grep -q 'ok installed'; }; \
		root=$$($(find_root)); \
		if [ -n "$$root" ]; then \
			add() { \
				echo "Installing for the tests: $$*"; \
				$$root apt-get -qq update; \
				for p in "$$@"; do $$root $(apt_install) "$$p" >/dev/null; done; \
			}; \
		fi; \
	elif command -v brew >/dev/null; then \
		wanted='$(BREW_FORMULAE)'; \
		have() { brew list --formula "$$1" >/dev/null 2>&1; }; \
		if [ '$(SYSTEM_PACKAGES)' = yes ]; then \
			add() { echo "Installing for the tests: $$*"; brew install --quiet "$$@"; }; \
		fi; \
	else \
		wanted='$(PROGRAMS)'; \
		have() { command -v "$$1" >/dev/null; }; \
	fi; \
	lacking() { for p in $$wanted; do have "$$p" || echo "$$p"; done; }; \
	missing=$$(lacking); \
	if [ -n "$$missing" ]; then add $$missing || :; fi; \
	for p in $$(lacking); do \
		case $$p in \
			chromium) tests='tests in a browser' ;; \
			espeak-ng) tests='tests with words that espeak-ng speaks' ;; \
			ffmpeg) tests='tests with files that ffmpeg makes' ;; \
			cc|gcc|libc6-dev) tests='the test of the example in C' ;; \
			*) tests='tests with a sound card' ;; \
		esac; \
		echo "Not installed: $$p. Skipped without it: $$tests."; \
	done
