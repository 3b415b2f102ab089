"""The page: drop a video, see its score and its quality over time.

The same file is the app of the Space, so it knows nothing but Gradio, the pipeline and what lies beside it.
"""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

try:
    from lmmvqa.demo import drawing
except ImportError:  # in a Space
    import drawing

# How columns of a row begin that hold the probability of a level.
PROBABILITY = "probability_"
# A longer video is seen at this many of its seconds, evenly spaced, so that none keeps the others waiting.
MOST_SECONDS = 300
# Of one upload. What was uploaded is deleted when it is an hour old; every ten minutes the page looks for such files.
LARGEST_UPLOAD = "500mb"
CLEAN_UP = (600, 3600)

CSS = (
    """
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
.html-container:has(.vqa) { padding: 0 !important; }
.gradio-container input[type="checkbox"] { border-color: var(--body-text-color-subdued); }
[id^="result-"] .wrap:has(.progress-bar) .progress-text { display: none; }
.vqa { --vqa-text: var(--body-text-color);
  --vqa-quiet: color-mix(in srgb, var(--body-text-color) 72%, transparent);
  --vqa-line: var(--border-color-primary); --vqa-fill: var(--background-fill-secondary); }
.vqa video, .vqa .still { display: block; width: 100%; height: 320px; object-fit: contain; background: #000;
  border-radius: 8px; }
.vqa h3 { margin: 1.1rem 0 .3rem; font-size: 1rem; }
.vqa .moments { display: flex; flex-wrap: wrap; align-items: flex-start; gap: .6rem; margin-top: .9rem; }
.vqa .moments button { flex: 1 1 120px; font-weight: 500; font-size: .95rem; max-width: 320px; padding: 0;
  border: 1px solid var(--vqa-line); border-radius: 8px; overflow: hidden; background: var(--vqa-fill); color: inherit;
  text-align: left; cursor: pointer; }
.vqa .moments img { width: 100%; aspect-ratio: 16 / 9; object-fit: contain; background: #000; display: block;
  margin: 0; }
.vqa .moments span { display: block; padding: .4rem .6rem; }
.vqa .moment { display: block; margin-top: .7rem; padding: .3rem .7rem; border: 1px solid var(--vqa-line);
  border-left: 4px solid #b3261e; border-radius: 6px; background: var(--vqa-fill); color: inherit; font-size: .95rem;
  text-align: left; cursor: pointer; }
.vqa .sentence { margin: .8rem 0 0; font-size: 1.05rem; }
.vqa .save { display: inline-block; margin-top: 1rem; padding: .45rem .9rem; border: 1px solid var(--vqa-line);
  border-radius: 8px; color: inherit; text-decoration: none; }
.vqa .verdict { padding: .6rem 1rem; border-radius: 8px; background: var(--vqa-fill); font-size: 1.05rem;
  overflow-wrap: anywhere; }
"""
    + drawing.CSS
)

# One listener a kind for the whole page. Events of players don't bubble, so they are caught on their way down. Where
# the browser can't play a file, a picture for each second takes the player's place. Two players go together.
JS = """
() => {
  const panelOf = (element) => element.closest('[id^="panel-"]');
  const stills = (panel) => JSON.parse(panel.querySelector(".stills")?.dataset.stills || "[]");
  const mark = (panel, time) => {
    const chart = panel.querySelector(".chart[data-duration]");
    if (!chart) return;
    const duration = Number(chart.dataset.duration), at = Math.min(Math.max(time, 0), duration);
    chart.querySelector(".playhead").style.left = `${100 * at / duration}%`;
    chart.setAttribute("aria-valuenow", at.toFixed(1));
    chart.setAttribute("aria-valuetext", `${Math.floor(at / 60)}:${String(Math.floor(at % 60)).padStart(2, "0")}`);
    panel.dataset.at = at;
  };
  const show = (panel, time) => {
    const shown = stills(panel), image = panel.querySelector(".still");
    if (!image || !shown.length) return;
    image.src = (shown.filter((still) => still.at <= time + 0.001).pop() || shown[0]).src;
  };
  const unplayable = (panel) => {
    const player = panel.querySelector("video"), image = panel.querySelector(".still");
    // What is wrong with the file stands below; an empty player would only be in the way.
    if (player && player.error && panel.querySelector(".fault")) { player.remove(); return; }
    const broken = image && image.complete && !image.naturalWidth && !image.src.startsWith("data:");
    if (!(broken || (player && player.error)) || !stills(panel).length) return;
    if (broken) { show(panel, 0); return; }
    const view = document.createElement("div");
    view.innerHTML = '<img class="still" alt="A picture of the video"><p class="quiet">Your browser can\\'t play ' +
      'this kind of file. Here is a picture for each second: choose one below.</p>';
    player.replaceWith(...view.childNodes);
    show(panel, Number(panel.dataset.at || 0));
  };
  const seek = (panel, time) => {
    const player = panel.querySelector("video");
    mark(panel, time);
    if (player && !player.error) { player.currentTime = time + 0.001; player.scrollIntoView({block: "nearest"}); }
    else show(panel, time);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-seek]"), chart = event.target.closest(".chart[data-duration]");
    if (button) seek(panelOf(button), Number(button.dataset.seek));
    if (chart) {
      const box = chart.getBoundingClientRect();
      seek(panelOf(chart), Number(chart.dataset.duration) * (event.clientX - box.left) / box.width);
    }
  });
  document.addEventListener("keydown", (event) => {
    const chart = event.target.closest && event.target.closest(".chart[data-duration]");
    const step = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1}[event.key];
    if (!chart || !step) return;
    event.preventDefault();
    const at = Number(chart.getAttribute("aria-valuenow")) + step;
    seek(panelOf(chart), Math.min(Math.max(at, 0), Number(chart.dataset.duration)));
  });
  const players = () => [...document.querySelectorAll('[id^="panel-"] video')];
  const other = (player) => players().find((one) => one !== player && one.offsetParent);
  const follow = (name, action) => document.addEventListener(name, (event) => {
    if (event.target.tagName === "VIDEO" && panelOf(event.target)) action(event.target, other(event.target));
  }, true);
  follow("timeupdate", (player) => mark(panelOf(player), player.currentTime));
  follow("play", (player, second) => { if (second && second.paused) second.play(); });
  follow("pause", (player, second) => { if (second && !second.paused && !player.ended) second.pause(); });
  follow("seeking", (player, second) => {
    if (second && Math.abs(second.currentTime - player.currentTime) > 0.3) second.currentTime = player.currentTime;
  });
  document.addEventListener("error", (event) => {
    const panel = event.target.matches("video, .still") && panelOf(event.target);
    if (panel) unplayable(panel);
  }, true);
  // The pictures of a file come with its score, after the player has failed.
  new MutationObserver(() => document.querySelectorAll('[id^="panel-"]').forEach(unplayable))
    .observe(document.body, {childList: true, subtree: true});
}
"""

INTRODUCTION = f"""# How good does a video look?
Drop a video. It gets a score from **0 (worst) to 100 (best)**{{levels}}, and its quality at every second: a click goes
to that moment.

The score is the rating that many viewers would give on average, judged by the picture alone: sharpness, compression,
noise, light and motion, not what is shown. A range tells how sure that is. Each second is judged by itself, and all
are moved together so that their mean is the score of the whole. Of a video of more than {MOST_SECONDS // 60} minutes,
{MOST_SECONDS} seconds are judged. Files may be as large as {LARGEST_UPLOAD.replace("mb", " MB")}, and are deleted after
an hour.
"""

# What the page says while the pipeline counts on.
STAGES = {"seconds": "Watching: second {} of {}", "moments": "Judging: moment {} of {}"}

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

        row = pipe(video, timeline=True, key_frames=True, progress=show, most_seconds=MOST_SECONDS)
        row["path"] = Path(row["path"]).name
        # The person knows the name of the file, not where the page keeps it.
        row["error"] = row["error"] and row["error"].replace(video, row["path"])
        html = report(row, pipe.explain(row), pipe.processor.level_bounds)
        # What is kept to compare needs no pictures.
        return _without_pictures(row), html

    with gr.Blocks(title="How good does a video look?", analytics_enabled=False, delete_cache=CLEAN_UP) as page:
        levels = pipe.describe_levels()
        gr.Markdown(INTRODUCTION.format(levels=f" ({levels})" if levels else ""))
        two = gr.Checkbox(label="Compare two videos: they play together", container=False)
        verdict = gr.HTML(visible=False)
        rows, columns = [], []
        with gr.Row(equal_height=False):
            for number, label in enumerate(("Video", "Second video")):
                with gr.Column(visible=number == 0, elem_id=f"panel-{number}", min_width=280) as column:
                    columns.append(column)
                    file = gr.File(label=label, elem_id=f"file-{number}", height=120)
                    with gr.Row():
                        for example in examples:
                            button = gr.Button(_title(example), size="sm", min_width=150)
                            button.click(
                                lambda example=example: str(example),
                                outputs=file,
                                show_progress="hidden",
                                api_visibility="private",
                            )
                    seen = gr.HTML(elem_id=f"player-{number}")
                    row = gr.State()
                    rows.append(row)
                    result = gr.HTML(elem_id=f"result-{number}", min_height=60)
                file.change(player, file, seen, show_progress="hidden", api_visibility="private")
                file.change(
                    assess, file, [row, result], concurrency_id="model", concurrency_limit=1, api_visibility="private"
                )
        two.change(
            lambda on: (gr.Column(visible=on), gr.HTML(visible=on)),
            two,
            [columns[1], verdict],
            show_progress="hidden",
            api_visibility="private",
        )
        for row in rows:
            row.change(
                lambda first, second: compare(pipe, first, second),
                rows,
                verdict,
                show_progress="hidden",
                api_visibility="private",
            )
    return page


def player(video: str | None) -> str:
    """A file that the page keeps, as the browser shows it. What it can't, the script replaces by pictures."""
    if video is None:
        return ""
    address = f"gradio_api/file={escape(quote(video))}"
    if (mimetypes.guess_type(video)[0] or "").startswith("image/"):
        return f'<div class="vqa"><img class="still" alt="The picture" src="{address}"></div>'
    return f'<div class="vqa"><video controls playsinline preload="metadata" src="{address}"></video></div>'


def report(row: dict[str, Any], sentence: str, bounds: Sequence[float] = ()) -> str:
    """What the pipeline says of a video, as HTML for people.

    Args:
        sentence: says it in words.
        bounds: the scores above which each level but the worst begins; colours follow them.
    """
    if row["error"] is not None:
        return f'<div class="vqa"><p class="fault" role="alert">{escape(row["error"])}</p></div>'
    low, high, colour = row["interval_low"], row["interval_high"], drawing.colour(row["score"], bounds)
    return f"""<div class="vqa">
<div class="head"><span class="score">{row["score"]:.0f}</span><span class="quiet">of 100</span>
{_level(row, colour)}</div>
<div class="scale" role="img" aria-label="Score {row["score"]:.0f}, most likely between {low:.0f} and {high:.0f}">
<div class="range" style="left:{low:.1f}%;width:{high - low:.1f}%;background:{colour}"></div>
<div class="mark" style="left:{row["score"]:.1f}%"></div></div>
<div class="ends"><span>0</span><span>most likely between {low:.0f} and {high:.0f}</span><span>100</span></div>
<p class="sentence">{escape(sentence)}</p>
{drawing.notes(row)}
{drawing.flaws(row)}
{_over_time(row, bounds)}
{_save(row)}</div>"""


def compare(pipe: Any, first: dict[str, Any] | None, second: dict[str, Any] | None) -> str:
    """Which of two videos people would prefer, how sure that is, and where they differ."""
    if first is None or second is None or first["error"] or second["error"]:
        text = "Choose two videos to compare them."
    else:
        text = pipe.compare(first, second)["verdict"]
    return f'<div class="vqa"><p class="verdict" role="status">{escape(text)}</p></div>'


def _over_time(row: dict[str, Any], bounds: Sequence[float]) -> str:
    timeline = row["timeline"]
    stills = [{"at": second["start_s"], "src": drawing.picture(second["key_frame"])} for second in timeline["seconds"]]
    kept = f'<div class="stills" hidden data-stills="{escape(json.dumps(stills))}"></div>'
    if len(stills) < 2:
        return kept
    moments = "".join(
        _moment(name, timeline[key]) for name, key in (("Worst second", "worst"), ("Best second", "best"))
    )
    worst = drawing.worst_moment_in_words(row)
    start = timeline["worst_moment"]["start_s"]
    link = worst and f'<button type="button" class="moment" data-seek="{start}">{escape(worst)}</button>'
    return f"""<h3>Quality over time</h3>
{drawing.timeline(row, bounds)}
<div class="ends"><span>0:00</span><span>a bar for each second judged</span>
<span>{drawing.clock(row["duration_s"])}</span></div>
{link}
<div class="moments">{moments}</div>
{kept}"""


def _moment(name: str, second: dict[str, Any]) -> str:
    return (
        f'<button type="button" data-seek="{second["start_s"]}">'
        f'<img src="{drawing.picture(second["key_frame"])}" alt="">'
        f"<span>{name} {drawing.clock(second['start_s'])}: {second['score']:.0f} of 100</span></button>"
    )


def _save(row: dict[str, Any]) -> str:
    """A link that holds what it saves, so that nothing is kept on the server."""
    content = base64.b64encode(json.dumps(_without_pictures(row), indent=2).encode()).decode()
    name = escape(Path(row["path"]).stem, quote=True)
    return f'<a class="save" download="{name}.json" href="data:application/json;base64,{content}">Save as JSON</a>'


def _without_pictures(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the numbers of its timeline."""

    def plain(second: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in second.items() if name != "key_frame"}

    if row.get("timeline") is None:
        return row
    kept = {
        name: [plain(second) for second in part] if isinstance(part, list) else plain(part)
        for name, part in row["timeline"].items()
    }
    return row | {"timeline": kept}


def _level(row: dict[str, Any], colour: str) -> str:
    """The word for the score, and how sure the model is of it when it is asked for a word; nothing where it was not
    taught the levels."""
    if row["level"] is None:
        return ""
    probability = row[f"{PROBABILITY}{row['level']}"]
    sure = "surely" if probability >= 0.9 else "probably" if probability >= 0.5 else "perhaps"
    return (
        f'<span class="pill" style="background:{colour}">{escape(row["level"])}</span>'
        f'<span class="quiet">{sure} {escape(row["level"])} ({probability:.0%})</span>'
    )


def _title(file: Path) -> str:
    return file.stem.replace("_", " ").capitalize()


if __name__ == "__main__":
    from transformers import pipeline

    here = Path(__file__).parent
    model = (here / "model.txt").read_text(encoding="utf-8").strip()
    build(pipeline(model=model, trust_remote_code=True), sorted((here / "examples").glob("*.mp4"))).launch(
        max_file_size=LARGEST_UPLOAD, **LOOKS
    )
