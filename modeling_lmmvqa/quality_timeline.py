"""Quality over time: one value for every second of a video, from features that are computed once."""

from typing import Any

from .video_features import Progress, VideoFeatures, no_progress

# One second is a short prompt; this many at once keep two cores or a GPU busy.
SECONDS_AT_ONCE = 32


def assess_timeline(
    network: Any,
    video: VideoFeatures,
    score: float,
    *,
    template: Any = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """The score of every second of a video.

    Each second is assessed by itself. Then all are moved by one and the same number of points, so that their mean is
    the score of the whole video, and are cut off at 0 and 100. So the whole never lies above the best second or below
    the worst one, and a second tells what it does to the whole.

    Args:
        network: as `VideoScorer` has it.
        video: with the features of every second.
        score: of the whole video, 0 to 100.
        template: from `network.read_template`; read here without it.
        progress: called with "moments", how many are assessed, and of how many.

    Returns:
        `seconds`: start_s, end_s and score (0 to 100) of each second that was read; `worst`, `best`: the same of the
        lowest and the highest one. Where key frames were kept, each also has its key_frame (bytes of a small JPEG).
        `worst_moment`: start_s, end_s and mean score of the worst second and of those around it that are nearer to it
        than to the mean; and its `flaws` (probability by word, the most probable first), assessed by itself, where the
        checkpoint was taught that question.
    """
    if template is None:
        template = network.read_template()
    alone = _scores(network, video, template, progress)
    moved = [value + score - sum(alone) / len(alone) for value in alone]
    ends = [min(start + 1, video.info.duration_s) for start in video.starts_s]
    # The last second takes what is left, and is no shorter than nothing.
    ends[-1] = max(video.info.duration_s, video.starts_s[-1]) if _is_last(video) else ends[-1]
    seconds = [
        {"start_s": round(start, 3), "end_s": round(end, 3), "score": round(min(100.0, max(0.0, value)), 4)}
        for start, end, value in zip(video.starts_s, ends, moved, strict=True)
    ]

    for second, picture in zip(seconds, video.key_frames, strict=False):
        second["key_frame"] = picture

    def moment(choose: Any) -> dict[str, Any]:
        return dict(choose(seconds, key=lambda second: second["score"]))

    places = _around_worst([second["score"] for second in seconds])
    worst_moment = {
        "start_s": seconds[places[0]]["start_s"],
        "end_s": seconds[places[-1]]["end_s"],
        "score": round(sum(seconds[place]["score"] for place in places) / len(places), 4),
    }
    processor = network.processor
    if any(question.name == "flaw" for question in processor.questions):
        part = video.part([places[at] for at in processor.video_processor.choose(len(places))])
        (answer,) = network.assess([part], ["flaw"], template)
        probable = sorted(answer["flaw"]["probabilities"].items(), key=lambda pair: -pair[1])
        worst_moment["flaws"] = dict(probable)
    return {"seconds": seconds, "worst": moment(min), "best": moment(max), "worst_moment": worst_moment}


def _around_worst(scores: list[float]) -> range:
    """The places of the lowest score and of its neighbours that are nearer to it than to the mean."""
    worst = min(range(len(scores)), key=lambda place: scores[place])
    limit = (scores[worst] + sum(scores) / len(scores)) / 2
    first = last = worst
    while first > 0 and scores[first - 1] <= limit:
        first -= 1
    while last + 1 < len(scores) and scores[last + 1] <= limit:
        last += 1
    return range(first, last + 1)


def _is_last(video: VideoFeatures) -> bool:
    """Whether the last second that was read is the last one of the video."""
    return len(video.starts_s) == video.info.num_chunks or video.starts_s[-1] + 1 >= video.info.duration_s


def _scores(network: Any, video: VideoFeatures, template: Any, progress: Progress) -> list[float]:
    """Expected score of each second by itself."""
    count = len(video.starts_s)
    scores: list[float] = []
    for first in range(0, count, SECONDS_AT_ONCE):
        progress("moments", first, count)
        alone = [video.part([second]) for second in range(first, min(first + SECONDS_AT_ONCE, count))]
        scores += [answers["score"]["value"] for answers in network.assess(alone, ["score"], template)]
    progress("moments", count, count)
    return scores
