# make score VIDEO=path: the first score from a fresh clone.   make test: the tests.
PYTHON ?= python3
VIDEO ?= tests/data/flower.mp4
STAMP := .venv/installed

.PHONY: score test lint
.DELETE_ON_ERROR:

score: $(STAMP)
	.venv/bin/lmmvqa score "$(VIDEO)"

test: $(STAMP)
	.venv/bin/python -m pytest

lint: $(STAMP)
	.venv/bin/ruff check .

$(STAMP): setup.py
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --editable ".[dev]"
	touch $@
