"""What trains, and what a checkpoint of it holds: an adapter in peft's form, small, loaded together with its base."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from modeling_lmmvqa.saved_folders import refuse_local_base

PROJECTORS = ("spatial_projector", "temporal_projector")


def make_trainable(
    model: Any,
    trains: str,
    *,
    rank: int = 16,
    dropout: float = 0.05,
    projector_dropout: float = 0.0,
    seed: int = 0,
) -> Any:
    """Freeze everything but what trains.

    Args:
        model: a `LmmVqaForConditionalGeneration`.
        trains: "projectors", "projectors+lora", "lora" or "projectors+decoder".
        rank, dropout: of the low-rank updates; `lora_alpha` is twice the rank.
        projector_dropout: of the projectors.

    Returns:
        For all but the last a `PeftModel` around the model, whose `save_pretrained` writes the projectors and what
        trains, and no more; for the last the model itself. What trains is in float32, whatever the precision of the
        rest.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils.constants import DUMMY_TARGET_MODULES

    model.requires_grad_(False)
    projectors = [name for name in PROJECTORS if hasattr(model.model, name)]
    for name in projectors:
        getattr(model.model, name).float().dropout.p = projector_dropout
    if trains == "projectors+decoder":
        for module in (*(getattr(model.model, name) for name in projectors), model.model.language_model, model.lm_head):
            module.float().requires_grad_(True)
        return model
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=dropout,
        # peft's name for "no low-rank updates": only the whole modules below are trained.
        target_modules=DUMMY_TARGET_MODULES if trains == "projectors" else _decoder_layers(model),
        modules_to_save=projectors,
    )
    torch.manual_seed(seed)
    adapted = get_peft_model(model, config)
    # peft's own card names the base by its place on this machine; the trainer writes one.
    adapted.create_or_update_model_card = lambda output_dir: None
    adapted.push_to_hub = partial(_push_adapter, adapted)
    if trains == "lora":
        for name in projectors:
            getattr(adapted.base_model.model.model, name).requires_grad_(False)
    return adapted


def _push_adapter(adapted: Any, *args: Any, **kwargs: Any) -> str:
    """peft's own way to the Hub, which would write there where on this machine the base is."""
    refuse_local_base(adapted)
    return type(adapted).push_to_hub(adapted, *args, **kwargs)


def _decoder_layers(model: Any) -> str:
    """A pattern of the linear layers of the decoder; a bare list of their names would also find layers of the
    towers."""
    linear = (torch.nn.Linear, Conv1D)
    names = {
        name.rpartition(".")[2]
        for name, module in model.model.language_model.named_modules()
        if isinstance(module, linear)
    }
    return rf"model\.language_model\..*\.({'|'.join(sorted(names))})"
