"""A checkpoint by its folder, its Hub id, or by default: network and processor, ready to assess."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

import lmmvqa.registration  # noqa: F401 - makes the Auto classes know ours
from lmmvqa.checkpoints import FRESH_DEFAULT
from lmmvqa.checkpoints.assembling import compose_default, default_checkpoint
from processing.errors import LmmVqaError


class ModelError(LmmVqaError, RuntimeError):
    """A checkpoint can't be used. The message names it and the remedy."""


def taught_questions(name_or_path: str | None, names: Sequence[str]) -> list[Any]:
    """The questions of these names that a checkpoint was taught, the default one without a folder or Hub id; its
    processor alone is read.

    Raises:
        QuestionError: it was never taught one of them.
    """
    processor = AutoProcessor.from_pretrained(name_or_path or str(default_checkpoint()))
    return [processor.question(name) for name in names]


def load_checkpoint(name_or_path: str | None = None, device: str | None = None, dtype: str = "auto") -> tuple[Any, Any]:
    """Model (in eval mode) and processor of a folder or Hub id; of the default checkpoint without one.

    Args:
        dtype: "float32", "bfloat16", "float16" (towers and projectors then stay in float32), or "auto": as it was
            saved.

    Raises:
        ModelError: it is not a checkpoint of ours, or weights are missing or broken.
    """
    source = name_or_path or str(default_checkpoint())
    try:
        # Without this, the library would ask on the terminal whether a checkpoint's own code may run.
        ours = {"trust_remote_code": False}
        found: Any = AutoModelForImageTextToText.from_pretrained(source, output_loading_info=True, dtype=dtype, **ours)
        model, report = found
        processor = AutoProcessor.from_pretrained(source, **ours)
    # The readers under the library raise errors of many kinds for a broken file.
    except Exception as error:
        remedy = (
            "remove the folder and run the command again"
            if name_or_path is None
            else "check its name, or fetch it again"
        )
        raise ModelError(f"The checkpoint {source} can't be loaded ({_first_line(error)}): {remedy}.") from error
    if not hasattr(model, "assess"):
        raise ModelError(f"{source} is a {type(model).__name__} and not an LMM-VQA checkpoint: name another one.")
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"The checkpoint {source} lacks {len(missing)} weights ({missing[0]}, ...): fetch it again.")
    model = model.to(device or _best_device()).eval()
    check_weights(model, source)
    return model, processor


def check_weights(model: Any, source: str) -> None:
    """
    Raises:
        ModelError: a weight is not a finite number, so every score would be none.
    """
    for name, weight in chain(model.named_parameters(), model.named_buffers()):
        # A standardiser's limit is infinite where nothing is cut.
        broken = weight.isnan() if name.endswith("standardizer.limit") else ~weight.isfinite()
        if broken.any():
            raise ModelError(
                f"The checkpoint {source} has weights that are not finite ({name}): its training diverged or its file "
                "is damaged; fetch it again, or take an earlier checkpoint."
            )


def load_base(name: str | None, device: str | None = None) -> tuple[Any, Any]:
    """Model and processor that a setting `model` means."""
    if name == FRESH_DEFAULT:
        model, processor = compose_default()
        model.config.name_or_path = model.name_or_path = FRESH_DEFAULT
        return model.to(device or "cpu"), processor
    return load_checkpoint(name or str(default_checkpoint()), device)


def _best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
