"""The network: configuration, towers, projectors, decoder and quality read-out.

Each name is imported when it is first asked for: the columns of a result can be had without the weight of torch.
"""

import importlib
from typing import Any

_HOMES = {
    "LmmVqaConfig": "configuration_lmmvqa",
    "LmmVqaForConditionalGeneration": "modeling_lmmvqa",
    "LmmVqaModel": "modeling_lmmvqa",
    "LmmVqaSpatialConfig": "configuration_lmmvqa",
    "LmmVqaSpatialModel": "spatial_tower",
    "LmmVqaTemporalConfig": "configuration_lmmvqa",
    "LmmVqaTemporalModel": "temporal_tower",
    "QualityOutput": "answers",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
