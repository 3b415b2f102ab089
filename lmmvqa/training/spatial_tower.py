"""Trains the spatial tower of the default checkpoint to see what compression, scaling, blur and noise do to a frame.

A tower that learned from opinions on whole videos keeps little of the distortion in any one frame. It learns on here, from
crops of key frames at the size at which the ladder was rated, to tell the rating; then it is frozen, as the paper freezes its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from lmmvqa.training.tower_training import fit_tower, ladder_rows
from processing.video_reader import open_video

CROP = 224
# One frame does not show what these do to the motion, and the rating counts both.
_UNSEEN = ("flicker", "stutter_x264")


@dataclass
class RatedFrames:
    """The key frames of one copy of the ladder: `frames` (chunks, 3, height, width) uint8, and its rating, 0 to 1."""

    content: str
    fold: int
    family: str
    rating: float
    frames: torch.Tensor


def read_key_frames(ratings: Path) -> list[RatedFrames]:
    """The copies of a ladder whose frames, each by itself, tell their rating. The frames of a copy that stutters are clean."""
    copies = []
    for row in ladder_rows(ratings):
        if row["rung"] in _UNSEEN:
            continue
        with open_video(row["video"]) as reader:
            frames = torch.stack([chunk.key_frame.clone() for chunk in reader])
        rating = 1.0 if row["family"] == "temporal" else float(row["mos"]) / 100
        copies.append(RatedFrames(row["content"], int(row["fold"]), row["family"], rating, frames))
    return copies


class FrameDataset(Dataset):
    """For training a crop of a random key frame of every copy, mirrored at random; otherwise the whole of its first one."""

    def __init__(self, copies: Sequence[RatedFrames], *, augment: bool, seed: int = 0):
        self.copies = copies
        self.augment = augment
        self.random = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.copies)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | float]:
        copy = self.copies[index]
        frame = copy.frames[0]
        if self.augment:
            frame = copy.frames[self.random.integers(len(copy.frames))]
            top, left = (int(self.random.integers(side - CROP + 1)) for side in frame.shape[1:])
            frame = frame[:, top : top + CROP, left : left + CROP]
            if self.random.random() < 0.5:
                frame = frame.flip(-1)
        return {"frames": frame.float() / 255, "rating": copy.rating}


class SpatialTowerWithHead(nn.Module):
    """The tower and a head on means and deviations of its stem and stages. The head is left behind after training."""

    def __init__(self, tower: PreTrainedModel):
        super().__init__()
        self.tower = tower
        channels = 2 * (tower.config.embedding_size + sum(tower.config.hidden_sizes))
        self.head = nn.Sequential(nn.BatchNorm1d(channels), nn.Dropout(0.3), nn.Linear(channels, 64), nn.GELU(), nn.Linear(64, 1))

    def train(self, mode: bool = True) -> SpatialTowerWithHead:
        """The tower's batch-norm statistics stay as they are: those of a few crops are poorer."""
        super().train(mode)
        self.tower.eval()
        return self

    def forward(self, frames: torch.Tensor, rating: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.tower(frames, output_hidden_states=True).hidden_states
        pooled = [moment for feature_map in maps for moment in torch.std_mean(feature_map, dim=(2, 3))]
        predictions = self.head(torch.cat(pooled, dim=1))[:, 0]
        loss = nn.functional.smooth_l1_loss(predictions, rating.float(), beta=0.1)
        return {"loss": loss, "logits": predictions}


def train_spatial_tower(
    tower: PreTrainedModel,
    copies: Sequence[RatedFrames],
    held_out: Sequence[RatedFrames],
    output: Path,
    *,
    epochs: int = 8,
    seed: int = 0,
) -> dict[str, float]:
    """Train on `copies`, report on `held_out`, which should be of other contents.

    Args:
        tower: a `ResNetModel` that takes RGB in [0, 1]; it is changed in place.
        output: folder for the tower in half precision, as `AutoModel.from_pretrained` loads it.

    Returns:
        On `held_out`, from one whole frame of each copy: "srcc" of the head with the rating over the families codec, spatial and
        pair together, and "srcc_<family>" of each.
    """
    torch.manual_seed(seed)
    trainer = fit_tower(
        SpatialTowerWithHead(tower), FrameDataset(copies, augment=True, seed=seed), output,
        labels=["rating"], epochs=epochs, learning_rate=2e-4, batch_size=32, seed=seed,
    )
    rated = [copy for copy in held_out if copy.family != "temporal"]
    result = trainer.predict(FrameDataset(rated, augment=False))
    families = np.array([copy.family for copy in rated])
    metrics = {"srcc": spearmanr(result.predictions, result.label_ids).statistic}
    for family in np.unique(families):
        part = families == family
        metrics[f"srcc_{family}"] = spearmanr(result.predictions[part], result.label_ids[part]).statistic
    tower.half().save_pretrained(output)
    return {name: float(value) for name, value in metrics.items()}
