# make setup | demo | test | check | fmt | bench | bench-gpu | train-nano | docs | clean
#
# VENV    the virtual environment                  make test VENV=/tmp/venv
# PYTHON  the interpreter that creates it          make setup PYTHON=python3.12
# TORCH   what to give `pip install` for torch     make setup TORCH="torch==2.13.0"
# ARGS    more arguments for pytest                make test ARGS="tests/imaging -x"
# DATA    the case list that nano is trained on    make train-nano DATA=scans/manifest.json

VENV ?= .venv
PYTHON ?= python3
TORCH ?= torch==2.13.0
ARGS ?=
DATA ?=

SHELL := bash
.DELETE_ON_ERROR:

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install
DEV_STAMP := $(VENV)/.textseg-dev
DEMO_STAMP := $(VENV)/.textseg-demo
# One line per package instead of pip's ten.
BRIEFLY := awk '/^(Collecting|Processing|Obtaining)/ { print "  " $$2; fflush() }'

DEMO_SCAN := demo/mni152.nii.gz
DEMO_PROMPTS := "left hippocampus" "right hippocampus" thalamus "lateral ventricles" brainstem \
	cerebellum

.PHONY: setup demo test check fmt bench bench-gpu train-nano docs clean

setup: $(DEV_STAMP)

# Installs again only when pyproject.toml changes.
$(DEV_STAMP): pyproject.toml
	@set -eo pipefail; $(call install,dev)
	@touch $(DEMO_STAMP) $@

$(DEMO_STAMP): pyproject.toml
	@set -eo pipefail; $(call install,demo)
	@touch $@

define install
$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("textseg needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11 $(MAKECMDGOALS)")'; \
echo "Setting up $(VENV) for textseg[$(1)]; the first time this downloads PyTorch."; \
test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); \
$(BIN)/python -c 'import torch' 2>/dev/null || $(PIP) $(TORCH); \
$(PIP) -e ".[$(1)]" | $(BRIEFLY); \
echo "$(VENV) is ready."
endef

# Real MR that comes with a package: the MNI152 T1 template of nilearn.
demo: $(DEMO_SCAN)
	$(BIN)/textseg predict $(DEMO_SCAN) $(DEMO_PROMPTS) -o demo/masks --preview --overwrite
	@echo "Masks in demo/masks, picture in demo/masks/preview.png"

$(DEMO_SCAN): | $(DEMO_STAMP)
	@mkdir -p $(@D)
	@echo "Writing $@"
	@$(BIN)/python -c 'from nilearn.datasets import load_mni152_template as template; \
		template(resolution=1).to_filename("$(@D)/partial.nii.gz")'
	@mv $(@D)/partial.nii.gz $@

# Two workers, as most tests keep one processor busy; a file stays whole for what its tests share.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# Every check runs even if an earlier one fails, so that one run shows all there is to mend.
check: setup
	@failed=; run() { echo "+ $$*"; "$$@" || failed=yes; }; \
	run $(BIN)/ruff check .; \
	run $(BIN)/ruff format --check .; \
	run $(BIN)/mypy; \
	run $(BIN)/lint-imports; \
	run $(BIN)/python -c 'import sys; from textseg.knowledge import validate_tree; \
		sys.exit("\n".join(map(str, validate_tree())) or 0)'; \
	test -z "$$failed"

fmt: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m pytest tests/bench -m bench -s $(ARGS)

# Needs a CUDA device; appends to tests/bench/results/gpu_kernels.csv.
bench-gpu: setup
	$(BIN)/python -m pytest tests/kernels -m gpu
	$(BIN)/python -m tests.bench.gpu_kernels

# Trains, exports and scores; a run that was stopped goes on. See docs/training.md.
train-nano: NANO := runs/nano
train-nano: OF := -c configs/train/nano.yaml
train-nano: setup
	@test -f "$(DATA)" || { echo 'Say which case list: make train-nano DATA=PATH/manifest.json'; exit 2; }
	$(BIN)/textseg fit $(OF) --data.cases=$(DATA) $(if $(wildcard $(NANO)/last.ckpt),--resume $(NANO))
	$(BIN)/textseg export $(NANO)/last.ckpt $(OF) --cases=$(DATA) -o $(NANO)/model --licence CC-BY-SA-4.0 --overwrite
	$(BIN)/textseg card $(NANO)/model $(OF) --cases=$(DATA)

# Rewrites what is generated: the command reference and the outputs stored in notebooks.
docs: setup
	$(BIN)/python tests/documents.py

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
