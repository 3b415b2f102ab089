"""Quality over time: a window slides over a video whose tower features are computed once."""

from collections.abc import Sequence
from typing import Any

import torch

from .feature_batches import assessment_inputs
from .video_features import Progress, VideoFeatures, no_progress

WINDOW_S = 4
STEP_S = 1
# Windows are short prompts; this many at once keep two cores or a GPU busy.
WINDOWS_AT_ONCE = 16


def cut_windows(num_chunks: int, window: int = WINDOW_S, step: int = STEP_S) -> list[range]:
    """Chunks of each window. The last window ends with the video; a video shorter than a window is one.

    Raises:
        ValueError: `window` or `step` is not a whole number of seconds from 1 on.
    """
    for name, value in (("window", window), ("step", step)):
        if value != int(value) or value < 1:
            raise ValueError(f"{name}={value} is not possible: choose whole seconds, 1 or more.")
    window, step = min(int(window), num_chunks), int(step)
    starts = list(range(0, num_chunks - window + 1, step))
    if starts[-1] + window < num_chunks:
        starts.append(num_chunks - window)
    return [range(start, start + window) for start in starts]


def assess_timeline(
    model: Any,
    processor: Any,
    video: VideoFeatures,
    *,
    window: int = WINDOW_S,
    step: int = STEP_S,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """The score of every window, and the worst and the best second.

    Windows tell where quality falls; which second it is, the seconds of the lowest (the highest) window tell, each
    assessed by itself.

    Args:
        window, step: in seconds, whole.

    Returns:
        window_s, step_s; `windows`: start_s, end_s, score (0 to 100) and score_std of each; `worst`, `best`: the same
        of one second, and its key_frame (bytes of a JPEG) where key frames were kept.
    """
    windows = cut_windows(len(video.starts_s), window, step)
    scores = _scores(model, processor, video, windows, progress)
    order = sorted(range(len(windows)), key=lambda i: scores[i][0])
    worst, best = windows[order[0]], windows[order[-1]]
    seconds = sorted({*worst, *best})
    # A window of one second was assessed already; the same numbers come out again.
    by_second = dict(zip(seconds, _scores(model, processor, video, [range(i, i + 1) for i in seconds]), strict=True))
    edges = [*video.starts_s, max(video.info.duration_s, video.starts_s[-1])]

    def row(chunks: range, score: tuple[float, float]) -> dict[str, float]:
        return {
            "start_s": round(edges[chunks[0]], 3),
            "end_s": round(edges[chunks[-1] + 1], 3),
            "score": round(score[0], 4),
            "score_std": round(score[1], 4),
        }

    def second(chunks: range, choose: Any) -> dict[str, Any]:
        chosen = choose(chunks, key=lambda i: by_second[i][0])
        picture = {"key_frame": video.key_frames[chosen]} if video.key_frames else {}
        return row(range(chosen, chosen + 1), by_second[chosen]) | picture

    return {
        "window_s": len(windows[0]),
        "step_s": step,
        "windows": [row(chunks, score) for chunks, score in zip(windows, scores, strict=True)],
        "worst": second(worst, min),
        "best": second(best, max),
    }


def _scores(
    model: Any, processor: Any, video: VideoFeatures, windows: Sequence[range], progress: Progress = no_progress
) -> list[tuple[float, float]]:
    """Expected score and standard deviation of each window."""
    scores: list[tuple[float, float]] = []
    template = model.cache_template(torch.tensor(processor.assessment_prefix_ids(1)))
    for first in range(0, len(windows), WINDOWS_AT_ONCE):
        progress("windows", first, len(windows))
        parts = [video.part(chunks) for chunks in windows[first : first + WINDOWS_AT_ONCE]]
        inputs = assessment_inputs(processor, parts)
        asked = {name: tensor.to(model.device) for name, tensor in inputs.items() if not name.startswith("level_")}
        quality = model.assess(**asked, template_cache=template)
        scores += zip(quality.score.tolist(), quality.score_std.tolist(), strict=True)
    progress("windows", len(windows), len(windows))
    return scores
