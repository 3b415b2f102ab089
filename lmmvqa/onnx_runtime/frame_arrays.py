"""What the graph of the spatial tower sees of a frame: `LmmVqaSpatialModel.look` without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from modeling_lmmvqa.frame_statistics import frame_statistics
from modeling_lmmvqa.frame_views import resized_shape, tile_places


def look(tower: Mapping[str, Any] | None, frame: np.ndarray) -> dict[str, np.ndarray]:
    """The graph's inputs by name.

    Args:
        tower: `views`, each with "side", "patch" and "tile_size", `grid` and `frame_statistics`, as in
            `LmmVqaSpatialConfig`; None where the tower sees frames as they are.
        frame: (3, height, width) float32, prepared.
    """
    if tower is None:
        return {"seen_0": frame[None]}
    seen = {f"seen_{index}": _look(view, tower["grid"], frame) for index, view in enumerate(tower["views"])}
    return seen | ({"statistics": frame_statistics(frame[None])} if tower["frame_statistics"] else {})


def _look(view: Mapping[str, Any], grid: int, frame: np.ndarray) -> np.ndarray:
    if view["side"] is not None:
        frame = _resized(frame, resized_shape(frame.shape[1], frame.shape[2], view["side"], view["patch"]))
    if view["tile_size"] is None:
        return frame[None]
    places = tile_places(frame.shape[1], frame.shape[2], view["tile_size"], grid)
    return np.stack([frame[:, rows, columns] for rows, columns in places])


def _resized(frame: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear and antialiased: Pillow's filter is the one that torch took over."""
    height, width = shape
    planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in frame]
    return np.stack([np.asarray(plane) for plane in planes])
