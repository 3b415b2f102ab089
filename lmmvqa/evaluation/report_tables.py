"""The tables of a report: the paper's nine with our runs beside the published figures, every figure of each run, how
runs differ on the same videos, and what follows from all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from hub_cards.results import FEW_VIDEOS
from lmmvqa.evaluation.finished_runs import Ablations, Benchmark, Run
from lmmvqa.evaluation.published import Published
from lmmvqa.evaluation.table_cells import between, spread, spread_of_words, three_decimals
from lmmvqa.evaluation.vcgbench import ASPECTS
from lmmvqa.evaluation.vqa_metric.vqa_metric import paired_difference
from processing.quality_prompts import LEVELS

# The paper's tables of correlations: the protocol of runs that stand in each, and whether they are of models that were
# not trained for quality.
_CORRELATIONS: dict[str, tuple[tuple[str, ...], bool]] = {
    "I": (("in-sample", "ood"), True),
    "III": (("in-sample",), False),
    "IV": (("ood",), False),
    "V": (("5fold",), False),
}
# The tables of a grid of ablations that stand beside each of the paper's.
_ABLATIONS = {
    "VII": ("temporal tokens", "decoder", "tasks"),
    "VIII projector": ("spatial projector",),
    "VIII training data": ("training data",),
    "VIII temporal tokens": ("slow tokens",),
}
_PROTOCOLS = {"in-sample": "in-sample", "ood": "out of distribution", "5fold": "fine-tuned", "levels": "levels"}
# Of the videos of a set, what a figure must be of to stand beside those of all of them.
_NEARLY_ALL = 0.9


@dataclass(frozen=True)
class GridTable:
    """A title, the head and the body of a table, as text; the first `ours` rows are our own."""

    title: str
    head: list[str]
    body: list[list[str]]
    note: str = ""
    ours: int = 0

    def markdown(self) -> str:
        lines = [f"### {self.title}", "", _markdown_row(self.head), "| --- " * len(self.head) + "|"]
        lines += [_markdown_row(row) for row in self.body]
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])


def _markdown_row(cells: Sequence[str]) -> str:
    """Names may hold what ends a cell."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


@dataclass(frozen=True)
class Difference:
    """What `paired_difference` found of two runs on the videos that both have of a set and split."""

    key: str
    protocol: str
    first: str
    second: str
    found: Mapping[str, Any]


def paper_tables(
    runs: Sequence[Run], ablations: Sequence[Ablations], benchmarks: Sequence[Benchmark], published: Published
) -> list[GridTable]:
    """The paper's tables I to IX, ours first, then the published figures with their source."""
    tables = [
        _correlations("I", runs, published),
        _sets(published),
        *(_correlations(table, runs, published) for table in ("III", "IV", "V")),
        _levels(runs, published),
        *(_ablation(table, ablations, published) for table in _ABLATIONS),
        _understanding(benchmarks, published),
    ]
    return tables


def set_key(row: Mapping[str, Any]) -> str:
    """How published figures name the set and split of a row of figures."""
    return row["set"] if row["split"] in ("all", "mean of folds") else f"{row['set']}_{row['split']}"


def reservation(row: Mapping[str, Any]) -> str | None:
    """Why a row of figures must not stand beside others; None where it may."""
    if row["n"] < FEW_VIDEOS:
        return f"n = {row['n']}: says nothing"
    if row.get("seen"):
        return f"the checkpoint has learned from {row['seen']} of the {row['videos']} videos"
    return None


def _standing(run: Run) -> list[dict[str, Any]]:
    return [row for row in run.whole if reservation(row) is None]


def _is_zero_shot(run: Run) -> bool:
    return run.settings.get("method") == "zero-shot"


def _of_part(row: Mapping[str, Any], published: Published) -> str:
    """Says so, where figures are of a part of a set that others measured whole."""
    known = published.sets.get(set_key(row))
    return f" (n = {row['n']:,})" if known and row["n"] < _NEARLY_ALL * min(known["videos"]) else ""


def _correlations(table: str, runs: Sequence[Run], published: Published) -> GridTable:
    """Methods as rows, sets as columns, SRCC / PLCC."""
    protocols, zero_shot = _CORRELATIONS[table]
    chosen = [run for run in runs if run.settings["protocol"] in protocols and _is_zero_shot(run) == zero_shot]
    ours: list[tuple[str, dict[str, dict[str, Any]]]] = []
    for run in chosen:
        measured = {set_key(row): row for row in _standing(run)}
        # Runs of one method on several sets are one row.
        same = (rows for name, rows in ours if name == run.name and not rows.keys() & measured.keys())
        if (rows := next(same, None)) is not None:
            rows |= measured
        elif measured:
            ours.append((run.name, measured))
    theirs = published.rows(table)
    keys = list(dict.fromkeys([*(k for row in theirs.values() for k in row), *(k for _, rows in ours for k in rows)]))
    body = [
        [
            name,
            *(
                f"{three_decimals(rows[key].get('srcc'))} / {three_decimals(rows[key].get('plcc_fitted'))}"
                + _of_part(rows[key], published)
                if key in rows
                else "-"
                for key in keys
            ),
            "measured",
        ]
        for name, rows in ours
    ]
    for (method, source), rows in theirs.items():
        pairs = [(rows.get(key, {}).get("srcc"), rows.get(key, {}).get("plcc")) for key in keys]
        body.append([method, *(" / ".join(map(three_decimals, pair)) if any(pair) else "-" for pair in pairs), source])
    words = published.tables[table]
    note = f"SRCC / PLCC; ours: PLCC after the four-parameter logistic fit. {words['note']}"
    return GridTable(
        words["title"], ["method", *(published.name(key) for key in keys), "source"], body, note, len(ours)
    )


def _sets(published: Published) -> GridTable:
    words = published.tables["II"]
    rows = published.rated_sets
    return GridTable(
        words["title"], list(rows[0]), [[str(cell) for cell in row.values()] for row in rows], words["note"]
    )


def _levels(runs: Sequence[Run], published: Published) -> GridTable:
    head, body = ["method", "set", *LEVELS, "total", "source"], []
    for run in runs:
        for row in _standing(run):
            if accuracy := row.get("level_accuracy"):
                cells = [three_decimals(accuracy.get(level)) for level in (*LEVELS, "total")]
                source = "measured" if row.get("levels_by", "answer") == "answer" else "measured, by rank"
                if run.settings.get("levels") == "authors":
                    source += ", the authors' levels"
                name = published.name(set_key(row)) + _of_part(row, published)
                body.append([run.name, name, *cells, source])
    ours = len(body)
    for (method, source), sets in published.rows("VI").items():
        for key, values in sets.items():
            cells = [three_decimals(values.get(f"level_accuracy_{level}")) for level in (*LEVELS, "total")]
            body.append([method, published.name(key), *cells, source])
    words = published.tables["VI"]
    return GridTable(words["title"], head, body, words["note"], ours)


def _ablation(table: str, ablations: Sequence[Ablations], published: Published) -> GridTable:
    theirs = published.rows(table)
    timed = any("seconds_per_video" in values for sets in theirs.values() for values in sets.values())
    body = []
    for item in ablations:
        for row in item.rows:
            if row["table"] in _ABLATIONS[table]:
                for part in row["figures"]:
                    if part["part"] is None:
                        pair = f"{three_decimals(part.get('srcc'))} / {three_decimals(part.get('plcc_fitted'))}"
                        seconds = [_seconds(row.get("seconds"))] if timed else []
                        said = reservation(part) or spread(part, "srcc")
                        name = f"{row['table']}: {row['name']}"
                        body.append([name, published.name(set_key(part)), pair, said, *seconds, "measured"])
    ours = len(body)
    for (method, source), sets in theirs.items():
        for key, values in sets.items():
            pair = " / ".join(three_decimals(values.get(name)) for name in ("srcc", "plcc"))
            seconds = [_seconds(values.get("seconds_per_video"))] if timed else []
            body.append([method, published.name(key), pair, "-", *seconds, source])
    words = published.tables[table]
    head = ["row", "set", "SRCC / PLCC", "95 % of SRCC", *(["seconds a video"] if timed else []), "source"]
    return GridTable(words["title"], head, body, words["note"], ours)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _understanding(items: Sequence[Benchmark], published: Published) -> GridTable:
    body = []
    for item in items:
        means = [entry["mean"] for entry in item.scores["aspects"].values()]
        marks = [_seconds(mean) for mean in (*means, item.scores["mean"])]
        body.append([item.scores["model"], *marks, item.scores["judge"], "measured"])
    for (method, source), sets in published.rows("IX").items():
        values = [sets["vcgbench"][aspect] for aspect in ASPECTS]
        body.append([method, *(_seconds(mark) for mark in (*values, fmean(values))), "-", source])
    words = published.tables["IX"]
    return GridTable(words["title"], ["method", *ASPECTS, "mean", "judge", "source"], body, words["note"], len(items))


def _further(
    runs: Sequence[Run], published: Published, *, words: bool
) -> Iterator[tuple[list[str], dict[str, Any], str]]:
    """The figures of further questions: the cells that say of what, what was found, and the reservation about it."""
    for run in runs:
        for row in run.whole:
            for name, of in (row.get("questions") or {}).items():
                if ("confusion" in of) == words:
                    cells = [run.name, published.name(set_key(row)), name, f"{of['n']:,}"]
                    yield cells, of, reservation(row | {"n": of["n"]}) or ""


def dimension_table(runs: Sequence[Run], published: Published) -> GridTable | None:
    """Numbers that were asked for beside the score; None where none were."""
    body = [
        [
            *cells,
            three_decimals(of.get("srcc")),
            spread(of, "srcc"),
            three_decimals(of.get("plcc_fitted")),
            reserved,
        ]
        for cells, of, reserved in _further(runs, published, words=False)
    ]
    head = ["method", "set", "dimension", "n", "SRCC", "95 %", "PLCC", "but"]
    note = "PLCC after the four-parameter logistic fit. Folds are taken together."
    return GridTable("Dimensions", head, body, note) if body else None


def word_table(runs: Sequence[Run], published: Published) -> GridTable | None:
    """Words that were asked for beside the level; None where none were."""
    body = [
        [
            *cells,
            three_decimals(of["balanced_accuracy"]),
            spread_of_words(of),
            *(
                three_decimals(of.get(each))
                for each in ("chance", "accuracy", "majority", "either_first", "both_in_three")
            ),
            reserved,
        ]
        for cells, of, reserved in _further(runs, published, words=True)
    ]
    head = ["method", "set", "question", "n", "balanced accuracy", "95 %", "chance", "accuracy", "majority",
            "of two: one is first", "of two: both in three", "but"]  # fmt: skip
    note = (
        "The first answer is right where it is one of the label's words. Balanced: the mean over the words of how many "
        "of their videos are rightly called so. Majority: the accuracy of always saying the commonest word."
    )
    return GridTable("What was asked for in words", head, body, note) if body else None


def reserved_table(runs: Sequence[Run], published: Published) -> GridTable | None:
    """Figures that stand beside no others, with the reason; None where there are none."""
    body = [
        [run.name, published.name(set_key(row)), str(row["n"]), three_decimals(row.get("srcc")), why]
        for run in runs
        for row in run.whole
        if (why := reservation(row))
    ]
    note = "These are in none of the tables above: they say nothing about videos in general."
    title = "Figures of too few videos, or of videos that were learned from"
    return GridTable(title, ["method", "set", "n", "SRCC", "why"], body, note) if body else None


def differences(runs: Sequence[Run], resamples: int = 2000) -> list[Difference]:
    """Every pair of runs of one protocol on the videos that both have a prediction for."""
    found = []
    for first, second in combinations(runs, 2):
        protocol = first.settings["protocol"]
        if second.settings["protocol"] != protocol:
            continue
        for row in first.whole:
            other = next((o for o in second.whole if set_key(o) == set_key(row)), None)
            if other is None or reservation(row) or reservation(other):
                continue
            rated = {item["key"]: item for item in first.scored(row)}
            theirs = {item["key"]: item["predicted"] for item in second.scored(other)}
            shared = [key for key in rated if key in theirs]
            if len(shared) < FEW_VIDEOS:
                continue
            contents = [rated[key].get("content") for key in shared]
            result = paired_difference(
                [rated[key]["predicted"] for key in shared],
                [theirs[key] for key in shared],
                [rated[key]["score"] for key in shared],
                groups=contents if all(contents) else None,
                resamples=resamples,
            )
            found.append(Difference(set_key(row), protocol, first.name, second.name, result))
    return found


def difference_table(found: Sequence[Difference], published: Published) -> GridTable | None:
    """None where no two runs share videos."""
    body = [
        [
            published.name(item.key),
            item.first,
            item.second,
            f"{item.found['n']:,}",
            " and ".join(three_decimals(value) for value in item.found["srcc"]),
            three_decimals(item.found["difference"]),
            between(item.found["interval"]),
            _probability(item.found["p"]),
        ]
        for item in found
    ]
    head = ["set", "method", "against", "n", "SRCC of each", "difference", "95 %", "p"]
    note = (
        "Paired bootstrap over the videos that both have (over contents where copies share one): both methods are "
        "measured on the same draws. p is two-sided and not corrected: of twenty pairs without a difference, one has p "
        "below 0.05."
    )
    return GridTable("Differences between methods on the same videos", head, body, note) if body else None


def _probability(p: float | None) -> str:
    if p is None:
        return "-"
    return f"{p:.3f}" if p >= 0.001 else "below 0.001"


def detail_table(run: Run) -> GridTable:
    """Every figure of a run, of each split, fold and part."""
    head = ["set", "split", "part", "n", "SRCC", "95 %", "KRCC", "PLCC raw", "PLCC fitted", "RMSE", "RMSE fitted",
            "ratings", *LEVELS, "total", "in 90 %", "seconds", "seen", "failed", "unparsable"]  # fmt: skip
    body, notes = [], []
    for row in run.metrics:
        accuracy = row.get("level_accuracy") or {}
        scale = row.get("scale")
        seen = row.get("seen")
        body.append(
            [
                row["set"],
                row["split"],
                row["part"] or "all",
                str(row["n"]),
                three_decimals(row.get("srcc")),
                spread(row, "srcc"),
                *(three_decimals(row.get(name)) for name in ("krcc", "plcc", "plcc_fitted", "rmse", "rmse_fitted")),
                f"{scale[0]:g} to {scale[1]:g}" if scale else "as scores",
                *(three_decimals(accuracy.get(level)) for level in (*LEVELS, "total")),
                three_decimals(row.get("interval_holds")),
                _seconds(row.get("seconds")),
                "unknown" if seen is None else str(seen),
                str(row["failed"]),
                str(row["unparsable"]),
            ]
        )
        where = " ".join(filter(None, (row["set"], row["split"], row["part"])))
        notes += [f"{where}: {note}" for note in row["notes"]]
    read_out = f", read-out: {run.settings['readout']}" if run.settings.get("readout") else ""
    return GridTable(f"{run.name}: every figure ({run.settings['protocol']}{read_out})", head, body, " ".join(notes))


def conclusions(runs: Sequence[Run], found: Sequence[Difference], published: Published) -> list[str]:
    """What the figures say, and what they don't, a sentence or two for each run and set."""
    said = []
    for run in runs:
        for row in run.whole:
            where = published.name(set_key(row))
            protocol = _PROTOCOLS[run.settings["protocol"]]
            start = f"{run.name} on {where} ({protocol}, n = {row['n']:,})"
            if why := reservation(row):
                why = why.removeprefix(f"n = {row['n']}: ")
                if row.get("seen"):
                    # What was learned from is out of no distribution.
                    start = f"{run.name} on {where} (n = {row['n']:,})"
                said.append(f"{start}: {why}, so its SRCC of {three_decimals(row.get('srcc'))} is no result.")
                continue
            if row.get("srcc") is None:
                said.append(f"{start}: SRCC is undefined. {' '.join(row['notes'])}")
                continue
            sure = spread(row, "srcc")
            text = f"{start}: SRCC {row['srcc']:.3f}" + (f" ({sure})" if sure != "-" else "")
            rest = [*_against_published(run, row, published), *_against_runs(run, row, found), *_missing(row)]
            said.append(" ".join([f"{text}.", *rest]))
    return said


def _against_published(run: Run, row: Mapping[str, Any], published: Published) -> Iterator[str]:
    tables = [
        name
        for name, (protocols, zero_shot) in _CORRELATIONS.items()
        if run.settings["protocol"] in protocols and _is_zero_shot(run) == zero_shot
    ]
    for table in tables:
        rows = published.rows(table).values()
        theirs = [value for sets in rows if (value := sets.get(set_key(row), {}).get("srcc")) is not None]
        if theirs and not _of_part(row, published):
            higher = sum(value > row["srcc"] for value in theirs)
            verb = "are" if higher > 1 else "is"
            yield f"Of {len(theirs)} published SRCCs for it, {higher or 'none'} {verb} higher."


def _against_runs(run: Run, row: Mapping[str, Any], found: Sequence[Difference]) -> Iterator[str]:
    for item in found:
        if item.key != set_key(row) or item.protocol != run.settings["protocol"] or item.first != run.name:
            continue
        if item.found["p"] is None:
            continue
        if item.found["p"] < 0.05:
            better = "better" if item.found["difference"] > 0 else "worse"
            yield (
                f"It orders the same videos {better} than {item.second} (by {abs(item.found['difference']):.3f}, "
                f"p {_probability(item.found['p'])})."
            )
        else:
            yield f"No difference to {item.second} is shown (p {_probability(item.found['p'])})."


def _missing(row: Mapping[str, Any]) -> Iterator[str]:
    if row["failed"]:
        yield f"{row['failed']} of {row['videos']} videos have no prediction."
    if row.get("levels_by") == "answer" and (accuracy := row.get("level_accuracy")):
        yield f"Its level is right for {accuracy['total']:.0%}."
