"""Rated sets for evaluation: one row a video, from our builders or from exported folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dataset_builders.label_files import LabelError
from dataset_builders.set_specs import SetSpec, not_exported
from processing.errors import InputError
from processing.questions import Question

Protocol = Literal["in-sample", "ood", "5fold", "levels"]
PROTOCOLS: tuple[Protocol, ...] = ("in-sample", "ood", "5fold", "levels")

# Columns of one's own label file that say what kinds of rows to report by themselves.
PARTS = ("family", "kind")


@dataclass(frozen=True)
class RatedRow:
    """One rated video.

    Args:
        set_name: the set's name, as tables show it.
        video: `{"path", "bytes"}`, as an undecoded `datasets` video; with bytes, the path is a name alone. Both are
            None where the video is not there.
        mos: as rated.
        score: the MOS on 0 to 100.
        fold: 0 to 4, the fold in which the video is tested, where the set has folds.
        content: what the video is a copy of; copies of one content are no independent samples.
        parts: such as {"family": "codec"}: tables have rows for these too.
        labels: answers to further questions, by name: numbers from 0 to 100, or words.
        id_of: the id that a path in the set's release stands for, by the names that its owners gave.
    """

    set_name: str
    split: str
    id: str
    video: dict[str, Any]
    mos: float
    score: float
    level: str
    fold: int | None = None
    content: str | None = None
    parts: dict[str, str] = field(default_factory=dict)
    labels: dict[str, float | str] = field(default_factory=dict)
    id_of: Callable[[str], str | None] | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> str:
        """What tells the video apart from all others of a run."""
        return f"{self.set_name}:{self.id}"

    @property
    def source(self) -> Any:
        """What a reader of videos takes."""
        return self.video["path"] if self.video["bytes"] is None else self.video


def read_set(
    spec: SetSpec,
    *,
    levels: str = "tertiles",
    scale: tuple[float, float] | None = None,
    scales: Mapping[str, Sequence[float]] | None = None,
    questions: Sequence[Question] = (),
    videos: bool = True,
) -> list[RatedRow]:
    """All rated videos of a set.

    Args:
        levels: where the levels part; of a builder only, an exported set has its own.
        scale: ratings that become 0 and 100, of the builder `rated_videos` only.
        scales: the same of further numbers, by the question's name.
        questions: beside score and level, whose labels are to be read.
        videos: leave out those whose file is not there; without, the labels alone are enough.

    Raises:
        LabelError, ValueError: the folder is not the set, or no row of it answers one of the questions.
    """
    rows = (
        _exported_rows(spec, questions)
        if spec.builder is None
        else _built_rows(spec, levels, scale, scales, questions, videos)
    )
    for question in questions:
        if not any(question.name in row.labels for row in rows):
            raise LabelError(f"{spec} has no answer to the question {question.name}: give it a column {question.name}.")
    return rows


def _built_rows(
    spec: SetSpec,
    levels: str,
    scale: tuple[float, float] | None,
    scales: Mapping[str, Sequence[float]] | None,
    questions: Sequence[Question],
    videos: bool,
) -> list[RatedRow]:
    import datasets

    import dataset_builders

    dataset_builders.register()
    options: dict[str, Any] = {"levels": levels, "questions": [question.as_data() for question in questions]}
    if spec.builder == "rated_videos":
        options |= {"scale": scale} if scale is not None else {}
        options |= {"scales": {name: tuple(ends) for name, ends in scales.items()}} if scales else {}
    builder = datasets.load_dataset_builder(name="score", **spec.source, **options)
    survey = builder.survey()
    if videos:
        builder.report_missing(survey)
    return [
        RatedRow(
            set_name=spec.name,
            split=video.split,
            id=video.id,
            video={"path": video.path, "bytes": None},
            mos=video.mos,
            score=video.score,
            level=video.level,
            fold=video.fold,
            content=video.content,
            parts={name: value for name in PARTS if (value := getattr(video, name))},
            labels={q.name: video.labels[q.name] for q in questions if q.name in (video.labels or {})},
            id_of=None if spec.builder == "rated_videos" else builder.video_id,
        )
        for video in survey.videos
        if video.path is not None or not videos
    ]


def _exported_rows(spec: SetSpec, questions: Sequence[Question]) -> list[RatedRow]:
    import datasets

    try:
        data = datasets.load_dataset(spec.folder, "score")
    # Errors of several libraries: no such folder, no such configuration, no network.
    except Exception as error:
        raise not_exported(spec.folder, error) from error
    # An exported set may hold its videos; they must not be decoded here.
    data = data.cast_column("video", datasets.Video(decode=False))
    return [
        RatedRow(
            set_name=spec.name,
            split=split,
            id=row["id"],
            video=row["video"],
            mos=row["mos"],
            score=row["score"],
            level=row["level"],
            fold=row.get("fold"),
            content=row.get("content"),
            parts={name: row[name] for name in PARTS if row.get(name)},
            labels={q.name: row[q.name] for q in questions if row.get(q.name) is not None},
        )
        for split, part in data.items()
        for row in part
    ]


def select(rows: Sequence[RatedRow], protocol: Protocol) -> list[RatedRow]:
    """The rows of one set that a protocol tests.

    in-sample: the splits whose name begins with "test". ood: all. 5fold: all, each in its fold. levels: as in-sample,
    or all where the set has no test split.

    Raises:
        ValueError: the set has no such rows; the message says what it has.
    """
    chosen: dict[str, Callable[[RatedRow], bool]] = {
        "in-sample": lambda row: row.split.startswith("test"),
        "ood": lambda row: True,
        "5fold": lambda row: row.fold is not None,
    }
    name = rows[0].set_name if rows else "the set"
    if protocol == "levels":
        return [row for row in rows if row.split.startswith("test")] or list(rows)
    if protocol not in chosen:
        raise InputError(f"{protocol!r} is not a protocol: choose one of {', '.join(PROTOCOLS)}.")
    found = [row for row in rows if chosen[protocol](row)]
    if not found:
        splits = ", ".join(sorted({row.split for row in rows})) or "none"
        remedy = {
            "in-sample": f"it has the splits {splits}: test the whole set with --protocol ood",
            "5fold": "give every row of your own label file a column fold with 0 to 4 (copies of one content in one "
            "fold)",
        }.get(protocol, "look at it with `lmmvqa data check`")
        raise InputError(f"{name} has no videos for the protocol {protocol}: {remedy}.")
    return found
