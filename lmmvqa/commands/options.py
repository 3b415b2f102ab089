"""Options and arguments that several commands take, spelled once."""

from __future__ import annotations

import re
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
    tuple[float, float] | None,
    typer.Option(
        metavar="LOW HIGH", help="rated_videos only: the ratings that become the scores 0 and 100, such as --scale 1 5."
    ),
]

Question = Annotated[
    list[str] | None,
    typer.Option(
        help="Also a question that the checkpoint was taught and that is a column of the label file, such as flaw or "
        "sharpness; may be given again."
    ),
]
QuestionScale = Annotated[
    list[str] | None,
    typer.Option(help="rated_videos: of a further number, its ratings that become 0 and 100, such as sharpness=1-5."),
]


def parse_scales(texts: list[str] | None) -> dict[str, tuple[float, float]]:
    """`sharpness=1-5` pairs.

    Raises:
        ValueError: a text is none.
    """
    scales = {}
    for text in texts or []:
        found = re.fullmatch(r"(\w+)=(-?[\d.]+)[-:,](-?[\d.]+)", text.replace(" ", ""))
        if not found:
            raise InputError(f"--question-scale {text} is no question with its scale: write it as sharpness=1-5.")
        scales[found[1]] = (float(found[2]), float(found[3]))
    return scales


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
