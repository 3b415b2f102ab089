"""Makes the Auto classes of transformers know ours."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoVideoProcessor,
)

from modeling_lmmvqa import (
    LmmVqaConfig,
    LmmVqaForConditionalGeneration,
    LmmVqaTemporalConfig,
    LmmVqaTemporalModel,
)
from processing.processing_lmmvqa import LmmVqaProcessor
from processing.video_processing_lmmvqa import LmmVqaVideoProcessor

AutoConfig.register("lmmvqa", LmmVqaConfig, exist_ok=True)
AutoConfig.register("lmmvqa_temporal", LmmVqaTemporalConfig, exist_ok=True)
# Whatever an Auto class gives can score.
AutoModel.register(LmmVqaConfig, LmmVqaForConditionalGeneration, exist_ok=True)
AutoModel.register(LmmVqaTemporalConfig, LmmVqaTemporalModel, exist_ok=True)
AutoModelForImageTextToText.register(LmmVqaConfig, LmmVqaForConditionalGeneration, exist_ok=True)
AutoModelForMultimodalLM.register(LmmVqaConfig, LmmVqaForConditionalGeneration, exist_ok=True)
AutoProcessor.register(LmmVqaConfig, LmmVqaProcessor, exist_ok=True)
AutoVideoProcessor.register(LmmVqaConfig, LmmVqaVideoProcessor, exist_ok=True)
