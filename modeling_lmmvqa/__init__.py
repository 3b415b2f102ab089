"""The network: configuration, towers, projectors, decoder and quality read-out."""

from .configuration_lmmvqa import LmmVqaConfig, LmmVqaTemporalConfig
from .modeling_lmmvqa import LmmVqaForConditionalGeneration, LmmVqaModel
from .quality_readout import QualityOutput
from .temporal_tower import LmmVqaTemporalModel

__all__ = [
    "LmmVqaConfig",
    "LmmVqaForConditionalGeneration",
    "LmmVqaModel",
    "LmmVqaTemporalConfig",
    "LmmVqaTemporalModel",
    "QualityOutput",
]
