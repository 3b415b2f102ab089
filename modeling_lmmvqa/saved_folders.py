"""What stands beside the weights in a saved folder: the code that loads it elsewhere, and what it learned from. No
place of this machine leaves it with them."""

import os
import shutil
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

# Also plain AutoModel gives the class that can score.
MODEL_CLASSES = {
    "AutoConfig": "configuration_lmmvqa.LmmVqaConfig",
    "AutoModel": "modeling_lmmvqa.LmmVqaForConditionalGeneration",
    "AutoModelForImageTextToText": "modeling_lmmvqa.LmmVqaForConditionalGeneration",
    "AutoModelForMultimodalLM": "modeling_lmmvqa.LmmVqaForConditionalGeneration",
}
PIPELINES = {
    "video-quality-assessment": {
        "impl": "pipeline_lmmvqa.LmmVqaPipeline",
        "pt": ["AutoModelForImageTextToText"],
        "type": "multimodal",
    }
}
# What a checkpoint learned from; written by training, and kept wherever the weights go.
TRAINING_RECORD = "training_record.json"


def copy_code(folder: Path) -> None:
    """Put the modules that stand beside this one into a folder, which is made if it isn't there."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in Path(__file__).parent.glob("*.py"):
        if file.name != "__init__.py" and file.parent.resolve() != folder.resolve():
            shutil.copyfile(file, folder / file.name)


def name_classes(config: Any) -> None:
    """Let a config say which class of the code beside it is which, whatever it said before."""
    config.auto_map = dict(MODEL_CLASSES)
    # A process that got this code from a checkpoint has only those modules that it uses.
    if Path(__file__).with_name("pipeline_lmmvqa.py").is_file():
        config.custom_pipelines = dict(PIPELINES)
    elif hasattr(config, "custom_pipelines"):
        del config.custom_pipelines


def copy_record(source: str, folder: Path) -> None:
    """Keep the training record of a checkpoint (a folder or a Hub id; nothing happens where it has none)."""
    file = source and cached_file(
        source,
        TRAINING_RECORD,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    if file and Path(file).resolve() != (folder / TRAINING_RECORD).resolve():
        shutil.copyfile(file, folder / TRAINING_RECORD)


def without_paths(settings: Any) -> Any:
    """A saved config without the entries that say where on this machine its parts were loaded from."""
    if isinstance(settings, dict):
        return {name: without_paths(value) for name, value in settings.items() if name != "_name_or_path"}
    return [without_paths(value) for value in settings] if isinstance(settings, list) else settings


def refuse_local_base(model: Any) -> None:
    """An adapter names its base, and nobody else finds one on this machine.

    Args:
        model: any model; one without adapters is not refused.

    Raises:
        ValueError: it holds an adapter of a base that is not on the Hub.
    """
    for adapter in (getattr(model, "peft_config", None) or {}).values():
        base = str(adapter.base_model_name_or_path or "a base without a name")
        if os.path.exists(base) or base.count("/") != 1:
            raise ValueError(
                f"This adapter belongs to {base}, which others don't have. Push that first, then save the adapter and "
                "name its base: lmmvqa push model OWNER/NAME --model ADAPTER --base-model OWNER/BASE. Or make one "
                "checkpoint of both with lmmvqa merge, and push that."
            )
