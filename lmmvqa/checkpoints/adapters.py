"""Adapters that training leaves, joined with their base into one checkpoint."""

from __future__ import annotations

import os
from typing import Any

import torch


def merge_adapter(model: Any, adapter: str | os.PathLike, *, share: float = 1.0) -> Any:
    """The model with an adapter's projectors in the place of its own, and the low-rank updates added to its decoder.

    Args:
        share: how far to go from the weights of the model (0) to those with the adapter (1). Something in between can
            keep what the model knew and still learn what the adapter teaches (Wortsman et al., "Robust fine-tuning of
            zero-shot models").

    Raises:
        RuntimeError: the adapter belongs to a model of another shape.
    """
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    try:
        adapted = PeftModel.from_pretrained(model, str(adapter))
    # A part that the adapter doesn't have, and one of another shape.
    except (KeyError, RuntimeError) as error:
        raise RuntimeError(f"{adapter} belongs to a model with other projectors or another decoder: {error}") from error
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(share)
        elif isinstance(module, ModulesToSaveWrapper):
            trained = module.modules_to_save[module.active_adapter]
            with torch.no_grad():
                for start, end in zip(module.original_module.parameters(), trained.parameters(), strict=True):
                    end.copy_(start.lerp(end, share))
    return adapted.merge_and_unload()
