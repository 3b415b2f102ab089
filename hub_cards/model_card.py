"""The card of a model: what the Hub reads in its header, and what people read below it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hub_cards.results import CardError, Result, check_figures, read_results

TEMPLATE = Path(__file__).with_name("model_card.md")
PAPER = "https://arxiv.org/abs/2408.14008"
# In a checkpoint's folder: what its card is made of.
FACTS_FILE, RESULTS_FOLDER = "card.yaml", "results"


@dataclass(frozen=True)
class ModelPart:
    """A part of a checkpoint, where it is from, and its licence."""

    part: str
    source: str
    licence: str


@dataclass(frozen=True)
class ModelFacts:
    """What only the maker of a checkpoint knows: `card.yaml` in its folder.

    Args:
        title: name of the model, for people.
        predicts: what the score is a prediction of, to go on the sentence "The score predicts ...".
        licence: a licence id of the Hub, for the whole.
        parts: what it is made of.
        training_data: Markdown; what it learned from.
        limits: what it can't know or do, each a sentence or two.
        base_models, datasets: Hub ids.
        set_names: what people call the data sets that results were measured on, by their names in the results files.
    """

    title: str = "An LMM-VQA model"
    predicts: str = "what its training data hold; its maker has not said what that is"
    licence: str = "other"
    parts: tuple[ModelPart, ...] = ()
    training_data: str = "Not stated by whoever published this model."
    limits: tuple[str, ...] = ("Its limits were not stated: try it on videos of your own kind before you rely on it.",)
    base_models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    set_names: Mapping[str, str] = field(default_factory=dict)


def read_facts(file: Path) -> ModelFacts:
    """The facts in a `card.yaml`; without the file, those that are true of any model.

    Raises:
        CardError: a key is unknown, or the file is no YAML.
    """
    if not file.is_file():
        return ModelFacts()
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        known = {item.name for item in fields(ModelFacts)}
        if unknown := sorted(set(content) - known):
            raise CardError(f"{file}: unknown key {', '.join(unknown)}. Known are {', '.join(sorted(known))}.")
        parts = tuple(ModelPart(**part) for part in content.pop("parts", ()))
        others: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
        }
        return ModelFacts(parts=parts, **others)
    except (yaml.YAMLError, TypeError) as error:
        raise CardError(f"{file} can't be read: {error}") from error


def model_card(
    repo_id: str,
    facts: ModelFacts,
    results: Sequence[Result] = (),
    *,
    base_model: str | None = None,
    config: Any = None,
) -> ModelCard:
    """Fill the template.

    Args:
        repo_id: where the model will be.
        facts: of its maker.
        results: of `read_results`.
        base_model: of an adapter, the checkpoint that it adapts.
        config: the model's `LmmVqaConfig`, for what is counted.

    Raises:
        CardError: a figure in the facts is in no results file.
    """
    whole = [result for result in results if result.part is None]
    # What the Hub ranks beside other models.
    general = [result for result in whole if result.reservation is None]
    data = ModelCardData(
        model_name=facts.title,
        library_name="peft" if base_model else "transformers",
        pipeline_tag="video-text-to-text",
        license=facts.licence,
        language="en",
        tags=["video-quality-assessment", "lmm-vqa", "custom_code"],
        base_model=[base_model] if base_model else list(facts.base_models) or None,
        datasets=list(facts.datasets) or None,
        metrics=sorted({result.metric for result in general}) or None,
        eval_results=[
            EvalResult(
                task_type="video-text-to-text",
                task_name="Video quality assessment",
                dataset_type=result.dataset,
                dataset_name=facts.set_names.get(result.dataset, result.dataset),
                dataset_split=result.split,
                metric_type=result.metric if result.question is None else f"{result.question}_{result.metric}",
                metric_name=result.metric_name,
                metric_value=result.value,
            )
            for result in general
        ]
        or None,
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        repo_id=repo_id,
        facts=facts,
        results=whole,
        parts=[result for result in results if result.part is not None and result.metric == "srcc"],
        base_model=base_model,
        paper=PAPER,
        config=config,
    )
    check_figures(card.text, results)
    return card


def add_model_card(
    folder: Path,
    repo_id: str,
    facts: Path,
    results: Mapping[str, Path],
    *,
    base_model: str | None = None,
    config: Any = None,
) -> None:
    """Put the card into a checkpoint's folder, with the facts and the results that it is made of.

    Args:
        facts: a `card.yaml`, which need not be there.
        results: files `metrics.json` of `lmmvqa evaluate`, by the names that they get.

    Raises:
        CardError: as `model_card` and `read_results` do.
    """
    found = read_results(results[name] for name in sorted(results))
    model_card(repo_id, read_facts(facts), found, base_model=base_model, config=config).save(folder / "README.md")
    if facts.is_file():
        shutil.copy(facts, folder / FACTS_FILE)
    for name, file in results.items():
        (folder / RESULTS_FOLDER).mkdir(exist_ok=True)
        shutil.copy(file, folder / RESULTS_FOLDER / name)
