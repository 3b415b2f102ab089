"""The default checkpoint: assembled on first use from parts that registry packages carry and from weights of our
own."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hub_cards.model_card import add_model_card
from lmmvqa.checkpoints.adapters import merge_adapter
from lmmvqa.checkpoints.cache import cache_folder, remove_leftovers, scratch_folder
from lmmvqa.checkpoints.composing import compose, load_decoder, load_temporal_tower, load_vision_tower
from lmmvqa.checkpoints.default_files import (
    ADAPTER,
    CALIBRATION,
    DECODER,
    FACTS,
    RECIPE,
    REFERENCE,
    RESULTS,
    SPATIAL_TOWER,
    TEMPORAL_TOWER,
    default_version,
)
from lmmvqa.checkpoints.parts import fetch
from lmmvqa.checkpoints.remote_code import add_remote_code
from lmmvqa.checkpoints.training_record import read_record

logger = logging.getLogger(__name__)


def default_checkpoint() -> Path:
    """The folder of the default checkpoint, assembled now if it is not there: a minute and 700 MB, once.

    Raises:
        PartError: a part can't be fetched, or is not the file that it should be.
        CacheError: the cache can't be written.
    """
    folder = cache_folder() / f"default-{default_version()}"
    if (folder / "config.json").is_file():
        remove_leftovers()
        return folder
    logger.info("Assembling the default checkpoint in %s (once).", folder)
    model, processor = compose_default()
    model = merge_adapter(model, ADAPTER)
    model.config.calibration = json.loads(CALIBRATION.read_text(encoding="utf-8"))
    # Assembled beside its place and moved there whole: two processes may do this at once, and one may be killed.
    with scratch_folder() as assembling:
        checkpoint = assembling / "checkpoint"
        model.save_pretrained(checkpoint)
        processor.save_pretrained(checkpoint)
        add_remote_code(checkpoint)
        # What it learned from stands beside the adapter, where training put it.
        if (record := read_record(str(ADAPTER))) is not None:
            record.write(checkpoint)
        shutil.copytree(REFERENCE, checkpoint / REFERENCE.name)
        results = {file.name: file for file in RESULTS.glob("*.json")}
        add_model_card(checkpoint, str(folder), FACTS, results, config=model.config)
        try:
            checkpoint.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
    return folder


def compose_default(recipe: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
    """Model and processor of the default checkpoint with fresh projectors: where its training starts.

    Args:
        recipe: in place of `recipe.json`: "config", "video_processor" and "questions".
    """
    recipe = recipe or json.loads(RECIPE.read_text(encoding="utf-8"))
    decoder, tokenizer = load_decoder(str(fetch(DECODER)))
    sees_motion = recipe["config"].get("num_temporal_tokens") != 0
    return compose(
        # Kept in half precision; computed in the decoder's.
        vision_tower=load_vision_tower(str(SPATIAL_TOWER), dtype=torch.float32),
        temporal_tower=load_temporal_tower(str(TEMPORAL_TOWER)) if sees_motion else None,
        decoder=decoder,
        tokenizer=tokenizer,
        config=recipe["config"],
        video_processor=recipe["video_processor"],
        questions=recipe["questions"],
    )
