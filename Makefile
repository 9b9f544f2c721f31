# What the README names: make demo, make test, make test-all, make docs. Everything else is a step of those.
PYTHON ?= python3
# cuda where the machine has an NVIDIA GPU, else cpu; `make venv DEVICE=cpu` overrides.
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
# Further arguments for pip, such as an index that has the CPU build of torch: `make venv PIP_ARGS="--index-url ..."`.
PIP_ARGS ?=
LOCK := requirements/$(DEVICE).txt
STAMP := .venv/.installed-$(DEVICE)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: venv demo test test-all lint docs doctor clean

venv: $(STAMP)

$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than Python 3.11; name a newer one with PYTHON=..." >&2; exit 2; }
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv || \
	  { echo "make: $(PYTHON) cannot make a venv; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	@echo "Installing into .venv from $(LOCK) (a few minutes the first time)"
	@# torch with its dependencies first, at the lock's versions: its CUDA build brings packages of NVIDIA's that the CPU build does not.
	@.venv/bin/pip install -q $(PIP_ARGS) -c $(LOCK) "$$(grep '^torch==' $(LOCK))" 2>&1 | { grep -v 'is ignored: it is neither' || true; }
	@.venv/bin/pip install -q $(PIP_ARGS) --no-deps -r $(LOCK) 2>&1 | { grep -v 'is ignored: it is neither' || true; }
	@.venv/bin/pip install -q $(PIP_ARGS) --no-deps --no-build-isolation -e .
	@.venv/bin/python -c 'import torchrec' 2>/dev/null || { .venv/bin/python tools/doctor.py; exit 2; }
	@touch $@

doctor: venv
	@.venv/bin/python tools/doctor.py

demo: venv
	@.venv/bin/python tools/demo.py

# Three processes of about the same length, what mostly waits in the third; the output of the first and third is shown at the end.
FIRST := $(wildcard tests/distributed/test_accept.py tests/distributed/test_online*.py tests/endtoend/test_identity.py tests/endtoend/test_values.py)
THIRD := $(wildcard $(patsubst %,tests/endtoend/test_%.py,guide kill_and_resume netns ray slurm))
define TESTS
@said=$$(mktemp -d) && echo "beside the others, into $$said: tests/unit $(FIRST) $(THIRD)"; \
  .venv/bin/python -m pytest -m $(1) tests/unit --ignore=tests/unit/data $(FIRST) >"$$said/first" 2>&1 & first=$$!; \
  .venv/bin/python -m pytest -m $(1) tests/unit/data $(THIRD) >"$$said/third" 2>&1 & third=$$!; \
  trap 'kill $$first $$third; exit 130' INT TERM; code=0; \
  .venv/bin/python -m pytest -m $(1) tests/distributed tests/endtoend $(patsubst %,--deselect=%,$(FIRST) $(THIRD)) || code=$$?; \
  wait $$first || code=$$?; wait $$third || code=$$?; cat "$$said"/*; rm -r "$$said"; exit $$code
endef

test: venv
	$(call TESTS,"not slow and not gpu")

test-all: venv lint
	$(call TESTS,"not gpu")

lint: venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# The documentation as a site, into ./site: look at it with `python3 -m http.server --directory site`.
docs: venv
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet && echo "site/index.html: built"

clean:
	rm -rf .venv .demo site
