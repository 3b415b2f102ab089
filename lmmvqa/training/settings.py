"""What a training run is told, as far as it can be read and checked without torch and transformers: importing
them takes seconds."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dataset_builders import GENERAL_SETS, RATED_SETS
from dataset_builders.set_specs import SetSpec
from lmmvqa.checkpoints import FRESH_DEFAULT
from processing.errors import InputError

RECIPES = Path(__file__).parent / "recipes"


class DataSource(NamedTuple):
    """One data set of a run; `options` go to `load_dataset`."""

    spec: SetSpec
    options: dict[str, Any]


def read_settings(config: str | os.PathLike, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings of a file as a mapping, with `overrides`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML file of settings.
    """
    path = Path(config)
    if not path.is_file() and path.parent == Path() and (RECIPES / f"{path.stem}.yaml").is_file():
        path = RECIPES / f"{path.stem}.yaml"
    if not path.is_file():
        recipes = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
        raise FileNotFoundError(f"{config} does not exist: name a YAML file or one of the recipes {recipes}.")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML file: {error}") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path} holds no settings: write lines such as `learning_rate: 1e-3`.")
    return {key: _meant_value(key, value) for key, value in {**settings, **(overrides or {})}.items()}


def data_sources(data: Any, options: Mapping[str, Any]) -> list[DataSource]:
    """The data sets that the setting `data` names: one, or a list of them.

    Args:
        options: of all of them; those of an entry go before.

    Raises:
        ValueError: an entry is no data set.
    """
    entries = data if isinstance(data, list) else [data]
    if not entries or None in entries:
        raise InputError("data names no data set: write data=NAME=FOLDER, such as data=rated_videos=mine.")
    sources = []
    for entry in entries:
        named = {"data": entry} if isinstance(entry, str) else entry
        if not isinstance(named, Mapping) or not isinstance(named.get("data"), str):
            raise InputError(f"data: {entry!r} is no data set: write {{data: konvid_1k=KoNViD-1k, levels: authors}}.")
        own = {key: value for key, value in named.items() if key != "data"}
        spec = SetSpec.parse(named["data"], RATED_SETS + GENERAL_SETS)
        sources.append(DataSource(spec, {**options, **own}))
    return sources


def check_data_and_model(data: Any, model: str | None) -> None:
    """
    Raises:
        FileNotFoundError: the model does not exist.
        ValueError: an entry of `data` is no data set, or the model is an adapter without its base.
    """
    data_sources(data, {})
    if model in (None, FRESH_DEFAULT):
        return
    folder = Path(model)
    if not folder.is_dir():
        if model.count("/") != 1 or folder.is_absolute() or model.startswith("."):
            raise FileNotFoundError(f"model={model} does not exist: name a folder of `lmmvqa compose` or a Hub id.")
    elif (folder / "adapter_config.json").is_file():
        raise InputError(
            f"model={model} holds what `lmmvqa train` trained, without its base: lmmvqa merge {model} FOLDER, then "
            "model=FOLDER."
        )
    elif not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"model={model} holds no config.json: name a folder of `lmmvqa compose` or `lmmvqa merge`."
        )


def meant_word(word: str, known: Iterable[str]) -> str:
    """What a person may have meant by an unknown word."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else "nothing is named like it"


def _meant_value(key: str, value: Any) -> Any:
    """YAML 1.1 takes 1e-3 for text and a bare `no` for false; people and Python don't."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value):
        return float(value)
    return "no" if value is False and key.endswith("_strategy") else value
