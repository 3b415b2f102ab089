"""The card of what a training run pushes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hub_cards.results import FEW_VIDEOS

TEMPLATE = Path(__file__).with_name("training_card.md")
_METRICS = {
    "srcc": "Spearman correlation with the ratings",
    "plcc": "Pearson correlation with the ratings",
    "level_accuracy": "Share of right levels",
}


def training_card(
    *,
    repository: str,
    base: str,
    data: list[str],
    results: dict[str, dict[str, float]],
    adapter: bool,
    what: str,
    learned: str,
    settings: dict[str, Any],
) -> ModelCard:
    """Fill the template.

    Args:
        repository: Hub id of what is pushed.
        base: Hub id or name of the checkpoint that it was trained from.
        data: names of the data sets.
        results: "srcc", "plcc", "level_accuracy" and "n" of each split; those that are there go into the card's
            `model-index`, but for correlations over fewer than 30 videos, which are chance. Others, such as
            "sharpness_srcc", are of further questions.
        adapter: whether it needs its base to be loaded.
        what: what was trained, in words.
        learned: which videos it learned from, in words.
        settings: names and values for the last table.
    """
    name = repository.rpartition("/")[2]
    evaluations = [
        EvalResult(
            task_type="video-text-to-text",
            task_name="Video quality assessment",
            dataset_type=", ".join(data),
            dataset_name=", ".join(data),
            dataset_split=split,
            metric_type=metric,
            metric_name=_METRICS[metric],
            metric_value=round(value, 4),
        )
        for split, result in results.items()
        for metric, value in result.items()
        if metric in _METRICS and (metric == "level_accuracy" or result.get("n", 0) >= FEW_VIDEOS)
    ]
    card_data = ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag="video-text-to-text",
        tags=["video-quality-assessment", "lmm-vqa"],
        base_model=base if base.count("/") == 1 else None,
        model_name=name,
        eval_results=evaluations or None,
    )
    return ModelCard.from_template(
        card_data,
        str(TEMPLATE),
        name=name,
        repository=repository,
        base=base,
        base_is_public=base.count("/") == 1,
        few=FEW_VIDEOS,
        learned=learned,
        data=", ".join(data),
        results=results,
        further=[
            (split, metric.replace("_", " "), value)
            for split, result in results.items()
            for metric, value in result.items()
            if metric not in (*_METRICS, "n")
        ],
        adapter=adapter,
        what=what,
        settings=settings,
    )
