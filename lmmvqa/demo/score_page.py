"""Scores of many videos as one page: pictures, scores and quality over time, in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lmmvqa.demo import drawing
from modeling_lmmvqa.explaining import explain
from modeling_lmmvqa.video_score import VideoScore, describe_levels
from processing.errors import InputError

_CSS = """
:root { color-scheme: light dark; --vqa-text: #1b1b1f; --vqa-quiet: #5f6068; --vqa-line: #d8d8df;
  --vqa-fill: #f3f3f7; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --vqa-text: #ececf1; --vqa-quiet: #a6a7b0; --vqa-line: #3a3b42;
  --vqa-fill: #25262c; --page: #17181c; } }
body { margin: 0 auto; max-width: 1200px; padding: 1rem; background: var(--page); font: 16px/1.45 system-ui,
  sans-serif; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .5rem; border-bottom: 1px solid var(--vqa-line); text-align: left; vertical-align: middle; }
th button { all: unset; cursor: pointer; font-weight: 600; }
td { overflow-wrap: anywhere; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
td img { width: 128px; max-height: 96px; object-fit: contain; background: #000; display: block; border-radius: 4px; }
td .chart { height: 48px; min-width: 8rem; cursor: default; }
@media (max-width: 700px) {
  thead tr { display: flex; gap: 1rem; } thead th { border: 0; padding-left: 0; }
  thead th:not(:has(button)) { display: none; }
  tbody tr { display: grid; grid-template-columns: 136px 1fr; border-bottom: 1px solid var(--vqa-line); }
  tbody td { border: 0; } tbody td:first-child { grid-row: span 3; } tbody td.wide { grid-column: 1 / -1; }
}
"""

_SCRIPT = """
document.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
  const key = button.dataset.key, body = document.querySelector("tbody"), turn = button.dataset.turn === "1" ? -1 : 1;
  button.dataset.turn = turn;
  const value = (row) => key === "path" ? row.dataset.path : Number(row.dataset[key] || Infinity);
  const order = (a, b) => (key === "path" ? a.localeCompare(b, undefined, {numeric: true}) : a - b) * turn;
  [...body.rows].sort((a, b) => order(value(a), value(b))).forEach((row) => body.append(row));
}));
"""


# By which a page of ours is known.
_MARK = '<meta name="generator" content="lmmvqa">'


def check_replaceable(path: Path) -> None:
    """That a new page may take the place of what has its name: nothing, an empty file, or an earlier page.

    Raises:
        InputError: it is something else; it is left as it was.
    """
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if _MARK.encode() not in file.read(500):
                raise InputError(
                    f"{path} is there already and is no page of scores. Name another file, or move this one away."
                )


def write_page(
    scores: Sequence[VideoScore], path: Path, parts: tuple[Sequence[str], Sequence[float]] = ((), ())
) -> None:
    """Write the page.

    Args:
        scores: with timelines that have key frames, in the order of the rows; a click on a column sorts them anew.
        parts: the level words, worst first, and the scores above which each but the worst begins.

    Raises:
        OSError: the file can't be written.
    """
    levels, bounds = parts
    rows = "\n".join(_row(score, bounds) for score in scores)
    words = f": {describe_levels(levels, bounds)}" if levels else ""
    known = [score.score for score in scores if score.score is not None]
    mean = f", {sum(known) / len(known):.1f} of 100 on average" if known else ""
    heads = (("", ""), ("path", "Video"), ("score", "Score"), ("length", "Length"), ("", "Quality over time"))
    head = "".join(
        f'<th scope="col">{f"<button data-key={key}>{name} ↕</button>" if key else name}</th>' for key, name in heads
    )
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">{_MARK}<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Video quality</title><style>{_CSS}{drawing.CSS}</style></head>
<body class="vqa"><h1>Video quality</h1>
<p>{len(scores):,} video{"s" * (len(scores) != 1)}{mean}. Scores go from 0 (worst) to 100 (best){words}. A score is the
rating that many viewers would give on average, with the range that it is most likely in. Pictures show the worst
second.</p>
<table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table><script>{_SCRIPT}</script></body></html>
"""
    # File names may hold bytes that are no text.
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _row(score: VideoScore, bounds: Sequence[float]) -> str:
    name = escape(score.path, quote=True)
    if score.error is not None or score.timeline is None:
        fault = f'<p class="fault">{escape(str(score.error))}</p>'
        return f'<tr data-path="{name}"><td></td><td>{name}</td><td colspan="3" class="wide">{fault}</td></tr>'
    row = score.as_row()
    worst = score.timeline["worst"]
    picture = f'<img src="{drawing.picture(worst["key_frame"])}" alt="" title="{drawing.clock(worst["start_s"])}">'
    low, high = score.interval or (0.0, 100.0)
    # A picture has no time.
    chart = drawing.timeline(row, bounds, interactive=False) if score.duration_s else ""
    return (
        f'<tr data-path="{name}" data-score="{score.score}" data-length="{score.duration_s}"><td>{picture}</td>'
        f'<td>{name}<br><span class="quiet">{escape(explain(row))}</span>{drawing.notes(row)}</td>'
        f'<td class="number"><span class="pill" style="background:{drawing.colour(score.score or 0.0, bounds)}">'
        f"{score.score:.1f}</span>"
        f' {escape(score.level or "")}<br><span class="quiet">{low:.0f} to {high:.0f}</span></td>'
        f'<td class="number">{drawing.clock(score.duration_s) if score.duration_s else "-"}</td>'
        f'<td class="wide">{chart}</td></tr>'
    )
