# make quickstart | test | test-slow | test-kill | test-fuzz | test-guards | test-soak | lint | clean
#   VENV      virtual environment to use or to make (default .venv); one that has everything is left as it is
#   PYTHON    interpreter that makes it (default python3)
#   WORKERS   processes among which the tests are shared (default 2)
#   PIP_ARGS  extra arguments for pip; for CPU builds: PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
VENV ?= .venv
PYTHON ?= python3
WORKERS ?= 2
PIP_ARGS ?=
RUN := runs/quickstart

python := $(abspath $(VENV))/bin/python
core := torch torchvision numpy PIL cv2 omegaconf yaml safetensors tqdm
checks := pytest pytest_timeout xdist hypothesis ruff mypy cityscapesscripts onnx onnxscript onnxruntime openvino

# has(modules): whether the environment finds them all, without importing any
has = $(python) -c 'import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))' $(1) 2>/dev/null

.PHONY: quickstart test test-slow test-kill test-fuzz test-guards test-soak lint clean
.DELETE_ON_ERROR:

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.fastseg-core: pyproject.toml | $(VENV)/bin/python
	$(call has,$(core)) || $(python) -m pip install $(PIP_ARGS) -e .
	touch $@

$(VENV)/.fastseg-test: pyproject.toml | $(VENV)/bin/python
	$(call has,$(core) $(checks)) || $(python) -m pip install $(PIP_ARGS) -e '.[test]'
	touch $@

# the kernels in C, again when their source has changed; fastseg runs without them, too
$(VENV)/.fastseg-native: setup.py $(wildcard fastseg/csrc/*) | $(VENV)/.fastseg-core
	newest=$$(ls -t setup.py fastseg/csrc/* | head -n 1); \
	[ -n "$$(find fastseg -maxdepth 1 -name '_native.*' -newer $$newest)" ] \
		|| $(python) -m pip install $(PIP_ARGS) --no-deps -e . \
		|| echo "the kernels in C were not built: fastseg runs without them, more slowly"
	touch $@

quickstart: $(VENV)/.fastseg-core $(VENV)/.fastseg-native
	PYTHON=$(python) RUN=$(RUN) bash tools/quickstart.sh

test: $(VENV)/.fastseg-test $(VENV)/.fastseg-native
	$(python) -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

test-slow: $(VENV)/.fastseg-test $(VENV)/.fastseg-native
	$(python) -m pytest -m "slow and not kill and not fuzz and not guards and not soak"

test-kill test-fuzz test-guards test-soak: test-%: $(VENV)/.fastseg-test $(VENV)/.fastseg-native
	$(python) -m pytest -s -m $*

lint: $(VENV)/.fastseg-test
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find fastseg tests -name __pycache__ -type d -prune -exec rm -rf {} +
