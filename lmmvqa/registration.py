"""Makes the Auto classes of transformers know ours, and gathers the public names."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoVideoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from modeling_lmmvqa import (
    LmmVqaConfig,
    LmmVqaForConditionalGeneration,
    LmmVqaModel,
    LmmVqaTemporalConfig,
    LmmVqaTemporalModel,
    QualityOutput,
)
from modeling_lmmvqa.pipeline_lmmvqa import LmmVqaPipeline
from processing.errors import LmmVqaError
from processing.processing_lmmvqa import LmmVqaProcessor
from processing.quality_prompts import AnswerError
from processing.video_processing_lmmvqa import LmmVqaVideoProcessor
from processing.video_reader import VideoError, open_video

AutoConfig.register("lmmvqa", LmmVqaConfig, exist_ok=True)
AutoConfig.register("lmmvqa_temporal", LmmVqaTemporalConfig, exist_ok=True)
AutoModel.register(LmmVqaConfig, LmmVqaModel, exist_ok=True)
AutoModel.register(LmmVqaTemporalConfig, LmmVqaTemporalModel, exist_ok=True)
AutoModelForImageTextToText.register(LmmVqaConfig, LmmVqaForConditionalGeneration, exist_ok=True)
AutoModelForMultimodalLM.register(LmmVqaConfig, LmmVqaForConditionalGeneration, exist_ok=True)
AutoProcessor.register(LmmVqaConfig, LmmVqaProcessor, exist_ok=True)
AutoVideoProcessor.register(LmmVqaConfig, LmmVqaVideoProcessor, exist_ok=True)

PIPELINE_REGISTRY.register_pipeline(
    "video-quality-assessment", LmmVqaPipeline, pt_model=AutoModelForImageTextToText, type="multimodal"
)

__all__ = [
    "AnswerError",
    "LmmVqaConfig",
    "LmmVqaError",
    "LmmVqaForConditionalGeneration",
    "LmmVqaModel",
    "LmmVqaPipeline",
    "LmmVqaProcessor",
    "LmmVqaTemporalConfig",
    "LmmVqaTemporalModel",
    "LmmVqaVideoProcessor",
    "QualityOutput",
    "VideoError",
    "open_video",
]
