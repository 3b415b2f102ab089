"""Trains a small temporal tower to see what no single frame shows: how long each picture is held.

The paper's tower comes from action recognition. Where its weights can't be had, a narrow SlowFast learns from the ladder of
distortions: for each chunk the number of frames for which a picture stands still, and what that costs. Half of the
chunks are held anew at training time, so that every content is seen smooth and stuttering.
"""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from modeling_lmmvqa import LmmVqaTemporalConfig, LmmVqaTemporalModel
from processing.video_processing_lmmvqa import LmmVqaVideoProcessor, differences
from processing.video_reader import open_video

logger = logging.getLogger(__name__)

# 0.9 million parameters. It sees differences of frames, so it needs few channels.
SMALL_TOWER = LmmVqaTemporalConfig(slow_channels=8, fast_channels=8, depth=18, image_size=64)
HOLDS = (2, 3, 4, 6, 8)
HOLD_SHARE = 0.5


class ChunkDataset(Dataset):
    """One chunk of every copy of a split; in training a random one, mirrored and held at random."""

    def __init__(self, ratings: Path, split: str, config: LmmVqaTemporalConfig, *, augment: bool):
        with ratings.open(newline="", encoding="utf-8") as file:
            self.rows = [row for row in csv.DictReader(file) if row["split"] == split]
        size = (config.image_size, config.image_size)
        self.chunks: list[list[torch.Tensor]] = []
        self.rates: list[int] = []
        for row in self.rows:
            with open_video(ratings.parent / row["video"], frames_per_chunk=config.num_frames, frame_size=size) as reader:
                self.chunks.append([chunk.frames for chunk in reader])
                self.rates.append(max(1, round(reader.info.fps)))
        self.augment = augment
        self.random = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row, chunks = self.rows[index], self.chunks[index]
        hold = float(row["severity"]) if row["family"] == "temporal" else 1.0
        # What a fault other than a temporal one costs is the spatial tower's business.
        rating, rated = (float(row["mos"]) / 100 if hold > 1 else 1.0), True
        frames = chunks[self.random.integers(len(chunks)) if self.augment else len(chunks) // 2]
        if self.augment:
            if hold == 1 and self.random.random() < HOLD_SHARE:
                hold, rated = float(self.random.choice(HOLDS)), False
                frames = frames[self._held(len(frames), self.rates[index], int(hold))]
            if self.random.random() < 0.5:
                frames = frames.flip(-1)
        return {"frames": frames, "rating": rating, "rated": float(rated), "hold": np.log2(hold)}

    def _held(self, num_frames: int, rate: int, hold: int) -> torch.Tensor:
        """Which of the evenly spaced frames to show in place of each, if the source shows every `hold`-th frame only."""
        source = np.rint(np.linspace(0, rate - 1, num_frames)).astype(int)
        phase = int(self.random.integers(hold))
        shown = np.maximum((source + phase) // hold * hold - phase, 0)
        return torch.from_numpy(np.searchsorted(source, shown).clip(max=num_frames - 1))


class TemporalTowerWithHeads(nn.Module):
    """The tower and two linear heads on the mean of its maps; the heads are left behind after training."""

    def __init__(self, tower: LmmVqaTemporalModel, mean: float, std: float):
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(tower.config.feature_size, 2)
        self.mean, self.std = mean, std

    def forward(
        self, frames: torch.Tensor, rating: torch.Tensor, rated: torch.Tensor, hold: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        maps = self.tower(differences((frames.float() / 255 - self.mean) / self.std))
        predictions = self.head(torch.cat([feature_map.mean((2, 3, 4)) for feature_map in maps], dim=1))
        rating_loss = (rated * nn.functional.smooth_l1_loss(predictions[:, 0], rating.float(), reduction="none")).mean()
        hold_loss = nn.functional.smooth_l1_loss(predictions[:, 1], hold.float())
        return {"loss": 4 * rating_loss + hold_loss, "logits": predictions}


def train_temporal_tower(
    ratings: Path, output: Path, config: LmmVqaTemporalConfig, *, epochs: int = 16, seed: int = 0
) -> dict[str, float]:
    """Train on the split "train" of a ladder, report on "test".

    Args:
        ratings: `ratings.csv` of `lmmvqa ladder`.
        output: folder for the tower, as `LmmVqaTemporalModel.from_pretrained` loads it.

    Returns:
        On contents not seen: SRCC of the hold head with the true hold over temporal copies and all others
        ("hold_srcc"), and of the rating head with the rating over the temporal family ("temporal_rating_srcc").
    """
    torch.manual_seed(seed)
    train, test = (ChunkDataset(ratings, split, config, augment=split == "train") for split in ("train", "test"))
    model = TemporalTowerWithHeads(
        LmmVqaTemporalModel(config), LmmVqaVideoProcessor.temporal_mean[0], LmmVqaVideoProcessor.temporal_std[0]
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(output / "run"),
            num_train_epochs=epochs,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=16,
            learning_rate=3e-3,
            weight_decay=0.01,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            max_grad_norm=1.0,
            logging_steps=20,
            save_strategy="no",
            report_to=[],
            label_names=["rating", "hold"],
            remove_unused_columns=False,
            seed=seed,
        ),
        train_dataset=train,
        eval_dataset=test,
    )
    trainer.train()
    predictions = trainer.predict(test).predictions
    rating, hold = (np.array([test[i][key] for i in range(len(test))]) for key in ("rating", "hold"))
    temporal = hold > 0
    metrics = {
        "hold_srcc": spearmanr(predictions[:, 1], hold).statistic,
        "temporal_rating_srcc": spearmanr(predictions[temporal, 0], rating[temporal]).statistic,
    }
    model.tower.save_pretrained(output)
    return {name: float(value) for name, value in metrics.items()}
