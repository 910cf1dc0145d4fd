# `make help` lists the targets. PYTHON=python3.12 make … uses another Python.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MANAGE := $(BIN)/python manage.py
# It takes most of a minute; pip shows its progress on a terminal.
INSTALL = $(BIN)/python -m pip install $$([ -t 1 ] || echo --quiet) --disable-pip-version-check --no-warn-script-location

.PHONY: help migrate test admin check pictures bench django-suite lanes
.DEFAULT_GOAL := help

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

migrate: $(VENV)/ready ## Build the database, or bring it up to date, and verify it
	@$(MANAGE) migrate
	@$(MANAGE) dbstatus --release

test: $(VENV)/ready ## Run the tests except the slow ones, on a temporary server (PYTEST="-k name" passes options on)
	@$(BIN)/python -m pytest -q -n auto -m "not slow" $(PYTEST)

admin: $(VENV)/ready ## Add demo data and a staff account for each role, and serve the admin (ADDRESS=0.0.0.0:8080)
	@$(MANAGE) shell -v0 -c 'import sys; from django.conf import settings; sys.exit(None if settings.DEBUG \
		else "make admin adds demo data and serves for development, and a URL is set without DEBUG=true: nothing was done.")'
	@$(MANAGE) migrate --verbosity 0
	@$(MANAGE) dbseed --admin $(SEED)
	@# Without exec, a signal to make would end the shell and leave the server.
	@PYTHONUNBUFFERED=1 exec $(MANAGE) runserver $(ADDRESS)

check: $(VENV)/ready-dev ## Run all checks and tests: linters, types, migrations, deployment, the slow tests too
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@git ls-files '*.html' | xargs -r $(BIN)/djade --target-version 5.2 --check
	@git ls-files '*.html' | xargs -r $(BIN)/djhtml --check
	@$(MANAGE) makemigrations --check
	@env ENV_FILE= POSTGRES_URL= DATABASE_URL= $(BIN)/python -m tests.lint_migrations
	@env ENV_FILE= POSTGRES_URL= DATABASE_URL= $(MANAGE) dbcontract --check
	@env ENV_FILE= POSTGRES_URL=postgresql://nobody@localhost/nothing SECRET_KEY=$$($(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(50))') \
		ALLOWED_HOSTS=admin.example.com BACKUP_LOCATION=backups $(MANAGE) check --deploy --fail-level WARNING
	@$(BIN)/python -m pytest -q -n auto $(PYTEST)

pictures: $(VENV)/ready-dev ## Take the README's pictures again, from demo data (needs Chromium)
	@$(BIN)/python -m tests.browser.pictures

bench: $(VENV)/ready-dev ## Measure against a peer or a limit (BENCH=seed runs one)
	@$(BIN)/python -m benchmarks $(BENCH)

django-suite: $(VENV)/ready ## Run Django's own tests of a backend on fly2any.postgres (SUITE="--all --stock" runs all, and on Django's too)
	@$(BIN)/python -m lanes.django_suite $(SUITE)

lanes: $(VENV)/ready ## Run the tests on other versions of Python, Django and PostgreSQL, as far as they are installed (LANES=pg17 runs one)
	@$(BIN)/python -m lanes $(LANES)

$(VENV)/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or later is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1): PYTHON=python3.12 make …" >&2; exit 2; }
	@[ ! -L $(VENV) ] || { echo "$(VENV) is a link, and make would empty the folder that it names. Remove the link, then run make again." >&2; exit 2; }
	@rm -f $@ $@-dev
	@# Debian's python3 has no ensurepip without python3-venv; a pip outside can fill the environment too.
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } 2>/dev/null \
		|| { if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
			else echo "$(PYTHON) has neither ensurepip nor pip: apt-get install python3-venv (or your system's like), then run make again."; fi >&2; exit 2; }
	@$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/ready-dev: $(VENV)/ready requirements-dev.txt
	@$(INSTALL) -r requirements-dev.txt
	@touch $@
