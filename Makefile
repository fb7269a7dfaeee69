# The environment, created on first use. To use an existing one: make ... VENV=/path/to/env
VENV ?= .venv
# The Python for creating it: the newest supported one with venv and ensurepip.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3.10 python3; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && \
	echo "$$python" && exit; done)
RUN = "$(VENV)/bin/python"

# Folder of the benchmark sets: Set5/HR/*.png and so on.
BENCHMARKS ?= data/benchmarks
# Fraction of the work of test-faults.
FAULTS_SHARE ?= 1
# Additional files of requirements/ for single targets.
WITH =

.PHONY: help env pins demo test test-browser test-faults test-nodes fuzz lint docs bench bench-data paper-check paper-check-slow check-wheel sanitize clean

help: ## show this list (the default)
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile
	@echo "Variables: VENV (default .venv), PYTHON (for creating it), BENCHMARKS (default data/benchmarks), FAULTS_SHARE (default 1), ARGS (for test and the checks)"

env: ## create or update the environment
	@command -v "$(PYTHON)" >/dev/null || { echo "error: no Python 3.10 to 3.14 with the modules venv and ensurepip found" \
		"(on Debian and Ubuntu: apt install python3-venv): install one, or set PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" requirements/install.py "$(VENV)" $(WITH)

pins: env ## update requirements/constraints.txt; ARGS=--upgrade for the newest versions
	@$(RUN) -m uv pip compile --quiet --universal --python-version 3.10 --no-annotate --custom-compile-command "make pins" \
		$(filter-out %/frameworks.txt %/fuzz.txt %/constraints.txt,$(wildcard requirements/*.txt)) -o requirements/constraints.txt $(ARGS)

demo: env ## train a small PANet on sample photographs and restore held-out ones: see work_dirs/demo
	@$(RUN) tools/demo.py

test: env ## run the tests; e.g. ARGS="tests/ops -x"
	@$(RUN) -m pytest --numprocesses 3 --dist worksteal $(ARGS)

# pytest finds this file only if it is named, so `make test` does not run it.
test-browser: WITH = browser
test-browser: env ## test the page of tools/show_attention.py in Chromium; needs: apt-get install chromium chromium-driver
	@$(RUN) -m pytest tests/browser/attention_page.py $(ARGS)

test-faults: env ## test long runs, about 20 minutes: 10,000 images, 500 epochs, 20 resumes; FAULTS_SHARE=0.1 for a tenth
	@FAULTS_SHARE=$(FAULTS_SHARE) $(RUN) -m pytest tests/faults/long_runs.py tests/faults/ends.py -s $(ARGS)

test-nodes: env ## test training on two hosts (network namespaces), a few minutes; needs: Linux, iproute2 and root
	@PYTHON=$(RUN) $(RUN) -m pytest tests/nodes/two_nodes.py -s $(ARGS)

fuzz: WITH = fuzz
fuzz: env ## fuzz the readers of untrusted files for ten minutes, on Linux on x86-64; e.g. ARGS="image lmdb"
	@$(RUN) tests/fuzz/guided.py $(ARGS)

lint: env ## check style, formatting and types
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

docs: WITH = docs
docs: env ## build the documentation: site/index.html; warnings and broken links are errors
	@$(RUN) -m sphinx -q -E -W --keep-going -b html -d site/.doctrees docs site

bench: env ## measure the attention's speed and memory
	@$(RUN) tools/benchmark_attention.py $(ARGS)

bench-data: env ## compare data preparation with BasicSR's: ARGS="--images DIR"
	@$(RUN) tools/benchmark_data.py $(ARGS)

paper-check: env ## reproduce the published figures that need no trained network: docs/paper_check.md
	@$(RUN) tools/paper_check.py --data "$(BENCHMARKS)" $(ARGS)

paper-check-slow: WITH = bm3d
paper-check-slow: env ## the same with CBM3D, over half an hour; installs bm3d, whose license forbids commercial use
	@$(RUN) tools/paper_check.py --data "$(BENCHMARKS)" --bm3d $(ARGS)

WHEEL = work_dirs/wheel
check-wheel: env ## build a wheel and restore an image with it in an empty environment, with either build of OpenCV
	@rm -rf build dist $(WHEEL)
	@$(RUN) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@$(RUN) -m uv venv --quiet $(WHEEL)
	@$(RUN) -m uv pip install --quiet --python $(WHEEL)/bin/python "$$(echo dist/*.whl)[spandrel]"
	@cd $(WHEEL) && bin/panet restore ../../docs/coffeex2_58_10.png --task denoising --out restored
	@$(RUN) -m uv pip uninstall --quiet --python $(WHEEL)/bin/python opencv-python
	@$(RUN) -m uv pip install --quiet --python $(WHEEL)/bin/python opencv-python-headless
	@cd $(WHEEL) && bin/panet restore ../../docs/coffeex2_58_10.png --task denoising --out headless
	@cd $(WHEEL) && cmp restored/* headless/*
	@cd $(WHEEL) && bin/python -c "import panet_plugin.frameworks.spandrel as ours, spandrel; ours.install(); \
		from panet_plugin.weights import bundled; print(spandrel.ModelLoader().load_from_file(bundled('denoising', sigma=30)))"

sanitize: env ## run the C++ kernel under the address and undefined-behavior sanitizers
	@$(RUN) -m panet_plugin.ops.build --check

clean: ## remove caches, build products and the demo's results; the environment and data/ stay
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis work_dirs/demo docs/api site
	@find . -path ./.git -prune -o -path "./$(VENV)" -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
