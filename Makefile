# make demo   installs into .venv, fuses an epilogue into fixtures/matmul.py, shows the diff and verifies it
# make test   the whole test suite, on Triton 3.7.1; lowering, proof and golden tests on 3.5.1 and 3.9.0 too
# make test-long the tests that `make test` leaves out for their time: random kernels and compositions, every second row of the longest tables, the commands of three pages of docs, a small run of the GPU benchmark, the ops and the pages of diagnostics on Triton 3.5.1 and 3.9.0 (minutes)
# make faults wrong rewrites of every fixture, all of which must be rejected (minutes)
# make fuzz   random kernels, run with traced memory as a second judge of the proof (an hour)
# make bench-gpu  the fused kernels against the unfused pairs, on this machine's GPU (minutes)
# make mutants damaged kernel files through fuse and inspect (minutes; results under benchmarks/results)
# make corpus the Triton kernels of nine public packages, downloaded and fused (minutes; results under benchmarks/results)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OTHER_TRITONS := 3.5.1 3.9.0

.PHONY: demo test test-long test-fast test-other-tritons test-gpu bench-gpu corpus latency faults fuzz mutants lint clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch triton numpy
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[verify,test]'
	touch $@

.triton/%/.installed: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .triton/$* triton==$*
	touch $@

demo: $(VENV)/.installed
	$(BIN)/kernel-rewrite fuse fixtures/matmul.py --epilogue relu --force
	diff -u fixtures/matmul.py fixtures/matmul_relu.py || true
	$(BIN)/kernel-rewrite verify fixtures/matmul_relu.py --call "matmul(randn(96, 64), randn(64, 80))"

test: $(VENV)/.installed test-other-tritons
	$(BIN)/python -m pytest -n 2 -q -m "not long"

test-long: $(VENV)/.installed $(OTHER_TRITONS:%=.triton/%/.installed)
	$(BIN)/python -m pytest -n 2 -q -m long
	for version in $(OTHER_TRITONS); do \
	  echo "== Triton $$version"; \
	  PYTHONPATH=.triton/$$version $(BIN)/python -m pytest -n 2 -q -m "not long and not slow" tests/pointwise tests/test_explanations.py || exit 1; \
	done

test-fast: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 -q -m "not slow and not long"

test-other-tritons: $(OTHER_TRITONS:%=.triton/%/.installed)
	for version in $(OTHER_TRITONS); do \
	  echo "== Triton $$version"; \
	  PYTHONPATH=.triton/$$version $(BIN)/python -m pytest -n 2 -q -m "not long and not slow" tests/ttir tests/test_fixtures.py || exit 1; \
	done

test-gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m gpu

bench-gpu: $(VENV)/.installed
	$(BIN)/python benchmarks/gpu.py

corpus: $(VENV)/.installed
	$(BIN)/python benchmarks/corpus.py

latency: $(VENV)/.installed
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/check_latency.py

faults: $(VENV)/.installed
	$(BIN)/python tests/faults/run.py --all-ops

fuzz: $(VENV)/.installed
	$(BIN)/python tests/fuzz/run.py --count 2000 --jobs 2

mutants: $(VENV)/.installed
	$(BIN)/python tests/mutants/run.py --count 2000 --jobs 2

lint: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check mypy ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

clean:
	rm -rf $(VENV) .triton .corpus build dist *.egg-info
