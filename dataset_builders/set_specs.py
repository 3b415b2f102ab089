"""How every command, recipe and setting names a data set: `NAME=FOLDER` for one that we have a builder of, a folder or
a Hub id alone for one that `lmmvqa data build` exported."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_builders import RATED_SETS
from dataset_builders.label_files import LabelError


@dataclass(frozen=True)
class SetSpec:
    """A named data set.

    Args:
        name: as tables show it.
        builder: one of our builders; None for an exported set.
        folder: what the builder reads (of `rated_videos` a folder or the label file itself), the exported folder, or a
            Hub id.
    """

    name: str
    builder: str | None
    folder: str

    @classmethod
    def parse(cls, text: str, builders: Sequence[str] = RATED_SETS) -> SetSpec:
        """Read `NAME=FOLDER`, `FOLDER` or `owner/name`.

        Args:
            builders: those that are allowed here.

        Raises:
            LabelError: the text names no builder, or no folder that exists.
        """
        builder, found, folder = text.partition("=")
        if found:
            if builder not in builders:
                raise LabelError(
                    f"{text}: there is no set {builder!r}{_meant(builder, builders)}. Choose one of "
                    f"{', '.join(builders)}, or name an exported folder alone."
                )
            place = Path(folder).expanduser()
            if not folder or not place.exists():
                raise LabelError(f"{text}: {folder or 'the folder'} does not exist. Write {builder}=FOLDER.")
            return cls(builder, builder, str(place.absolute()))
        place = Path(text).expanduser()
        if not place.is_dir() and text.count("/") != 1:
            if text in builders:
                raise LabelError(f"{text} needs its folder: write {text}=FOLDER.")
            raise LabelError(
                f"{text} is neither a folder nor a Hub id (owner/name){_meant(text, builders)}. For your own rated "
                "videos, write rated_videos=FOLDER; for a set as its owners release it, NAME=FOLDER with one of "
                f"{', '.join(builders)}."
            )
        return cls(place.name, None, str(place) if place.is_dir() else text)

    def __str__(self) -> str:
        return self.folder if self.builder is None else f"{self.builder}={self.folder}"

    @property
    def source(self) -> dict[str, str]:
        """Keywords of `datasets.load_dataset` and `load_dataset_builder`."""
        if self.builder is None:
            return {"path": self.folder}
        return {"path": self.builder, "data_files" if Path(self.folder).is_file() else "data_dir": self.folder}


def not_exported(folder: str, error: Exception) -> LabelError:
    """What a person should do whose folder or Hub id does not load as an exported set."""
    return LabelError(
        f"{folder} is not an exported set with these questions ({str(error).splitlines()[0]}): name your own rated "
        f"videos as rated_videos={folder}, a set as its owners release it as NAME=FOLDER, or export it with `lmmvqa "
        "data build`."
    )


def _meant(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.65)
    return f" (did you mean {close[0]}?)" if close else ""
