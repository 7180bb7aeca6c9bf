# On a new machine with Python 3.11 or later, git and make, `make demo` and `make test` are all there is
# to do: they install what is missing, or say what to install. CONTRIBUTING.md has the rest.

PYTHON_IN_VENV = .venv/bin/python
# In the order of the files: the longest tests are in files with few tests, which would otherwise come last.
IN_PARALLEL = -n 4 --dist loadscope --no-loadscope-reorder
# What needs no engine, and no minutes; `quick` leaves out what needs a PostgreSQL or an S3 server, too.
QUICK = tests/accounts tests/contracts tests/corndogs tests/domain tests/jobs tests/lib tests/logs tests/objects \
	tests/store tests/web tests/workflows tests/docs/test_reference.py tests/test_job_fields.py tests/test_settings.py
# What images of the tests are made of, where none is named.
BUSYBOX = $(if $(REACTORCIDE_TEST_IMAGE),,busybox)
TEST_TOOLS = git ssh sshd $(BUSYBOX) postgresql podman nginx caddy go chromium
# Further arguments for pytest or the benchmarks: make test ARGS='-k cancel'
ARGS =

.DEFAULT_GOAL = help
# Two at once would install into the same .venv.
.NOTPARALLEL:
.PHONY: help demo tools quick test test-oldest test-deploy coverage lint bench screenshots soak onefile clean engine stop-engine

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: engine ## run a job on a real container, and see its log and its result
	@image=$$(scripts/ensure-image) && .venv/bin/reactorcide demo --image "$$image"

tools: ## install the programs that the tests need, where they are missing
	@scripts/ensure-tool dockerd $(TEST_TOOLS)

quick: .venv/ready-dev ## run the tests that need no engine and no other server: the inner loop
	$(PYTHON_IN_VENV) -m pytest -m 'not slow' -k 'not postgresql and not s3' -n 2 --dist loadscope $(QUICK) $(ARGS)

test: .venv/ready-dev engine ## run the tests, against a real Docker Engine
	@scripts/ensure-tool $(TEST_TOOLS)
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PYTHON_IN_VENV) -m pytest --ignore tests/soak $(IN_PARALLEL) $(ARGS)

test-oldest: .venv/ready-dev engine ## run the tests of the server on the oldest gunicorn that is allowed
	@scripts/ensure-tool $(BUSYBOX)
	@scripts/test-oldest $(IN_PARALLEL) $(ARGS)

coverage: .venv/ready-dev ## run the tests of `quick`, and show how much of the code each folder's tests run
	$(PYTHON_IN_VENV) -m coverage run -m pytest -m 'not slow' $(QUICK) $(ARGS)
	$(PYTHON_IN_VENV) -m coverage report

lint: .venv/ready-dev ## check style, types and the layers of the code
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: .venv/ready-dev engine ## measure against plain Docker: a table of figures and their targets
	@scripts/ensure-tool docker chromium postgresql
	@image=$$(scripts/ensure-image) && $(PYTHON_IN_VENV) -m benchmarks --image "$$image" $(ARGS)

screenshots: .venv/ready-dev engine ## write a picture of each page to docs/screenshots
	@scripts/ensure-tool git chromium $(BUSYBOX)
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PYTHON_IN_VENV) -m tests.browser.screenshots docs/screenshots

soak: .venv/ready-dev engine ## run the tests in tests/soak, which take an hour or two; ARGS=-s shows their figures
	@scripts/ensure-tool $(BUSYBOX) postgresql go versitygw
	PATH="$(CURDIR)/.cache/bin:$$PATH" $(PYTHON_IN_VENV) -m pytest tests/soak --ignore tests/soak/deploy --timeout 0 $(ARGS)

test-deploy: .venv/ready-dev engine ## try the image, its Compose file, pipx and the one-file executable; needs root and Debian
	@scripts/ensure-tool git $(BUSYBOX) docker debootstrap compose pipx
	$(PYTHON_IN_VENV) -m pytest tests/soak/deploy --timeout 1800 $(ARGS)

onefile: .venv/ready ## make dist/reactorcide, one file that runs on Linux without Python
	@scripts/make-onefile

clean: ## remove everything that was made here, but not a running dockerd
	rm -rf .venv .venv-oldest .venv-onefile .coverage build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

engine: .venv/ready ## make sure that a Docker Engine answers
	@scripts/ensure-engine

stop-engine: ## stop the dockerd that was started here, if one was
	@scripts/stop-engine

.venv/ready: setup.cfg pyproject.toml
	@scripts/ensure-venv

.venv/ready-dev: setup.cfg pyproject.toml
	@scripts/ensure-venv dev
