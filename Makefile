# One environment, made when first needed and reused. To use one of your own: make ... VENV=/path/to/env
VENV ?= .venv
# The Python that makes it: the first of these that can.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.10 python3 "$(VENV)/bin/python"; do \
	"$$python" requirements/install.py --check >/dev/null 2>&1 && echo "$$python" && exit; done; echo python3)
RUN = "$(VENV)/bin/python"

# Folder of the benchmark sets: Set5/HR/*.png and so on.
BENCHMARKS ?= data/benchmarks
# Requirements that only one target has.
WITH =

.PHONY: help env demo test test-browser lint docs bench bench-data paper-check paper-check-slow check-wheel sanitize clean

help: ## show this list (the default)
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile
	@echo "Variables: VENV (default .venv), PYTHON (to make it with), BENCHMARKS (default data/benchmarks), ARGS (for test and the checks)"

env: ## make or update the environment
	@python="$(PYTHON)"; command -v "$$python" >/dev/null || \
		{ echo "error: '$$python' not found: install Python 3.11, or name one with PYTHON=/path/to/python" >&2; exit 1; }; \
	"$$python" requirements/install.py $(WITH) "$(VENV)"

demo: env ## train a small PANet on sample photographs and restore held-out ones: see work_dirs/demo
	@$(RUN) tools/demo.py

test: env ## run the tests; e.g. ARGS="tests/ops -x"
	@$(RUN) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

# A file that pytest finds only if it is named: `make test` has no part in it.
test-browser: WITH = --with browser
test-browser: env ## test the page of tools/show_attention.py in Chromium; needs: apt-get install chromium chromium-driver
	@$(RUN) -m pytest tests/browser/attention_page.py $(ARGS)

lint: env ## check style and formatting
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .

docs: WITH = --with docs
docs: env ## build the documentation: site/index.html; warnings and broken links are errors
	@$(RUN) -m sphinx -q -E -W --keep-going -b html -d site/.doctrees docs site

bench: env ## measure the attention's speed and memory
	@$(RUN) tools/benchmark_attention.py $(ARGS)

bench-data: env ## compare data preparation with BasicSR's: ARGS="--images DIR"
	@$(RUN) tools/benchmark_data.py $(ARGS)

paper-check: env ## measure the published figures that need no trained network; see docs/paper_check.md
	@$(RUN) tools/paper_check.py --root "$(BENCHMARKS)" $(ARGS)

paper-check-slow: env ## the same and CBM3D, half an hour and more; needs: pip install -c requirements/constraints.txt bm3d
	@$(RUN) tools/paper_check.py --root "$(BENCHMARKS)" --bm3d $(ARGS)

check-wheel: env ## build a wheel, install it into an empty environment and restore a picture there
	@rm -rf build dist work_dirs/wheel
	@$(RUN) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@$(RUN) -m venv work_dirs/wheel
	@work_dirs/wheel/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	@cd work_dirs/wheel && bin/panet restore ../../docs/coffeex2_58_10.png --task denoising

sanitize: env ## run the C++ kernel under the address and undefined-behaviour sanitizers
	@$(RUN) -m panet_plugin.ops.build --check

clean: ## remove caches, build products and the demo's results; the environment and data/ stay
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis work_dirs/demo docs/api site
	@find . -path ./.git -prune -o -path "./$(VENV)" -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
