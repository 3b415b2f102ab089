"""Scores as HTML, for the page of the demo and for that of a scored folder. Knows neither Gradio nor a model."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

# What both pages need; colours adapt to light and dark by the variables that each page sets.
CSS = """
.vqa { color: var(--vqa-text); line-height: 1.45; }
.vqa .head { display: flex; flex-wrap: wrap; align-items: baseline; gap: .3rem .8rem; }
.vqa .score { font-size: 2.6rem; font-weight: 700; line-height: 1; font-variant-numeric: tabular-nums; }
.vqa .quiet { color: var(--vqa-quiet); font-size: .9rem; }
.vqa .pill { padding: .1rem .7rem; border-radius: 99px; color: #fff; font-weight: 600; }
.vqa .scale { position: relative; height: .7rem; margin: .9rem 0 .3rem; border-radius: 99px;
  background: var(--vqa-line); }
.vqa .range { position: absolute; inset-block: 0; border-radius: 99px; opacity: .55; }
.vqa .mark { position: absolute; inset-block: -.25rem; width: .25rem; margin-left: -.125rem; border-radius: 2px;
  background: var(--vqa-text); }
.vqa .ends { display: flex; justify-content: space-between; gap: .8rem; text-align: center;
  font-size: .85rem; color: var(--vqa-quiet); }
.vqa .chart { position: relative; height: 96px; margin-bottom: 9px; touch-action: manipulation;
  border-block: 1px solid var(--vqa-line); cursor: pointer; }
.vqa .chart svg { display: block; width: 100%; height: 100%; }
.vqa .chart:focus-visible, .vqa button:focus-visible, .vqa a:focus-visible { outline: 3px solid var(--vqa-text);
  outline-offset: 2px; }
.vqa .playhead { position: absolute; inset-block: 0; left: 0; width: 2px; margin-left: -1px;
  background: var(--vqa-text); pointer-events: none; }
.vqa .worst { position: absolute; bottom: -8px; height: 5px; min-width: 5px; border-radius: 3px; background: #b3261e;
  pointer-events: none; }
.vqa .bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .25rem .7rem;
  align-items: center; margin-top: .4rem; font-size: .95rem; }
.vqa .bars .bar { height: .6rem; border-radius: 99px; background: var(--vqa-line); overflow: hidden; }
.vqa .bars .bar div { height: 100%; background: #6a6f9a; }
.vqa .note { margin: .6rem 0 0; padding: .4rem .8rem; border-left: 4px solid #b26a00; background: var(--vqa-fill);
  overflow-wrap: anywhere; }
.vqa .fault { padding: .8rem 1rem; border-left: 4px solid #b3261e; background: var(--vqa-fill);
  overflow-wrap: anywhere; }
"""


# Probability of a flaw that is worth a bar, and how many bars there are at most.
_NEGLIGIBLE, _MOST_FLAWS = 0.02, 5
# Points by which a moment must lie below the score to be worth marking, as in `modeling_lmmvqa.explaining`.
_NOTABLE = 3.0


def colour(score: float, bounds: Sequence[float] = ()) -> str:
    """Red over amber to green, as the levels part at `bounds`: each has an equal part of the hues. Dark enough for
    white letters, light enough for a dark page."""
    ends = [0.0, *bounds, 100.0]
    place = max(at for at, low in enumerate(ends[:-1]) if at == 0 or score > low)
    part = (score - ends[place]) / (ends[place + 1] - ends[place])
    return f"hsl({125 * (place + part) / (len(ends) - 1):.0f} 65% 38%)"


def clock(seconds: float) -> str:
    """Minutes and seconds, as in `modeling_lmmvqa.explaining`, which a Space does not have."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes}:{rest:02d}"


def picture(jpeg: bytes) -> str:
    """A JPEG as an address that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def timeline(row: dict[str, Any], bounds: Sequence[float] = (), *, interactive: bool = True) -> str:
    """One bar a second on a true axis of time, as high and as green as the second is good.

    Args:
        row: of a video that has a timeline.
        bounds: as `colour` takes them.
        interactive: it can be clicked and moved by keys, and has a mark where the player is; the page needs the script.
    """
    seconds, duration = row["timeline"]["seconds"], max(row["duration_s"], row["timeline"]["seconds"][-1]["end_s"])
    # Where a long video is sampled, a second stands for what follows it, up to the next one.
    ends = [second["start_s"] for second in seconds[1:]] + [duration]
    bars = "".join(
        f'<rect x="{second["start_s"]:g}" width="{end - second["start_s"]:g}" y="{100 - max(2, second["score"]):.1f}"'
        f' height="{max(2, second["score"]):.1f}" fill="{colour(second["score"], bounds)}">'
        f"<title>{clock(second['start_s'])}: {second['score']:.0f} of 100</title></rect>"
        for second, end in zip(seconds, ends, strict=True)
    )
    drawing = f'<svg viewBox="0 0 {duration:g} 100" preserveAspectRatio="none" aria-hidden="true">{bars}</svg>'
    if (moment := worst_moment(row)) is not None:
        start, end = (100 * min(moment[name], duration) / duration for name in ("start_s", "end_s"))
        drawing += f'<div class="worst" style="left:{start:.2f}%;width:{end - start:.2f}%"></div>'
    if not interactive:
        return f'<div class="chart">{drawing}</div>'
    label = "Quality over time: click, or move with the arrow keys"
    return (
        f'<div class="chart" role="slider" tabindex="0" data-duration="{duration:g}" aria-label="{label}"'
        f' aria-valuemin="0" aria-valuemax="{duration:.1f}" aria-valuenow="0">{drawing}'
        '<div class="playhead"></div></div>'
    )


def worst_moment(row: dict[str, Any]) -> dict[str, Any] | None:
    """The worst moment of a row's timeline, if it lies well below the score."""
    moment = row["timeline"]["worst_moment"]
    return moment if row["score"] - moment["score"] >= _NOTABLE else None


def worst_moment_in_words(row: dict[str, Any]) -> str:
    """Such as "Worst from 0:05 to 0:09: compression 71%"; nothing where no moment lies well below the score."""
    moment = worst_moment(row)
    if moment is None:
        return ""
    text = f"Worst from {clock(moment['start_s'])} to {clock(moment['end_s'])}"
    if known := moment.get("flaws"):
        word = max(known, key=lambda name: known[name])
        text += f": {_flaw(word)} {known[word]:.0%}"
    return text


def _flaw(word: str) -> str:
    return "no flaw" if word == "none" else word


def flaws(row: dict[str, Any]) -> str:
    """What lowers the quality most: a bar for each flaw that is not out of the question. Nothing where the checkpoint
    was not taught to tell."""
    known = row.get("flaws") or {}
    shown = [(word, p) for word, p in known.items() if p >= _NEGLIGIBLE][:_MOST_FLAWS]
    if not shown:
        return ""
    bars = "".join(
        f"<span>{escape(_flaw(word))}</span>"
        f'<div class="bar"><div style="width:{100 * p:.1f}%"></div></div><span class="quiet">{p:.0%}</span>'
        for word, p in shown
    )
    return f'<h3>What lowers it most</h3><div class="bars">{bars}</div>'


def notes(row: dict[str, Any]) -> str:
    """The warnings of a row."""
    return "".join(f'<p class="note">{escape(warning)}</p>' for warning in row["warnings"])
