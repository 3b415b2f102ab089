"""The card of the demo's Space."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from huggingface_hub import SpaceCard, SpaceCardData

TEMPLATE = Path(__file__).with_name("demo_card.md")


def demo_card(repo_id: str, model: str) -> SpaceCard:
    """Fill the template for a Space `repo_id` that shows the model `model`, both Hub ids."""
    try:
        tried_with = version("gradio")
    # Then the Space runs with the newest one.
    except PackageNotFoundError:
        tried_with = None
    data = SpaceCardData(
        title="Video quality",
        emoji="🎞️",
        colorFrom="indigo",
        colorTo="green",
        sdk="gradio",
        sdk_version=tried_with,
        app_file="app.py",
        license="apache-2.0",
        models=[model],
        tags=["video-quality-assessment", "lmm-vqa"],
        short_description="How good does a video look, and when?",
    )
    return SpaceCard.from_template(data, template_path=str(TEMPLATE), repo_id=repo_id, model=model)
