"""The card of an exported data set: what the Hub and `load_dataset` read in its header, and what people read below
it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import DatasetInfo
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

TEMPLATE = Path(__file__).with_name("data_set_card.md")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LICENCES = {
    "cc-by-4.0": "The videos and ratings are under CC BY 4.0; name their owners, above.",
    "other": "The ratings and the videos belong to the owners of the set, above: their terms hold for this copy too.",
    "unknown": "Not stated. Whoever publishes this set states under which terms.",
}

# How the card says where the videos are: on the machine that made the set, and for everyone.
_HERE = (
    "`video.path` is where they were on the machine that made this set. Elsewhere, download the\n"
    "videos from their owners and put your folder in place of `{root}`."
)
_ANYWHERE = "Download them from their owners: `video.path` is relative to the folder\nof the downloaded set."


def local_root(card: str) -> str | None:
    """The folder of this machine that a card names; None where it names none."""
    before, after = _HERE.split("{root}")
    return card.partition(before)[2].partition(after)[0] or None


def without_local_root(card: str) -> str:
    """The card for everyone, whose rows hold relative paths."""
    root = local_root(card)
    return card if root is None else card.replace(_HERE.format(root=root), _ANYWHERE)


def data_set_card(
    *,
    title: str,
    licence: str,
    infos: dict[str, DatasetInfo],
    data_files: dict[str, dict[str, list[str]]],
    default: str,
    **words: Any,
) -> DatasetCard:
    """Fill the template.

    Args:
        title: name of the set.
        licence: a licence id of the Hub: "cc-by-4.0", "other" or "unknown".
        infos: features and splits of each configuration.
        data_files: path patterns of each configuration and split, relative to the card.
        default: the configuration that is loaded when none is named.
        words: whatever else the template names.
    """
    rows = sum(split.num_examples for split in infos[default].splits.values())
    data = DatasetCardData(
        pretty_name=title,
        license=licence,
        language=["en"],
        task_categories=["video-text-to-text"],
        tags=["video-quality-assessment", "lmm-vqa"],
        size_categories=[next((name for limit, name in _SIZES if rows < limit), "n>1M")],
    )
    MetadataConfigs(
        {
            name: {
                "data_files": [{"split": split, "path": paths} for split, paths in splits.items()],
                **({"default": True} if name == default else {}),
            }
            for name, splits in data_files.items()
        }
    ).to_dataset_card_data(data)
    DatasetInfosDict(infos).to_dataset_card_data(data)
    return DatasetCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=title,
        licence=_LICENCES[licence],
        where_videos_are=_HERE.format(root=words["root"]),
        splits=list(infos[default].splits),
        counts={
            name: {split: part.num_examples for split, part in info.splits.items()} for name, info in infos.items()
        },
        **words,
    )
