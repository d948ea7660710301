# Every target does the set-up it needs, in .venv and build/; the second time there is nothing to
# do and no network is used.
#
#   make demo      asks a question about the bundled video
#   make eval-demo writes small benchmarks with known answers, and evaluates the bundled model on them
#   make test      ruff, mypy, pytest
#   make device-check  runs the native tests, the golden data and questions on the GPU that the build
#                  sees (or the CPU), and counts; GOLDEN="DIR ..." names more golden data
#   make parity    makes the model families' goldens anew with torch and transformers, in a .venv of
#                  their own, and compares them with tests/golden/families
#   make harness   drives lmms-eval, VLMEvalKit, inspect-ai and OpenAI's client against the server, in a
#                  .venv of their own, and writes benchmarks/harness.json
#   make           set-up alone: .venv, dependencies, patched llama.cpp, the package (editable)
#   make install   installs the package into the environment of PYTHON, for use outside of here
#
#   CMAKE_ARGS="-DGGML_CUDA=on" make        llama.cpp options; kept until other ones are given
#   RETAKE_LLAMA_CPP_SOURCE=DIR make        a local llama.cpp tree instead of the download; needs no
#                                           download at all where it is llama-cpp-python's
#                                           vendor/llama.cpp, whose bindings are then taken, too
#   PYTEST_ARGS="-m browser" make unit      other tests: -m browser needs Chromium, -m gpu a GPU
#   PARITY_PIP="OPTIONS" make parity        pip's options that tell where torch's CPU builds for Linux
#                                           are; PARITY_TORCH=torch==2.13.0 where all builds are such
#   PYTHON=python3.12 make                  the interpreter of .venv, and of make install

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DONE := $(VENV)/done

DEMO_VIDEO ?= models/tiny/demo.mp4
DEMO_QUESTION ?= What number is on the red card?
DEMO_ARGS ?= --model tiny --keep-ratio 0.25

PARITY := .venv-parity
# The local version keeps pip from taking a build for CUDA, which is gigabytes.
PARITY_TORCH ?= torch==2.13.0+cpu
PARITY_TORCHVISION ?= torchvision==0.28.0
PARITY_PIP ?=
PARITY_FAMILIES ?=

HARNESS := .venv-harness
HARNESS_TORCH ?= $(PARITY_TORCH)

# Needed by pip and CMake in every step below.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP_INSTALL := $(BIN)/python -m pip install --quiet
NATIVE_INPUTS := CMakeLists.txt scripts/fetch_llama_cpp.py scripts/apply_patches.py \
    scripts/take_bindings.py $(wildcard cpp_patches/*) $(wildcard cpp_patches/src/*)

.PHONY: build demo eval-demo test lint unit device-check parity harness install clean FORCE
.DELETE_ON_ERROR:

build: $(DONE)/package

demo: build
	$(BIN)/retake-edge ask $(DEMO_ARGS) "$(DEMO_VIDEO)" "$(DEMO_QUESTION)"
	@printf '%s\n' '' 'Next, for your own videos:' \
	    '  export PATH="$(CURDIR)/$(BIN):$$PATH"' \
	    '  retake-edge doctor' \
	    '  retake-edge pull qwen2.5-vl-3b'

eval-demo: build
	for set in videomme mlvu lvbench longvideobench; do \
	    $(BIN)/retake-edge scene --as $$set build/eval-demo/$$set --seconds 32 --videos 3 && \
	    $(BIN)/retake-edge eval $$set --data build/eval-demo/$$set --model tiny --preset plain \
	        --policy none --out build/eval-demo/$$set.json || exit; \
	done

test: lint unit

lint: build
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m mypy

device-check: build
	$(BIN)/python scripts/device_check.py $(GOLDEN)

unit: build
	$(BIN)/python -m pytest $(PYTEST_ARGS)

parity: $(PARITY)/done $(DONE)/build-tools
	[ -n "$$RETAKE_LLAMA_CPP_SOURCE" ] || $(BIN)/python scripts/fetch_llama_cpp.py build/downloads
	PYTHONPATH=scripts:. $(PARITY)/bin/python -m parity check $(PARITY_FAMILIES) \
	    --out tests/golden/families

harness: build $(HARNESS)/done
	PYTHONPATH=scripts $(BIN)/python -m harness

install:
	$(PYTHON) -m pip install .

clean:
	rm -rf $(VENV) $(PARITY) $(HARNESS) build retake_edge/lib retake_edge/_bindings

# --- set-up, step by step ---------------------------------------------------------------------

$(DONE)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "error: $(PYTHON) is missing or older than Python 3.10; name another: make PYTHON=..." >&2; \
	    exit 1; }
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(@D) && touch $@

# scikit-build-core (as in pyproject.toml) says which of cmake and ninja are missing here, and pip
# brings those.
$(DONE)/build-tools: $(DONE)/venv
	$(PIP_INSTALL) 'scikit-build-core>=0.11'
	tools=$$($(BIN)/python -c 'from scikit_build_core.build import get_requires_for_build_editable \
	    as requires; print(*requires())') && { [ -z "$$tools" ] || $(PIP_INSTALL) $$tools; }
	@touch $@

# torchvision without its dependencies, since those would bring another torch.
$(PARITY)/done: scripts/parity/requirements.txt
	$(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install --quiet $(PARITY_PIP) '$(PARITY_TORCH)' -r $<
	$(PARITY)/bin/python -m pip install --quiet $(PARITY_PIP) --no-deps '$(PARITY_TORCHVISION)'
	@touch $@

# VLMEvalKit is on the package index as ms-vlmeval, with metrics and models that its client does not
# need; what that needs of them is in the requirements. lmms-eval patches a module that later releases
# of filelock do not have.
$(HARNESS)/done: scripts/harness/requirements.txt
	$(PYTHON) -m venv $(HARNESS)
	$(HARNESS)/bin/python -m pip install --quiet $(PARITY_PIP) '$(HARNESS_TORCH)' -r $<
	$(HARNESS)/bin/python -m pip install --quiet --no-deps \
	    ms-vlmeval==0.0.20 filelock==3.20.4
	@touch $@

# The options of the last build. CMAKE_ARGS left out means the same as before; other options start
# from empty folders, since CMake would remember the old ones.
$(DONE)/options: FORCE | $(DONE)/venv
	@args="$${CMAKE_ARGS:-$$(sed -n 's/^CMAKE_ARGS=//p' $@ 2>/dev/null)}"; \
	options=$$(printf 'CMAKE_ARGS=%s\nRETAKE_LLAMA_CPP_SOURCE=%s\n' \
	    "$$args" "$$RETAKE_LLAMA_CPP_SOURCE"); \
	[ "$$options" = "$$(cat $@ 2>/dev/null)" ] || { \
	    rm -rf build/editable retake_edge/lib retake_edge/_bindings && \
	    printf '%s\n' "$$options" > $@; }

# The build runs in .venv itself, so that CMake finds the same tools at the same paths every time and
# compiles only what changed (an isolated build gets new paths each time).
# The package in editable form: Python changes need no build, and what is built goes to
# retake_edge/lib and retake_edge/_bindings. A local llama.cpp tree may have changed, so it is looked
# at every time.
$(DONE)/package: $(DONE)/build-tools $(DONE)/options $(NATIVE_INPUTS) pyproject.toml \
    $(if $(RETAKE_LLAMA_CPP_SOURCE),FORCE)
	@echo "Building the patched llama.cpp: some minutes the first time, then only what changed."
	CMAKE_ARGS="$$(sed -n 's/^CMAKE_ARGS=//p' $(DONE)/options)" \
	    $(BIN)/python scripts/show_percentage.py $(BIN)/python -m pip install --verbose \
	    --no-build-isolation --editable '.[dev,serve]'
	@touch $@
