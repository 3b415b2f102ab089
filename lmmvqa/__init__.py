"""LMM-VQA: blind video quality assessment with large multimodal models.

>>> import lmmvqa
>>> scorer = lmmvqa.load()
>>> scorer("clip.mp4").score
71.3

`import lmmvqa` makes the Auto classes and pipelines of transformers know the model, and `load_dataset` the rated video
sets, where these are installed.
"""

import importlib
import sys
from importlib.util import find_spec
from typing import Any

__version__ = "0.1.0"

# Public names and where they are; each is imported when it is first asked for.
_HOMES = {
    "AnswerError": "processing.questions",
    "LmmVqaConfig": "modeling_lmmvqa",
    "LmmVqaError": "processing.errors",
    "LmmVqaForConditionalGeneration": "modeling_lmmvqa",
    "LmmVqaModel": "modeling_lmmvqa",
    "LmmVqaPipeline": "modeling_lmmvqa.pipeline_lmmvqa",
    "LmmVqaProcessor": "processing.processing_lmmvqa",
    "LmmVqaSpatialConfig": "modeling_lmmvqa",
    "LmmVqaSpatialModel": "modeling_lmmvqa",
    "LmmVqaTemporalConfig": "modeling_lmmvqa",
    "LmmVqaTemporalModel": "modeling_lmmvqa",
    "LmmVqaVideoProcessor": "processing.video_processing_lmmvqa",
    "QualityOutput": "modeling_lmmvqa",
    "Question": "processing.questions",
    "QuestionError": "processing.questions",
    "ReadingLimits": "lmmvqa.scoring.reading_workers",
    "Scorer": "lmmvqa.scoring.scorer",
    "VideoError": "processing.video_reader",
    "VideoScore": "modeling_lmmvqa.video_score",
    "load": "lmmvqa.scoring.loading",
    "open_video": "processing.video_reader",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lmmvqa' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register() -> None:
    """Make transformers and datasets know our classes."""
    import dataset_builders
    import lmmvqa.registration
    import lmmvqa.scoring.pipeline  # noqa: F401

    dataset_builders.register()


def _runs_a_program_of_ours() -> bool:
    """Whether this process was started as `lmmvqa` or `python -m lmmvqa...`: help, and processes that read videos,
    must not wait for torch. While Python looks for the module of `-m`, that is all it says of itself."""
    if "lmmvqa_command" in sys.modules:
        return True
    if sys.argv[:1] != ["-m"] or "-m" not in sys.orig_argv:
        return False
    return sys.orig_argv[sys.orig_argv.index("-m") + 1].split(".")[0] == "lmmvqa"


# Where they are not installed, graphs score without them.
if not _runs_a_program_of_ours() and find_spec("transformers") and find_spec("torch"):
    _register()
