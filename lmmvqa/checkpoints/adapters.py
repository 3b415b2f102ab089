"""Adapters that training leaves, joined with their base into one checkpoint."""

from __future__ import annotations

import os
from typing import Any

from processing.errors import LmmVqaError


class AdapterError(LmmVqaError, RuntimeError):
    """An adapter that doesn't fit its base. The message names it."""


def merge_adapter(model: Any, adapter: str | os.PathLike) -> Any:
    """The model with an adapter's projectors in the place of its own, and the low-rank updates added to its decoder.

    Raises:
        AdapterError: the adapter belongs to a model of another shape.
    """
    from peft import PeftModel

    try:
        adapted = PeftModel.from_pretrained(model, str(adapter))
    # A part that the adapter doesn't have, and one of another shape.
    except (KeyError, RuntimeError) as error:
        raise AdapterError(f"{adapter} belongs to a model with other projectors or another decoder: {error}") from error
    return adapted.merge_and_unload()
