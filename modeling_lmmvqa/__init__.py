"""The network: configuration, towers, projectors, decoder and quality read-out."""

from .configuration_lmmvqa import LmmVqaConfig, LmmVqaSpatialConfig, LmmVqaTemporalConfig
from .modeling_lmmvqa import LmmVqaForConditionalGeneration, LmmVqaModel
from .quality_readout import QualityOutput
from .spatial_tower import LmmVqaSpatialModel
from .temporal_tower import LmmVqaTemporalModel

__all__ = [
    "LmmVqaConfig",
    "LmmVqaForConditionalGeneration",
    "LmmVqaModel",
    "LmmVqaSpatialConfig",
    "LmmVqaSpatialModel",
    "LmmVqaTemporalConfig",
    "LmmVqaTemporalModel",
    "QualityOutput",
]
