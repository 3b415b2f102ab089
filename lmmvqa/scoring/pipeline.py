"""The pipeline "video-quality-assessment" where this package is installed, and its registration."""

from __future__ import annotations

from transformers import AutoModelForImageTextToText
from transformers.pipelines import PIPELINE_REGISTRY

from lmmvqa.scoring.scorer import Scorer
from modeling_lmmvqa.pipeline_lmmvqa import LmmVqaPipeline

TASK = "video-quality-assessment"


class WorkerPipeline(LmmVqaPipeline):
    """The pipeline over the scorer of this package, which reads videos in a process of its own."""

    def make_scorer(self, decoder: str) -> Scorer:
        return Scorer(self.model, self.processor, decoder=decoder)


PIPELINE_REGISTRY.register_pipeline(TASK, WorkerPipeline, pt_model=AutoModelForImageTextToText, type="multimodal")
