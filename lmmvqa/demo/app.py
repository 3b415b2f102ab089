"""The page: drop a video, see its score and its quality over time.

The same file is the app of the Space, so it knows nothing but Gradio and the pipeline.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

# How columns of a row begin that hold the probability of a level.
PROBABILITY = "probability_"
# More bars than this no one can hit with a finger; a bar then stands for the lowest of several windows.
MOST_BARS = 90

CSS = """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
.html-container:has(.vqa) { padding: 0 !important; }
.gradio-container input[type="checkbox"] { border-color: var(--body-text-color-subdued); }
[id^="player-"] { border: 1px solid var(--border-color-primary) !important; }
[id^="result-"] .wrap:has(.progress-bar) .progress-text { display: none; }
.vqa { color: var(--body-text-color); line-height: 1.45; }
.vqa .head { display: flex; flex-wrap: wrap; align-items: baseline; gap: .3rem .8rem; }
.vqa .score { font-size: 2.6rem; font-weight: 700; line-height: 1; font-variant-numeric: tabular-nums; }
.vqa .of { color: var(--body-text-color-subdued); }
.vqa .level { padding: .1rem .7rem; border-radius: 99px; color: #fff; font-weight: 600; }
.vqa .scale {
    position: relative; height: .7rem; margin: .9rem 0 .3rem; border-radius: 99px;
    background: var(--border-color-primary);
}
.vqa .scale .range { position: absolute; inset-block: 0; border-radius: 99px; opacity: .55; }
.vqa .scale .mark {
    position: absolute; inset-block: -.25rem; width: .25rem; margin-left: -.125rem; border-radius: 2px;
    background: var(--body-text-color);
}
.vqa .ends {
    display: flex; justify-content: space-between; font-size: .85rem; color: var(--body-text-color-subdued);
}
.vqa h3 { margin: 1.1rem 0 .3rem; font-size: 1rem; }
.vqa .bars {
    display: flex; align-items: flex-end; gap: 2px; height: 96px; padding: 0; margin: 0;
    border-block: 1px solid var(--border-color-primary); border-top-style: dashed;
}
.vqa .bars button {
    flex: 1 1 0; min-width: 3px; height: 100%; margin: 0 !important; padding: 0; border: 0; box-shadow: none;
    background: none; cursor: pointer; display: flex; align-items: flex-end;
}
.vqa .bars button span { width: 100%; border-radius: 3px 3px 0 0; min-height: 3px; }
.vqa .bars button:hover span { filter: brightness(1.25); }
.vqa button:focus-visible { outline: 3px solid var(--body-text-color); outline-offset: 2px; border-radius: 4px; }
.vqa .moments { display: flex; flex-wrap: wrap; align-items: flex-start; gap: .6rem; margin-top: .9rem; }
.vqa .moments button {
    flex: 1 1 120px; font-weight: 500; font-size: .95rem; max-width: 320px; padding: 0;
    border: 1px solid var(--border-color-primary); border-radius: 8px; overflow: hidden;
    background: var(--background-fill-secondary); color: inherit; text-align: left; cursor: pointer;
}
.vqa .moments img {
    width: 100%; aspect-ratio: 16 / 9; object-fit: contain; background: #000; display: block; margin: 0;
}
.vqa .moments span { display: block; padding: .4rem .6rem; }
.vqa .save {
    display: inline-block; margin-top: 1rem; padding: .45rem .9rem; border: 1px solid var(--border-color-primary);
    border-radius: 8px; color: inherit; text-decoration: none;
}
.vqa .fault {
    padding: .8rem 1rem; border-left: 4px solid #b3261e; background: var(--background-fill-secondary);
    overflow-wrap: anywhere;
}
.vqa .verdict {
    padding: .6rem 1rem; border-radius: 8px; background: var(--background-fill-secondary); font-size: 1.05rem;
}
"""

# One listener for all that leads to a moment of a video: its panel's player goes there.
JS = """
() => document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-seek]");
  if (!target) return;
  const player = target.closest('[id^="panel-"]').querySelector("video");
  if (player) { player.currentTime = Number(target.dataset.seek) + 0.001; player.scrollIntoView({block: "nearest"}); }
})
"""

INTRODUCTION = """# How good does a video look?
Drop a video. It gets a score from **0 (worst) to 100 (best)**, and a timeline of its quality: a click on it goes to
that moment."""

# What the page says while the pipeline counts on.
STAGES = {"seconds": "Watching: second {} of {}", "windows": "Judging: moment {} of {}"}

# Fonts of the reader's own machine: the page must not ask the network for any.
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
LOOKS = {"theme": gr.themes.Soft(primary_hue="indigo", **_FONTS), "css": CSS, "js": JS}


def build(pipe: Any, examples: Sequence[Path] = ()) -> gr.Blocks:
    """The page for a pipeline "video-quality-assessment", with videos to try it on."""

    def assess(video: str | None, progress: gr.Progress = gr.Progress()) -> tuple[dict[str, Any] | None, str]:  # noqa: B008 - Gradio's way
        if video is None:
            return None, ""

        def show(what: str, done: int, total: int) -> None:
            progress((done, total), desc=STAGES[what].format(done, total))

        row = pipe(video, timeline=True, key_frames=True, progress=show)
        row["path"] = Path(row["path"]).name
        # The person knows the name of the file, not where the page keeps it.
        row["error"] = row["error"] and row["error"].replace(video, row["path"])
        return row, report(row)

    with gr.Blocks(title="How good does a video look?", analytics_enabled=False) as page:
        gr.Markdown(INTRODUCTION)
        two = gr.Checkbox(label="Compare two videos", container=False)
        verdict = gr.HTML(visible=False)
        rows, columns = [], []
        with gr.Row(equal_height=False):
            for number, label in enumerate(("Video", "Second video")):
                with gr.Column(visible=number == 0, elem_id=f"panel-{number}", min_width=300) as column:
                    columns.append(column)
                    player = gr.Video(label=label, sources=["upload"], elem_id=f"player-{number}", height=320)
                    with gr.Row():
                        for example in examples:
                            button = gr.Button(_title(example), size="sm", min_width=70)
                            button.click(
                                lambda example=example: str(example),
                                outputs=player,
                                show_progress="hidden",
                                api_visibility="private",
                            )
                    row = gr.State()
                    rows.append(row)
                    result = gr.HTML(elem_id=f"result-{number}", min_height=60)
                player.change(
                    assess, player, [row, result], concurrency_id="model", concurrency_limit=1, api_visibility="private"
                )
        two.change(
            lambda on: (gr.Column(visible=on), gr.HTML(visible=on)),
            two,
            [columns[1], verdict],
            show_progress="hidden",
            api_visibility="private",
        )
        for row in rows:
            row.change(compare, rows, verdict, show_progress="hidden", api_visibility="private")
    return page


def report(row: dict[str, Any]) -> str:
    """What the pipeline says of a video, as HTML for people."""
    if row["error"] is not None:
        return f'<div class="vqa"><p class="fault" role="alert">{escape(row["error"])}</p></div>'
    low, high = row["interval_low"], row["interval_high"]
    probabilities = {name.removeprefix(PROBABILITY): p for name, p in row.items() if name.startswith(PROBABILITY)}
    colour, levels = _colour(row["score"]), list(probabilities)
    rank, sure = levels.index(row["level"]) / (len(levels) - 1), probabilities[row["level"]]
    return f"""<div class="vqa">
<div class="head"><span class="score">{row["score"]:.0f}</span><span class="of">of 100</span>
<span class="level" style="background:{_colour(100 * rank)}">{escape(row["level"])}</span>
<span>{_certainty(sure)} ({sure:.0%})</span></div>
<div class="scale" role="img" aria-label="Score {row["score"]:.0f}, most likely between {low:.0f} and {high:.0f}">
<div class="range" style="left:{low:.1f}%;width:{high - low:.1f}%;background:{colour}"></div>
<div class="mark" style="left:{row["score"]:.1f}%"></div></div>
<div class="ends"><span>0</span><span>most likely between {low:.0f} and {high:.0f}</span><span>100</span></div>
{_timeline(row["timeline"])}
{_save(row)}</div>"""


def compare(first: dict[str, Any] | None, second: dict[str, Any] | None) -> str:
    """Which of two videos looks better, and whether that is clear."""
    if first is None or second is None or first["error"] or second["error"]:
        text = "Choose two videos to compare them."
    elif abs(first["score"] - second["score"]) < 1:
        text = "They look equally good."
    else:
        better, other = (first, second) if first["score"] > second["score"] else (second, first)
        place = "first" if better is first else "second"
        clear = better["interval_low"] > other["interval_high"]
        doubt = (
            "This is clear: their likely ranges don't overlap."
            if clear
            else "Their likely ranges overlap, so it may be otherwise."
        )
        text = f"The {place} video looks better, {better['score']:.0f} against {other['score']:.0f}. {doubt}"
    return f'<div class="vqa"><p class="verdict" role="status">{text}</p></div>'


def _timeline(timeline: dict[str, Any]) -> str:
    windows = timeline["windows"]
    size = -(-len(windows) // MOST_BARS)
    bars = []
    for start in range(0, len(windows), size):
        lowest = min(windows[start : start + size], key=lambda window: window["score"])
        label = f"{_clock(lowest['start_s'])} to {_clock(lowest['end_s'])}: {lowest['score']:.0f} of 100"
        bars.append(
            f'<button type="button" data-seek="{lowest["start_s"]}" title="{label}" aria-label="{label}">'
            f'<span style="height:{lowest["score"]:.0f}%;background:{_colour(lowest["score"])}"></span></button>'
        )
    moments = "".join(
        _moment(name, timeline[key]) for name, key in (("Worst moment", "worst"), ("Best moment", "best"))
    )
    return f"""<h3>Quality over time</h3>
<div class="bars" role="group" aria-label="Quality over time; each bar goes to its moment">{"".join(bars)}</div>
<div class="ends"><span>{_clock(windows[0]["start_s"])}</span><span>each bar: {timeline["window_s"]} s</span>
<span>{_clock(windows[-1]["end_s"])}</span></div>
<div class="moments">{moments}</div>"""


def _moment(name: str, second: dict[str, Any]) -> str:
    picture = base64.b64encode(second["key_frame"]).decode()
    return (
        f'<button type="button" data-seek="{second["start_s"]}"><img src="data:image/jpeg;base64,{picture}" alt="">'
        f"<span>{name} {_clock(second['start_s'])}: {second['score']:.0f} of 100</span></button>"
    )


def _save(row: dict[str, Any]) -> str:
    """A link that holds what it saves, so that nothing is kept on the server."""
    timeline = row["timeline"]
    seconds = {
        key: {name: value for name, value in timeline[key].items() if name != "key_frame"} for key in ("worst", "best")
    }
    content = json.dumps(row | {"timeline": timeline | seconds}, indent=2).encode()
    name = escape(Path(row["path"]).stem, quote=True)
    address = f"data:application/json;base64,{base64.b64encode(content).decode()}"
    return f'<a class="save" download="{name}.json" href="{address}">Save as JSON</a>'


def _certainty(probability: float) -> str:
    return (
        "almost certain"
        if probability >= 0.9
        else "likely"
        if probability >= 0.7
        else "more likely than not"
        if probability >= 0.5
        else "a guess"
    )


def _colour(score: float) -> str:
    """Red over amber to green; dark enough for white letters, light enough for a dark page."""
    return f"hsl({1.25 * score:.0f} 65% 38%)"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes}:{rest:02d}"


def _title(file: Path) -> str:
    return file.stem.replace("_", " ").capitalize()


if __name__ == "__main__":
    from transformers import pipeline

    here = Path(__file__).parent
    model = (here / "model.txt").read_text(encoding="utf-8").strip()
    build(pipeline(model=model, trust_remote_code=True), sorted((here / "examples").glob("*.mp4"))).launch(**LOOKS)
