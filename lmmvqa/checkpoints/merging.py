"""An adapter and its base as one full checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

from peft import PeftConfig
from transformers import AutoProcessor

from lmmvqa.checkpoints.adapters import merge_adapter
from lmmvqa.checkpoints.loading import load_base
from lmmvqa.checkpoints.training_record import read_record


def merge(adapter: str | os.PathLike, output: str | os.PathLike) -> None:
    """An output of `lmmvqa train` and its base, as one full checkpoint.

    Raises:
        FileNotFoundError: `adapter` is no such output, or its base is gone.
        FileExistsError: `output` holds something.
    """
    if not (Path(adapter) / "adapter_config.json").is_file():
        raise FileNotFoundError(
            f"{adapter} holds no adapter_config.json: name an output of `lmmvqa train`; one with trains: "
            "projectors+decoder is a full checkpoint already."
        )
    if Path(output).exists() and any(Path(output).iterdir()):
        raise FileExistsError(f"{output} is not an empty folder: name a new one.")
    base = PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path
    if os.path.isabs(base) and not os.path.isdir(base):
        raise FileNotFoundError(
            f"{adapter} was trained on {base}, which is gone: put it back, or name its place in adapter_config.json."
        )
    model, _ = load_base(base)
    merge_adapter(model, adapter).save_pretrained(output)
    AutoProcessor.from_pretrained(adapter).save_pretrained(output)
    if (record := read_record(str(adapter))) is not None:
        record.write(Path(output))
