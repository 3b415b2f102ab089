"""Trains a small temporal tower to see what no single frame shows: stutter, drops, freezes and flicker.

The paper's tower comes from action recognition. Where its weights can't be had, a narrow SlowFast learns from graded
copies. Most faults are made at training time, from copies that move as they should, so that every
content is seen smooth and with each fault, and what is true of a chunk is known exactly; what a fault costs is learned
from the rated copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from lmmvqa.default_making.tower_training import DrawnDataset, copy_rows, fit_tower, remove_checkpoints
from modeling_lmmvqa import LmmVqaTemporalConfig, LmmVqaTemporalModel
from processing.video_processing_lmmvqa import LmmVqaVideoProcessor
from processing.video_reader import open_video

# 0.9 million parameters. It sees differences of frames, so it needs few channels; 24 frames, so that a video of 25
# frames a second shows no frame twice.
SMALL_TOWER = LmmVqaTemporalConfig(slow_channels=8, fast_channels=8, depth=18, image_size=64, num_frames=24)
MOTIONS = ("smooth", "stutter", "drop", "freeze", "flicker")
# How often a chunk that moves smoothly is shown to the tower with each motion.
MOTION_SHARES = (0.3, 0.25, 0.15, 0.15, 0.15)
_UNKNOWN = -100


@dataclass
class RatedChunks:
    """All chunks of one graded copy: `frames` (chunks, num_frames, 3, size, size) uint8."""

    content: str
    fold: int
    family: str
    distortion: str
    rating: float
    frames: torch.Tensor

    @property
    def motion(self) -> str:
        """The fault that was put in; "smooth" where it put none."""
        return {"stutter_light": "stutter", "stutter_strong": "stutter", "stutter_x264": "stutter"}.get(
            self.distortion, self.distortion if self.distortion in MOTIONS else "smooth"
        )


def read_chunks(ratings: Path, config: LmmVqaTemporalConfig) -> list[RatedChunks]:
    """The copies, as small as the tower sees them."""
    copies = []
    size = (config.image_size, config.image_size)
    for row in copy_rows(ratings):
        with open_video(row["video"], frames_per_chunk=config.num_frames, frame_size=size) as reader:
            frames = torch.from_numpy(np.stack([chunk.frames for chunk in reader]))
        copies.append(
            RatedChunks(row["content"], int(row["fold"]), row["family"], row["distortion"], float(row["mos"]), frames)
        )
    return copies


class ChunkDataset(DrawnDataset):
    """One chunk of every copy: for training a random one, mirrored at random and often with a fault made on the
    spot."""

    def __init__(self, copies: Sequence[RatedChunks], *, augment: bool, seed: int = 0):
        super().__init__(seed)
        self.copies = copies
        self.augment = augment

    def __len__(self) -> int:
        return len(self.copies)

    def __getitem__(self, index: int) -> dict[str, Any]:
        copy = self.copies[index]
        random = self.random(index)
        frames = copy.frames[random.integers(len(copy.frames)) if self.augment else 0].float() / 255
        motion, fresh = copy.motion, _UNKNOWN
        # What a fault other than a temporal one costs is the spatial tower's business.
        rating = (
            1.0 if motion == "smooth" else copy.rating / 100 if copy.family in ("temporal", "flicker") else _UNKNOWN
        )
        if self.augment:
            if motion == "smooth":
                motion = random.choice(MOTIONS, p=MOTION_SHARES)
                frames, fresh = _disturb(frames, motion, random)
                rating = 1.0 if motion == "smooth" else _UNKNOWN
            elif motion in ("drop", "freeze"):
                # The copy's fault may lie in the other chunk.
                motion = None
            if random.random() < 0.5:
                frames = frames.flip(-1)
        return {
            "frames": frames,
            "motion": _UNKNOWN if motion is None else MOTIONS.index(motion),
            "fresh": float(fresh),
            "rating": float(rating),
        }


def _disturb(frames: torch.Tensor, motion: str, random: np.random.Generator) -> tuple[torch.Tensor, float]:
    """(num_frames, 3, size, size) with a fault; and the share of frames that are still shown at their own time."""
    count = len(frames)
    shown = np.arange(count)
    if motion == "stutter":
        hold = int(random.choice((2, 3, 4, 5, 6, 8)))
        phase = int(random.integers(hold))
        shown = np.maximum((shown + phase) // hold * hold - phase, 0)
    elif motion == "drop":
        kept = random.random(count) > random.uniform(0.1, 0.6)
        kept[0] = True
        kept[random.integers(1, count)] = False
        shown = np.maximum.accumulate(np.where(kept, shown, 0))
    elif motion == "freeze":
        length = int(random.integers(6, count))
        start = int(random.integers(0, count - length + 1))
        shown[start : start + length] = start
    elif motion == "flicker":
        amplitude, rate, phase = random.uniform(0.03, 0.2), random.uniform(3, 11), random.uniform(0, 2 * np.pi)
        wave = torch.from_numpy(amplitude * np.sin(2 * np.pi * rate * shown / count + phase)).float()
        frames = (frames + wave[:, None, None, None]).clamp(0, 1)
    return frames[shown], float(np.mean(shown == np.arange(count)))


class TemporalTowerWithHeads(nn.Module):
    """The tower and linear heads on the mean of its maps: which motion, how many fresh frames, what it costs. The heads
    are left behind after training."""

    def __init__(self, tower: LmmVqaTemporalModel, mean: float, std: float):
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(tower.config.feature_size, len(MOTIONS) + 2)
        self.mean, self.std = mean, std

    def forward(
        self, frames: torch.Tensor, motion: torch.Tensor, fresh: torch.Tensor, rating: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        scaled = (frames - self.mean) / self.std
        # As the video processor makes them with `temporal_differences`.
        maps = self.tower(scaled.diff(dim=-4, prepend=scaled.narrow(-4, 0, 1)))
        predictions = self.head(torch.cat([feature_map.mean((2, 3, 4)) for feature_map in maps], dim=1))
        loss = nn.functional.cross_entropy(predictions[:, :-2], motion, ignore_index=_UNKNOWN)
        for column, target in ((-2, fresh), (-1, rating)):
            known = target != _UNKNOWN
            loss = (
                loss
                + 4
                * (
                    known * nn.functional.smooth_l1_loss(predictions[:, column], target.float(), reduction="none")
                ).mean()
            )
        return {"loss": loss, "logits": predictions}


def train_temporal_tower(
    copies: Sequence[RatedChunks],
    held_out: Sequence[RatedChunks],
    output: Path,
    config: LmmVqaTemporalConfig,
    *,
    epochs: int = 12,
    seed: int = 0,
) -> dict[str, float]:
    """Train on `copies`, report on `held_out`, which should be of other contents.

    Args:
        output: folder for the tower, as `LmmVqaTemporalModel.from_pretrained` loads it.

    Returns:
        On `held_out`: "motion_accuracy" over all copies whose first chunk shows its fault (all but drops and
        freezes), "balanced_motion_accuracy" (mean over the motions, faults made on the spot), "temporal_rating_srcc" of
        the rating head with the rating over the temporal family.
    """
    torch.manual_seed(seed)
    model = TemporalTowerWithHeads(
        LmmVqaTemporalModel(config), LmmVqaVideoProcessor.temporal_mean[0], LmmVqaVideoProcessor.temporal_std[0]
    )
    trainer = fit_tower(
        model,
        ChunkDataset(copies, augment=True, seed=seed),
        output,
        labels=["motion", "fresh", "rating"],
        epochs=epochs,
        learning_rate=3e-3,
        seed=seed,
    )
    model.tower.save_pretrained(output)
    remove_checkpoints(output)

    rated = trainer.predict(ChunkDataset(held_out, augment=False))
    motions, _, ratings = rated.label_ids
    found = rated.predictions[:, :-2].argmax(1)
    clear = ~np.isin(motions, [MOTIONS.index("drop"), MOTIONS.index("freeze")])
    temporal = np.array([copy.family == "temporal" for copy in held_out])
    disturbed = trainer.predict(
        ChunkDataset([copy for copy in held_out if copy.motion == "smooth"], augment=True, seed=1)
    )
    truth, answer = disturbed.label_ids[0], disturbed.predictions[:, :-2].argmax(1)
    metrics = {
        "motion_accuracy": np.mean(found[clear] == motions[clear]),
        "balanced_motion_accuracy": np.mean([np.mean(answer[truth == m] == m) for m in np.unique(truth)]),
        "temporal_rating_srcc": spearmanr(rated.predictions[temporal, -1], ratings[temporal]).statistic,
    }
    return {name: float(value) for name, value in metrics.items()}
