# Nothing but Python (3.11 or newer) and pip is needed; every target sets up the environment first.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
COEF ?= -2 -1 0 1 2
# Models this small gain nothing from a second thread, and lose much where another process shares the core.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: sweep test check lint paper figures notebooks reference clean

## the main job: a steered sweep of both embedded tasks, with table and figure
sweep: $(READY)
	$(PY) -m steering.sweep --coef $(COEF)

## the tests, one process a core (four at most)
test: $(READY)
	$(PY) -m pytest --numprocesses auto --maxprocesses 4

## lint and types
lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

## the paper's experiments and the table of its claims, in runs/paper (RETRAIN=1: baselines trained anew, hours)
paper: $(READY)
	$(PY) -m analysis.paper $(if $(RETRAIN),--retrain)

## rebuild every figure of figures/gallery from the runs that ship with the lab, and of every sweep in runs/
figures: $(READY)
	$(PY) -m figures.build
	@for run in runs/sweep-*; do [ -f "$$run/DONE" ] || continue; \
	  $(PY) -m figures.dose "$$run" || exit 1; done

## whether figures/gallery and the numbers quoted in README and docs are what the shipped runs give
check: $(READY)
	$(PY) -m figures.build --check
	$(PY) -m figures.quoted --check

## execute the notebooks and write their outputs (about ten minutes)
notebooks: $(READY)
	$(PY) tests/notebooks/executed.py

## retrain every shipped reference, one after the other (hours on one core: the cards say minutes; gsm8k needs DATA=folder)
reference: $(READY)
	$(PY) -m corrector.reference $(if $(DATA),--data $(DATA))

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) build *.egg-info
