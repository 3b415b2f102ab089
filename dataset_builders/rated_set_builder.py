"""Rated videos as questions and answers: matching, folds, levels and rows, the same for all rated sets."""

from __future__ import annotations

import abc
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import datasets
import numpy as np

from dataset_builders.label_files import (
    LabelError,
    composed,
    files_below,
    find_label_file,
    read_benchmark_labels,
    without_video_suffix,
)
from dataset_builders.release_builder import MESSAGES, ReleaseBuilder, ReleaseConfig
from processing.errors import InputError
from processing.quality_prompts import LEVELS, QUESTIONS, TASKS, conversation, question_of
from processing.questions import MAX_SCORE, Question, QuestionError
from processing.video_names import is_video

FOLDS = 5
# Where no scale is stated, ratings that all give scores up to this one are on another scale than the set's.
CROWDED = 10.0


# Columns of label files and of rows that mean something else, here or in training.
_TAKEN = (
    *("id", "video", "mos", "task", "messages", "answer", "split", "fold", "scale", "content", "family", "kind"),
    *("source", "features", "sha256", "warning"),
)


class Rating(NamedTuple):
    """A row of a label file: `mos` is as rated, NaN if the row has none. The others are for label files that state
    them: the fold in which the video is tested, the MOS that become the scores 0 and 100, the video's path, where the
    row stands (for errors), whether the rows have the order of the owners' file (on which the folds of the protocol
    rest), what the video is a copy of, the kinds of distortion that it shows, and the labels that answer further
    questions: numbers from 0 to 100, or words as `Question.words` reads them."""

    id: str
    mos: float
    split: str = "train"
    fold: int | None = None
    scale: tuple[float, float] | None = None
    file: str | None = None
    place: str | None = None
    in_order: bool = True
    content: str | None = None
    family: str | None = None
    kind: str | None = None
    labels: Mapping[str, float | str] | None = None


class RatedVideo(NamedTuple):
    """A rating with all that follows from it: `score` is on 0-100, `path` is None if the video is not there."""

    id: str
    path: str | None
    mos: float
    score: float
    level: str
    split: str
    fold: int | None
    content: str | None = None
    family: str | None = None
    kind: str | None = None
    labels: Mapping[str, float | str] | None = None


class Survey(NamedTuple):
    """What a folder holds: all rated videos in the order of the label file, and what doesn't match.

    `thresholds` are the scores strictly above which a video is fair, and good. `scale` are the MOS that become the
    scores 0 and 100, None where rows have scales of their own. `unrated` are rows without a rating, `unused` the videos
    (paths relative to the root) that no row names or that come second to another file of that name.
    """

    videos: list[RatedVideo]
    thresholds: tuple[float, float]
    scale: tuple[float, float] | None
    unrated: list[str]
    unused: list[str]


@dataclass
class RatedSetConfig(ReleaseConfig):
    """Options of the rated sets, all of them keywords of `load_dataset`.

    Args:
        levels: "tertiles", equal thirds of the training split (scores equal to a threshold fall into the lower level),
            or "authors", the percentiles 33 and 66 of the whole set; for LSVQ their constants 55.5 and 65.0.
        question: "drawn" for training, by a hash of the seed, the task and the video's id, or "fixed" for evaluation.
        fold: 0 to 4 gives the splits train and test of that fold instead of the set's own splits.
        seed: draws the questions, and LSVQ's validation split.
        questions: what else is asked, by name or as mappings of the fields of `Question` (see `question_of`). A video
            whose label file has no answer to one is not asked it.
    """

    levels: Literal["tertiles", "authors"] = "tertiles"
    question: Literal["drawn", "fixed"] = "drawn"
    fold: int | None = None
    seed: int = 0
    questions: Sequence[Mapping[str, Any] | str] = ()

    @property
    def further(self) -> tuple[Question, ...]:
        """What else is asked.

        Raises:
            QuestionError: a question can't be asked.
        """
        found = tuple(map(question_of, self.questions))
        for question in found:
            if question.name in (*TASKS, *_TAKEN):
                raise QuestionError(
                    f"A question can't have the name {question.name}, because that column means something else: "
                    "choose another name."
                )
        return found

    def check(self) -> None:
        """
        Raises:
            ValueError: an option has a value that is not allowed.
        """
        for option, allowed in (
            ("levels", ("tertiles", "authors")),
            ("question", ("drawn", "fixed")),
            ("fold", (None, *range(FOLDS))),
        ):
            value = getattr(self, option)
            if value not in allowed:
                raise InputError(f"{option}={value!r} is unknown: choose one of {', '.join(map(str, allowed))}.")


class RatedSetBuilder(ReleaseBuilder):
    """One rated set: `ratings` reads its label file, `video_id` names its videos; the rest is the same for all.

    The path of the data: label file -> `ratings` -> `survey` (folds, splits, levels, paths) -> `items` -> `rows`.
    """

    BUILDER_CONFIG_CLASS = RatedSetConfig
    BUILDER_CONFIGS: ClassVar = [RatedSetConfig(name=name) for name in ("score", "level", "score_and_level")]
    DEFAULT_CONFIG_NAME = "score_and_level"

    TITLE: ClassVar[str]
    SOURCE: ClassVar[str]
    LICENCE: ClassVar[str] = "other"
    # The MOS that become the scores 0 and 100. The authors multiply ratings of 1 to 5 by 20, which is (0, 5).
    SCALE: ClassVar[tuple[float, float]] = (0.0, 100.0)
    HAS_FOLDS: ClassVar[bool] = True
    # Fields of `RatedVideo` that stand in the rows too: an owner's own set says what its videos are copies of.
    GROUPS: ClassVar[tuple[str, ...]] = ()
    # Rows of the label files in use, by split; several where several releases are in use.
    PUBLISHED_ROWS: ClassVar[dict[str, tuple[int, ...]]] = {}

    @abc.abstractmethod
    def ratings(self, root: Path, files: list[str]) -> list[Rating]:
        """The rows of the label files below `root`, in their order; `files` are all files below it."""

    @staticmethod
    def is_rated(path: str) -> bool:
        """Whether a file below the folder may be one that was rated."""
        return is_video(path)

    def video_id(self, file: str) -> str | None:
        """The id in the labels of the video at a path relative to the root; None if it can't be of the set."""
        return without_video_suffix(file).rpartition("/")[2]

    def benchmark_ratings(self, root: Path, files: list[str], splits: dict[str, str]) -> list[Rating]:
        """The rows of label files in the form that benchmarks pass on, for where the owners' file is not at hand.

        Args:
            splits: the split that each file holds, by its name.

        Raises:
            LabelError: none of the files is there.
        """
        names = [name for name in splits if any(file.rpartition("/")[2].lower() == name for file in files)]
        found = [(find_label_file(root, files, name), splits[name]) for name in names or splits]
        return [
            Rating(self.video_id(name) or name, mos, split, in_order=False)
            for path, split in found
            for name, mos in read_benchmark_labels(path)
        ]

    def match(self, root: Path, rated: list[Rating], files: list[str]) -> tuple[dict[str, str], list[str]]:
        """The path of each rated video that is there, by id, and the videos (relative to `root`) that are left over."""
        ids = {rating.id for rating in rated}
        paths: dict[str, str] = {}
        unused = []
        for file in filter(self.is_rated, files):
            name = self.video_id(composed(file))
            if name in ids and name not in paths:
                paths[name] = f"{root}/{file}"
            else:
                unused.append(file)
        return paths, unused

    def folds(self, rated: list[Rating]) -> list[int | None]:
        """The fold in which each video is tested, 0 to 4; None where the set or the label file has none."""
        known = self.HAS_FOLDS and all(rating.in_order for rating in rated)
        return [*protocol_folds(len(rated))] if known else [None] * len(rated)

    def author_thresholds(self, scores: np.ndarray) -> tuple[float, float]:
        """The scores (of the whole set) strictly above which a video is fair, and good, in the authors' protocol."""
        fair, good = np.percentile(scores, (33, 66))
        return float(fair), float(good)

    def survey(self) -> Survey:
        """Read the folder.

        Folds, validation split and thresholds come from the label file alone: they are the same wherever the same label
        file is, whichever videos are there.

        Raises:
            LabelError: the folder is not the set, a video is named twice, a rating is off the scale, or the option fold
                is set where there are no folds.
        """
        root = self.root()
        files = files_below(root)
        listed = self.ratings(root, files)
        rated = [rating for rating in listed if not math.isnan(rating.mos)]
        if not rated:
            raise LabelError(f"{self.dataset_name}: the label file below {root} has no rated rows.")
        if boundless := next((rating for rating in rated if math.isinf(rating.mos)), None):
            raise LabelError(f"{boundless.place or boundless.id}: {boundless.mos} is no rating.")
        twice = [name for name, count in Counter(rating.id for rating in listed).items() if count > 1]
        if twice:
            places = [rating.place for rating in listed if rating.id == twice[0] and rating.place]
            where = f" ({' and '.join(places)})" if places else ""
            raise LabelError(
                f"{self.dataset_name}: the labels in {root} name a video twice: {', '.join(twice[:3])}{where}."
            )
        rated = [rating._replace(fold=fold) for rating, fold in zip(rated, self.folds(rated), strict=True)]
        if self.config.fold is not None:
            rated = [rating._replace(split=self._split_of_fold(rating)) for rating in rated]

        scores = np.array([self._score(rating) for rating in rated])
        self._check_scale(rated, scores)
        if self.config.levels == "authors":
            thresholds = self.author_thresholds(scores)
        else:
            training = np.array([rating.split == "train" for rating in rated])
            thresholds = tertiles(scores[training] if training.any() else scores)

        paths, unused = self.match(root, rated, files)
        videos = [
            RatedVideo(
                id=rating.id,
                path=paths.get(rating.id),
                mos=rating.mos,
                score=float(score),
                level=level_of(score, thresholds),
                split=rating.split,
                fold=rating.fold,
                content=rating.content,
                family=rating.family,
                kind=rating.kind,
                labels=rating.labels,
            )
            for rating, score in zip(rated, scores, strict=True)
        ]
        scales = {rating.scale or self.SCALE for rating in rated}
        unrated = [rating.id for rating in listed if math.isnan(rating.mos)]
        return Survey(videos, thresholds, scales.pop() if len(scales) == 1 else None, unrated, unused)

    def report_missing(self, survey: Survey) -> None:
        """Say, or with `strict` refuse, that rows and videos don't match.

        Raises:
            LabelError: as `report` does.
        """
        self.report(
            [video.id for video in survey.videos if video.path is None] + survey.unrated,
            survey.unused,
            len(survey.videos) + len(survey.unrated),
        )

    def items(self) -> dict[str, list[RatedVideo]]:
        survey = self.survey()
        self.report_missing(survey)
        self.info.description = f"{self.TITLE}. {describe_levels(survey)}"
        splits: dict[str, list[RatedVideo]] = {}
        for video in survey.videos:
            if video.path is not None:
                splits.setdefault(video.split, []).append(video)
        return splits

    def rows(self, item: RatedVideo) -> list[dict[str, Any]]:
        labels = {"score": item.score, "level": item.level, **(item.labels or {})}
        rows = []
        for question in (*(QUESTIONS[name] for name in self.config.name.split("_and_")), *self.config.further):
            if question.name not in labels:
                continue
            asked = (
                question.fixed if self.config.question == "fixed" else question.drawn(item.id, seed=self.config.seed)
            )
            answer = question.answer(labels[question.name])
            row = {
                "id": item.id,
                "video": {"path": item.path, "bytes": None},
                "task": question.name,
                "messages": conversation(asked, answer=answer),
                "answer": answer,
                "mos": item.mos,
                "score": item.score,
                "level": item.level,
                "fold": item.fold,
                **{name: getattr(item, name) for name in self.GROUPS},
                **{each.name: labels.get(each.name) for each in self.config.further},
            }
            rows.append(row)
        return rows

    def _info(self) -> datasets.DatasetInfo:
        self.config.check()
        features = {
            "id": datasets.Value("string"),
            "video": datasets.Video(decode=False),
            "task": datasets.Value("string"),
            "messages": MESSAGES,
            "answer": datasets.Value("string"),
            "mos": datasets.Value("float64"),
            "score": datasets.Value("float64"),
            "level": datasets.Value("string"),
        }
        if self.HAS_FOLDS:
            features["fold"] = datasets.Value("int8")
        features |= dict.fromkeys(self.GROUPS, datasets.Value("string"))
        for question in self.config.further:
            features[question.name] = datasets.Value("float64" if question.kind == "number" else "string")
        return datasets.DatasetInfo(features=datasets.Features(features), citation=self.SOURCE, license=self.LICENCE)

    def _split_of_fold(self, rating: Rating) -> str:
        if rating.fold is None:
            raise LabelError(
                f"{self.dataset_name} has no folds, so fold={self.config.fold} is impossible: leave the option out"
                f"{', or give every row a column fold with 0 to 4' if self.HAS_FOLDS else ''}."
            )
        return "test" if rating.fold == self.config.fold else "train"

    def _check_scale(self, rated: Sequence[Rating], scores: np.ndarray) -> None:
        """
        Raises:
            LabelError: a rating is off its scale, or all ratings crowd at the lower end of a scale that nobody stated.
        """
        off = np.flatnonzero((scores < 0) | (scores > MAX_SCORE))
        if off.size:
            first = rated[off[0]]
            low, high = first.scale or self.SCALE
            raise LabelError(
                f"{first.place or self.dataset_name}: {first.id} is rated {first.mos:g}, off the scale "
                f"{low:g} to {high:g}: {self._scale_remedy(rated)}"
            )
        unstated = [(rating.mos, score) for rating, score in zip(rated, scores, strict=True) if rating.scale is None]
        if unstated and max(score for _, score in unstated) <= CROWDED:
            lowest, highest = min(unstated)[0], max(unstated)[0]
            low, high = self.SCALE
            raise LabelError(
                f"{self.dataset_name}: all {len(unstated)} ratings lie between {lowest:g} and {highest:g}, and would "
                f"be taken as points on a scale from {low:g} to {high:g}: {self._scale_remedy(rated)}"
            )

    def _scale_remedy(self, rated: Sequence[Rating]) -> str:
        return "are these the labels of this set?"

    def _score(self, rating: Rating) -> float:
        low, high = rating.scale or self.SCALE
        return MAX_SCORE * (rating.mos - low) / (high - low)


def protocol_folds(count: int) -> list[int]:
    """The fold (0 to 4) in which each row of a label file is tested, in the authors' protocol.

    They draw `frame.sample(frac=1, random_state=1)` and split it with `numpy.array_split(., 5)`; pandas draws that
    sample with the frozen generator used here (facts: the authors' published folds come out exactly).
    """
    folds = np.empty(count, dtype=int)
    for fold, rows in enumerate(np.array_split(np.random.RandomState(1).permutation(count), FOLDS)):
        folds[rows] = fold
    return folds.tolist()


def tertiles(scores: np.ndarray) -> tuple[float, float]:
    """The last scores of the lower and of the middle third: strictly above them a video is fair, and good."""
    ordered = np.sort(scores)
    lower, middle = (float(ordered[math.ceil(len(ordered) * third / 3) - 1]) for third in (1, 2))
    return lower, middle


def level_of(score: float, thresholds: tuple[float, float]) -> str:
    return LEVELS[sum(score > threshold for threshold in thresholds)]


def describe_levels(survey: Survey) -> str:
    """Where the levels part, in words and in the units of the ratings, as it is stored with a data set."""
    fair, good = survey.thresholds
    if survey.scale in (None, (0.0, MAX_SCORE)):
        return f"Levels: good above a score of {good:g}, fair above {fair:g}, else poor (scores are 0 to {MAX_SCORE})."
    low, high = survey.scale
    rated = [low + (high - low) * score / MAX_SCORE for score in (good, fair)]
    return (
        f"Levels: good above a rating of {rated[0]:.3g}, fair above {rated[1]:.3g}, else poor (ratings count from "
        f"{low:g} to {high:g}; on 0 to {MAX_SCORE}, that is above {good:.3g} and {fair:.3g})."
    )
