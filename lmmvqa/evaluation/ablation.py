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

`config` holds fields of the model's configuration that differ from the default checkpoint's, `settings` those of the
training, `model` another checkpoint to start from (another decoder, say). Rows that mean the same run once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dataset_builders.set_specs import SetSpec
from lmmvqa.evaluation import protocols
from lmmvqa.evaluation.methods import LmmVqa
from lmmvqa.evaluation.rated_sets import PROTOCOLS, RatedRow, read_set, select
from processing.errors import InputError

logger = logging.getLogger(__name__)

GRID = "grid.yaml"
_KEYS = {"recipe", "settings", "data", "protocol", "levels", "tables"}
_ROW_KEYS = {"config", "settings", "model"}


@dataclass(frozen=True)
class GridRow:
    """One row of a table: `config` and `settings` that differ, or another `model` to start from."""

    table: str
    name: str
    config: dict[str, Any]
    settings: dict[str, Any]
    model: str | None

    @property
    def run(self) -> str:
        """The folder of the row: the same for rows that mean the same."""
        meaning = json.dumps([self.config, self.settings, self.model], sort_keys=True)
        return hashlib.sha256(meaning.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Grid:
    """A grid file, checked."""

    recipe: str
    data: SetSpec
    protocol: str
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
            rows.append(GridRow(str(table), str(name), entry.get("config", {}), row_settings, entry.get("model")))
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
        done[place] = {"table": row.table, "name": row.name, "run": row.run, "figures": figures}
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
    }
    protocols.open_run(folder, settings)
    base = row.model or str(_fresh_base(row.config, folder / "base").absolute())
    finished = folder / "trained" / "finished"
    if not finished.exists():
        options = {"levels": grid.levels, **row.settings.get("data_options", {})}
        overrides = {
            "standardize_features": row.model is None,
            **row.settings,
            "model": base,
            "data": str(grid.data),
            "data_options": options,
            "output_dir": str(folder / "trained"),
            "feature_cache": str(features),
        }
        run_training(grid.recipe, overrides, test=False)
        finished.touch()
    protocols.predict(
        lambda: LmmVqa(*load_checkpoint(str(folder / "trained")), features=features), tested, folder, row.name
    )
    # Frozen parts that `compose_default` gives again; what was trained is kept.
    if row.model is None:
        shutil.rmtree(folder / "base", ignore_errors=True)


def _fresh_base(config: dict[str, Any], folder: Path) -> Path:
    """The default checkpoint's parts under another configuration, with fresh projectors."""
    if not (folder / "processor_config.json").is_file():
        model, processor = _compose(config)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def _compose(config: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import set_seed

    from lmmvqa.checkpoints.assembling import RECIPE, compose_default

    recipe = json.loads(RECIPE.read_text(encoding="utf-8"))
    # Before the projectors are drawn.
    set_seed(0)
    return compose_default({**recipe, "config": {**recipe["config"], **config}})
