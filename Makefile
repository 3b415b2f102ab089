# make score VIDEO=path: the first score from a fresh clone.   make test: the tests.   make test-wheel: those against what is
# released.   make checkpoint CLIPS=folder RATED=folder: the default checkpoint from nothing.
PYTHON ?= python3
VIDEO ?= tests/data/flower.mp4
# What scoring needs, and what the tests need on top.
STAMP := .venv/installed
DEV_STAMP := .venv/installed-dev
# Much of a test's time is the start of a process. Neighbours stay together, for what they share is made once a worker.
SIDE_BY_SIDE := -n 2 --dist worksteal

.PHONY: score test test-wheel lint checkpoint graphs rehearsal
.DELETE_ON_ERROR:

score: $(STAMP)
	.venv/bin/lmmvqa score "$(VIDEO)"

test: $(DEV_STAMP)
	.venv/bin/python -m pytest $(SIDE_BY_SIDE)

# Wheel and sdist in dist/, then the tests that the sdist carries against the wheel, where this repository is not. All other
# packages are those of .venv. TESTS="tests/hub_cards" runs a part.
TESTS ?=
SITE := import sysconfig; print(sysconfig.get_path("purelib"))
test-wheel: $(DEV_STAMP)
	rm -rf build dist
	.venv/bin/python -m build --no-isolation
	set -e; place=$$(mktemp -d); trap 'rm -r "$$place"' EXIT; \
	.venv/bin/python -m venv "$$place/venv"; \
	"$$place/venv/bin/pip" install --quiet --no-deps dist/*.whl; \
	.venv/bin/python -c '$(SITE)' > "$$("$$place/venv/bin/python" -c '$(SITE)')/shared.pth"; \
	tar --extract --file dist/*.tar.gz --directory "$$place" --strip-components 1 --wildcards '*/tests' '*/pyproject.toml'; \
	cd "$$place"; env -u PYTHONPATH venv/bin/python -m pytest $(SIDE_BY_SIDE) $(TESTS)

# The paper's route from end to end, small but whole; the log says what was run, what came, and what was checked.
rehearsal: $(DEV_STAMP)
	.venv/bin/python tests/support/rehearsal.py runs/rehearsal

lint: $(DEV_STAMP)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

# The default checkpoint from nothing: about six hours on two cores. CLIPS is a folder with those of
# lmmvqa/checkpoints/default/sources.csv that no package registry carries, RATED that of BIQ2021. What is done already is not
# done again. BF16=1 is for processors that have AVX512-BF16 or AMX; what ships was trained with it.
BF16 ?=
RUN := runs/default_checkpoint
TOWER := train-tower $(RUN)/copies/ratings.csv --held-out-fold 1 --held-out-fold 0
RATINGS := rate-copies $(RUN)/copies/ratings.csv --rated "$(RATED)" --views $(RUN)/views/ratings.csv \
  --output $(RUN)/rated --feature-cache $(RUN)/features
PROJECTORS := train default_checkpoint data=rated_videos=$(RUN)/rated feature_cache=$(RUN)/features $(if $(BF16),bf16=true use_cpu=true)
checkpoint: $(DEV_STAMP)
	.venv/bin/lmmvqa fetch-sources $(RUN)/sources --clips "$(CLIPS)"
	.venv/bin/lmmvqa make-copies $(RUN)/sources --output $(RUN)/copies
	.venv/bin/lmmvqa make-views "$(RATED)" --output $(RUN)/views --count 500
	.venv/bin/lmmvqa make-spatial-tower lmmvqa/checkpoints/default/spatial_tower
	test -f $(RUN)/temporal/config.json || .venv/bin/lmmvqa $(TOWER) --output $(RUN)/temporal
	cd $(RUN)/temporal && cp config.json model.safetensors trainer_state.json "$(CURDIR)/lmmvqa/checkpoints/default/temporal_tower"
	test -f $(RUN)/rated/ratings.csv || .venv/bin/lmmvqa $(RATINGS)
	.venv/bin/lmmvqa $(PROJECTORS) output_dir=$(RUN)/adapter
	test -f $(RUN)/merged/processor_config.json || .venv/bin/lmmvqa merge $(RUN)/adapter $(RUN)/merged
	.venv/bin/lmmvqa calibrate $(RUN)/merged --data rated_videos=$(RUN)/rated \
	  --feature-cache $(RUN)/features > lmmvqa/checkpoints/default/calibration.json
	cp $(RUN)/adapter/adapter_model.safetensors $(RUN)/adapter/trainer_state.json $(RUN)/adapter/training_record.json lmmvqa/checkpoints/default/adapter
	sed 's/\("base_model_name_or_path": \)"default"/\1null/' $(RUN)/adapter/adapter_config.json > lmmvqa/checkpoints/default/adapter/adapter_config.json
	$(MAKE) graphs
	.venv/bin/lmmvqa verify --write

# The default checkpoint's graphs, without weights: after a change of its architecture or of what it is asked.
graphs: $(DEV_STAMP)
	rm -rf lmmvqa/checkpoints/default/graphs
	.venv/bin/lmmvqa export default lmmvqa/checkpoints/default/graphs --without-weights

$(STAMP): setup.py
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --editable .
	touch $@

$(DEV_STAMP): $(STAMP)
	.venv/bin/python -m pip install --quiet --editable ".[dev]"
	touch $@
