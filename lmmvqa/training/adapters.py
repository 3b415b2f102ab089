"""What trains, and what a checkpoint of it holds: an adapter in peft's form, small, loaded together with its base."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

PROJECTORS = ("spatial_projector", "temporal_projector")


def make_trainable(
    model: Any, trains: str, *, rank: int = 16, alpha: int = 32, dropout: float = 0.05, matrices_only: bool = False, seed: int = 0
) -> Any:
    """Freeze everything but what trains.

    Args:
        model: a `LmmVqaForConditionalGeneration`.
        trains: "projectors", "projectors+lora", "lora" or "projectors+decoder".
        rank, alpha, dropout: of the low-rank updates.
        matrices_only: train no biases or norms, which Muon has no step for.

    Returns:
        For all but the last a `PeftModel` around the model, whose `save_pretrained` writes the projectors and what trains, and no more; for
        the last the model itself. What trains is in float32, whatever the precision of the rest.
    """
    from peft import LoraConfig, get_peft_model
    from peft.utils.constants import DUMMY_TARGET_MODULES

    model.requires_grad_(False)
    projectors = [name for name in PROJECTORS if hasattr(model.model, name)]
    for name in projectors:
        getattr(model.model, name).float()
    if trains == "projectors+decoder":
        for module in (*(getattr(model.model, name) for name in projectors), model.model.language_model, model.lm_head):
            module.float().requires_grad_(True)
        return model
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        # peft's name for "no low-rank updates": only the whole modules below are trained.
        target_modules=DUMMY_TARGET_MODULES if trains == "projectors" else _decoder_layers(model),
        modules_to_save=projectors,
    )
    torch.manual_seed(seed)
    adapted = get_peft_model(model, config)
    if trains == "lora":
        for name in projectors:
            getattr(adapted.base_model.model.model, name).requires_grad_(False)
    if matrices_only:
        for parameter in adapted.parameters():
            parameter.requires_grad_(parameter.requires_grad and parameter.ndim == 2)
    return adapted


def _decoder_layers(model: Any) -> str:
    """A pattern of the linear layers of the decoder; a bare list of their names would also find layers of the towers."""
    linear = (torch.nn.Linear, Conv1D)
    names = {name.rpartition(".")[2] for name, module in model.model.language_model.named_modules() if isinstance(module, linear)}
    return rf"model\.language_model\..*\.({'|'.join(sorted(names))})"


def merge_adapter(model: Any, adapter: str | os.PathLike, *, share: float = 1.0) -> Any:
    """The model with an adapter's projectors in the place of its own, and the low-rank updates added to its decoder.

    Args:
        share: how far to go from the weights of the model (0) to those with the adapter (1). Something in between can keep what the model
            knew and still learn what the adapter teaches (Wortsman et al., "Robust fine-tuning of zero-shot models").

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


def merge(adapter: str | os.PathLike, output: str | os.PathLike, *, share: float = 1.0) -> None:
    """An output of `lmmvqa train` and its base, as one full checkpoint.

    Args:
        share: as `merge_adapter` takes it.

    Raises:
        FileNotFoundError: `adapter` is no such output, or its base is gone.
        FileExistsError: `output` holds something.
    """
    from peft import PeftConfig
    from transformers import AutoProcessor

    from lmmvqa.training.run import load_base

    if not (Path(adapter) / "adapter_config.json").is_file():
        raise FileNotFoundError(f"{adapter} holds no adapter_config.json: name an output of `lmmvqa train`; one with trains: "
                                "projectors+decoder is a full checkpoint already.")
    if Path(output).exists() and any(Path(output).iterdir()):
        raise FileExistsError(f"{output} is not an empty folder: name a new one.")
    base = PeftConfig.from_pretrained(adapter).base_model_name_or_path
    if os.path.isabs(base) and not os.path.isdir(base):
        raise FileNotFoundError(f"{adapter} was trained on {base}, which is gone: put it back, or name its place in adapter_config.json.")
    model, _ = load_base(base)
    merge_adapter(model, adapter, share=share).save_pretrained(output)
    AutoProcessor.from_pretrained(adapter).save_pretrained(output)
