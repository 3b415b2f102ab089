"""The paper's Figure 6: how much a video moves, second by second, beside what the model says with and without temporal tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from processing.video_reader import open_video

# Flow is measured on small frames: it costs seconds a pair at full size, and the mean over a frame needs no detail.
FLOW_WIDTH = 160
FRAMES_PER_SECOND = 5


@dataclass(frozen=True)
class Motion:
    """Motion of one video: `times_s` (pairs,) and `speed` (pairs,), the mean length of the flow over the frame in percent of the
    frame's width, from one frame to the one a fifth of a second later."""

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
    times, frames = [], []
    with open_video(video, frames_per_chunk=FRAMES_PER_SECOND, frame_size=(height, FLOW_WIDTH), max_chunks=max_seconds) as reader:
        for chunk in reader:
            luma = chunk.frames.mean(1, dtype=np.float32) / 255
            for number, frame in enumerate(luma):
                time = chunk.start_s + number / FRAMES_PER_SECOND
                # A short last second repeats its last frame.
                if time < reader.info.duration_s or not frames:
                    times.append(time)
                    frames.append(frame)
    # Of a long video some seconds are left out: no flow is measured across such a gap.
    near = [i for i in range(1, len(times)) if times[i] - times[i - 1] < 1.5 / FRAMES_PER_SECOND]
    speed = [np.hypot(*optical_flow_tvl1(frames[i - 1], frames[i])).mean() / FLOW_WIDTH * 100 for i in near]
    return Motion(np.array([times[i] for i in near]), np.array(speed))
