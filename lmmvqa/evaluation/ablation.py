"""Ablations as a grid (the paper's Tables VII and VIII): each row trains, is evaluated, and keeps its figures.

A grid is a YAML file:

    recipe: default_checkpoint          # of `lmmvqa train`
    settings: {num_train_epochs: 2}     # of all rows
    data: rated_videos=copies           # as `lmmvqa evaluate --data`
    protocol: in-sample
    tables:
      temporal tokens:
        without: {config: {num_temporal_tokens: 0}}
        "1": {}
      data:
        25 %: {settings: {data_fraction: 0.25}}

`config` holds fields of the model's configuration that differ from the base's, `settings` those of the training,
`model` another checkpoint to start from. The base is the default checkpoint's parts with fresh projectors; with
`compose`, of the grid or of a row, it is put together as `lmmvqa compose` does, the paper's parts where none is named:

    compose: {vision_tower: ID, decoder: ID, temporal_tower: none, dtype: bfloat16, video_processor: {max_chunks: 7}}

Rows that mean the same run once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dataset_builders.set_specs import SetSpec
from lmmvqa.checkpoints.training_record import read_record
from lmmvqa.evaluation import protocols
from lmmvqa.evaluation.methods import LmmVqa
from lmmvqa.evaluation.rated_sets import PROTOCOLS, Protocol, RatedRow, read_set, select
from processing.errors import InputError

logger = logging.getLogger(__name__)

SECONDS = "seconds.json"
_KEYS = {"recipe", "settings", "data", "protocol", "levels", "compose", "tables"}
_ROW_KEYS = {"config", "settings", "model", "compose"}
_PARTS = {"vision_tower", "decoder", "temporal_tower", "dtype", "video_processor"}
# Videos whose way from file to score is timed for each row, after one that warms up.
_TIMED = 5


@dataclass(frozen=True)
class GridRow:
    """One row of a table: `config` and `settings` that differ, another `model` to start from, or the parts to `compose`
    one from (None: those of the default checkpoint)."""

    table: str
    name: str
    config: dict[str, Any]
    settings: dict[str, Any]
    model: str | None
    compose: dict[str, Any] | None = None

    @property
    def run(self) -> str:
        """The folder of the row: the same for rows that mean the same."""
        parts = [] if self.compose is None else [self.compose]
        meaning = json.dumps([self.config, self.settings, self.model, *parts], sort_keys=True)
        return hashlib.sha256(meaning.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Grid:
    """A grid file, checked."""

    recipe: str
    data: SetSpec
    protocol: Protocol
    levels: str
    rows: list[GridRow]


def read_grid(
    path: Path, data: str | None = None, settings: dict[str, Any] | None = None, tables: Sequence[str] | None = None
) -> Grid:
    """
    Args:
        data: in place of the file's.
        settings: of the training, for all rows, over those of the file.
        tables: names of those to run; all by default.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no grid; the message says where and what is expected.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: name a YAML file, such as lmmvqa/evaluation/ablations.yaml.")
    grid = yaml.safe_load(path.read_text(encoding="utf-8"))
    if (
        not isinstance(grid, dict)
        or not isinstance(grid.get("tables"), dict)
        or "data" not in grid
        or "recipe" not in grid
    ):
        raise InputError(
            f"{path} is no grid: it needs recipe, data and tables (a table is {{row name: {{config: ..., settings: "
            f"...}}}})."
        )
    if unknown := sorted(set(grid) - _KEYS):
        raise InputError(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}.")
    protocol = grid.get("protocol", "in-sample")
    if protocol not in PROTOCOLS or protocol == "5fold":
        raise InputError(f"{path}: protocol {protocol!r} is not for a grid: choose in-sample, ood or levels.")
    if unknown := [name for name in tables or () if name not in grid["tables"]]:
        raise InputError(f"{path} has no table {unknown[0]!r}: it has {', '.join(map(str, grid['tables']))}.")
    rows = []
    for table, entries in grid["tables"].items():
        if tables and table not in tables:
            continue
        for name, entry in (entries or {}).items():
            if unknown := sorted(set(entry or {}) - _ROW_KEYS):
                raise InputError(
                    f"{path}: unknown key {unknown[0]!r} in {table}, {name}; known are {', '.join(sorted(_ROW_KEYS))}."
                )
            entry = entry or {}
            row_settings = {**(grid.get("settings") or {}), **(settings or {}), **entry.get("settings", {})}
            parts = None
            if "compose" in grid or "compose" in entry:
                parts = {**(grid.get("compose") or {}), **(entry.get("compose") or {})}
                if unknown := sorted(set(parts) - _PARTS):
                    raise InputError(
                        f"{path}: unknown part {unknown[0]!r} in compose; known are {', '.join(sorted(_PARTS))}."
                    )
            row = GridRow(str(table), str(name), entry.get("config", {}), row_settings, entry.get("model"), parts)
            rows.append(row)
    if not rows:
        raise InputError(f"{path}: tables holds no rows.")
    return Grid(
        str(grid["recipe"]), SetSpec.parse(data or grid["data"]), protocol, grid.get("levels", "tertiles"), rows
    )


def run_grid(
    grid: Grid, output: Path, resamples: int = 1000, feature_cache: Path | None = None
) -> list[dict[str, Any]]:
    """Train and evaluate every row that has no figures yet; figures of all, `table` and `name` first.

    Args:
        feature_cache: of all rows, such as that of a run on the same videos; in `output` by default.

    Raises:
        ValueError: `output` holds the grid of other data, or a setting is wrong.
    """
    features = feature_cache or output / "features"
    rated = read_set(grid.data, levels=grid.levels)
    tested = select(rated, grid.protocol)
    protocols.open_run(
        output, {"grid": grid.recipe, "data": [grid.data.folder], "protocol": grid.protocol, "levels": grid.levels}
    )
    done: dict[int, dict[str, Any]] = {}
    for place, row in enumerate(grid.rows):
        folder = output / row.run
        if not (folder / protocols.METRICS).is_file():
            logger.info("Row %d of %d: %s, %s", len(done) + 1, len(grid.rows), row.table, row.name)
            _run_row(grid, row, folder, features, tested)
        settings, predictions = protocols.read_run(folder)
        figures = protocols.tables(settings, predictions, resamples=resamples)
        if row.settings.get("tasks") == "score":
            # It answers the other question too, but was never taught to.
            figures = [
                {name: value for name, value in part.items() if name not in ("level_accuracy", "confusion")}
                for part in figures
            ]
        protocols.save_metrics(folder, figures)
        seconds = json.loads((folder / SECONDS).read_text(encoding="utf-8"))
        done[place] = {"table": row.table, "name": row.name, "run": row.run, "seconds": seconds, "figures": figures}
        results = [done[key] for key in sorted(done)]
        # Kept after every row, so that a report can be made of a grid that is under way.
        (output / "ablations.json").write_text(
            json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return results


def _run_row(grid: Grid, row: GridRow, folder: Path, features: Path, tested: Sequence[RatedRow]) -> None:
    from lmmvqa.checkpoints.loading import load_checkpoint
    from lmmvqa.training.run import run_training

    settings = {
        "name": f"{row.table}: {row.name}",
        "protocol": grid.protocol,
        "config": row.config,
        "settings": row.settings,
        "model": row.model,
        "compose": row.compose,
    }
    protocols.open_run(folder, settings)
    base = row.model or str(_fresh_base(row, folder / "base").absolute())
    finished = folder / "trained" / "finished"
    if not finished.exists():
        options = {"levels": grid.levels, **row.settings.get("data_options", {})}
        overrides = {
            "standardize_features": row.model is None and row.compose is None,
            **row.settings,
            "model": base,
            "data": str(grid.data),
            "data_options": options,
            "output_dir": str(folder / "trained"),
            "feature_cache": str(features),
        }
        run_training(grid.recipe, overrides, test=False)
        finished.touch()
    trained = load_checkpoint(str(folder / "trained"))
    record = read_record(str(folder / "trained"))
    protocols.predict(lambda: LmmVqa(*trained, features=features, record=record), tested, folder, row.name)
    if not (folder / SECONDS).is_file():
        seconds = _seconds_per_video(LmmVqa(*trained, batch_size=1), tested[: _TIMED + 1])
        (folder / SECONDS).write_text(json.dumps(seconds), encoding="utf-8")
    # Frozen parts that `compose_default` gives again; what was trained is kept.
    if row.model is None:
        shutil.rmtree(folder / "base", ignore_errors=True)


def _seconds_per_video(method: LmmVqa, rows: Sequence[RatedRow]) -> float | None:
    """Mean seconds from file to score, nothing taken from a cache; None where there are no two videos to read."""
    ends = [time.perf_counter() for prediction in method.predict(rows) if "error" not in prediction]
    return (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else None


def _fresh_base(row: GridRow, folder: Path) -> Path:
    """A row's parts under its configuration, with fresh projectors."""
    if not (folder / "processor_config.json").is_file():
        from transformers import set_seed

        # Before the projectors are drawn.
        set_seed(0)
        model, processor = _default_parts(row.config) if row.compose is None else _parts(row.compose, row.config)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def _default_parts(config: dict[str, Any]) -> tuple[Any, Any]:
    from lmmvqa.checkpoints.assembling import compose_default
    from lmmvqa.checkpoints.default_files import RECIPE

    recipe = json.loads(RECIPE.read_text(encoding="utf-8"))
    return compose_default({**recipe, "config": {**recipe["config"], **config}})


def _parts(parts: dict[str, Any], config: dict[str, Any]) -> tuple[Any, Any]:
    from lmmvqa.checkpoints import composing

    dtype = parts.get("dtype", "bfloat16")
    motion = parts.get("temporal_tower", composing.SLOWFAST_R50)
    decoder, tokenizer = composing.load_decoder(parts.get("decoder", composing.LLAMA_3), dtype=dtype)
    return composing.compose(
        vision_tower=composing.load_vision_tower(parts.get("vision_tower", composing.CLIP_VIT_L), dtype=dtype),
        temporal_tower=None if motion == "none" else composing.load_temporal_tower(motion),
        decoder=decoder,
        tokenizer=tokenizer,
        config=config,
        video_processor=parts.get("video_processor"),
    )
