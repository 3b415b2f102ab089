"""Options and arguments that several commands take, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lmmvqa.commands.checks import check_device, check_model
from processing.errors import InputError

Model = Annotated[
    str | None,
    typer.Option(help="Checkpoint: folder or Hub id. Default: the one that comes with LMM-VQA.", callback=check_model),
]
Device = Annotated[
    str | None,
    typer.Option(help="For example cpu, cuda, cuda:1. Default: a GPU if there is one.", callback=check_device),
]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Confidence = Annotated[
    float,
    typer.Option(min=0.5, max=1, help="How probable it must be that a threshold is missed. 0.5: scores alone decide."),
]
Summary = Annotated[
    Path | None, typer.Option(help="Write what passed a threshold and what didn't: Markdown (.md) or JUnit XML (.xml).")
]
Scale = Annotated[
    tuple[float, float] | None, typer.Option(help="rated_videos only: the ratings that become the scores 0 and 100.")
]


def parse_settings(texts: list[str] | None) -> dict[str, Any]:
    """`key=value` pairs; values are read as YAML.

    Raises:
        ValueError: a text has no "=".
    """
    import yaml

    settings = {}
    for text in texts or []:
        key, found, value = text.partition("=")
        if not found:
            raise InputError(f"{text!r} is not a setting: write key=value.")
        settings[key] = yaml.safe_load(value)
    return settings
