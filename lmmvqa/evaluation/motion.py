"""The paper's Figure 6: how much a video moves, second by second, beside what the model says with and without temporal
tokens."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from processing.video_reader import open_video

# Flow is measured on small frames: it costs seconds a pair at full size, and the mean over a frame needs no detail. But
# it is measured on all of them up to this rate: a stutter or a lost frame is not seen on every fifth.
FLOW_WIDTH = 160
MOST_FRAMES_PER_SECOND = 30


@dataclass(frozen=True)
class Motion:
    """Motion of one video: `times_s` (pairs,) and `speed` (pairs,), the mean length of the flow over the frame, from
    one frame to the next, in percent of the frame's width a second."""

    times_s: np.ndarray
    speed: np.ndarray


def motion_curve(video: Any, max_seconds: int = 10) -> Motion:
    """TV-L1 optical flow between frames, as a length, averaged over the frame.

    Raises:
        VideoError: the video can't be read.
        ImportError: scikit-image is not installed.
    """
    from skimage.registration import optical_flow_tvl1

    with open_video(video) as reader:
        height = max(16, round(FLOW_WIDTH * reader.info.height / reader.info.width))
        rate = max(1, round(reader.info.fps / ceil(reader.info.fps / MOST_FRAMES_PER_SECOND)))
    times, frames = list[float](), list[np.ndarray]()
    with open_video(video, frames_per_chunk=rate, frame_size=(height, FLOW_WIDTH), max_chunks=max_seconds) as reader:
        for chunk in reader:
            assert chunk.frames is not None, "they were asked for"
            luma = chunk.frames.mean(1, dtype=np.float32) / 255
            for number, frame in enumerate(luma):
                time = chunk.start_s + number / rate
                # A short last second plays back and forth.
                if time < reader.info.duration_s or not frames:
                    times.append(time)
                    frames.append(frame)
    # Of a long video some seconds are left out: no flow is measured across such a gap.
    near = [i for i in range(1, len(times)) if times[i] - times[i - 1] < 1.5 / rate]
    speed = [np.hypot(*optical_flow_tvl1(frames[i - 1], frames[i])).mean() / FLOW_WIDTH * 100 * rate for i in near]
    return Motion(np.array([times[i] for i in near]), np.array(speed))
