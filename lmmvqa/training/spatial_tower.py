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
from transformers import PreTrainedModel, ResNetConfig, ResNetModel

from lmmvqa.default_checkpoint import Part
from lmmvqa.training.tower_training import fit_tower, ladder_rows
from modeling_lmmvqa.frame_statistics import LUMA
from modeling_lmmvqa.projectors import FeatureStandardizer
from processing.video_reader import open_video

# Where the training starts.
DISTORTION_RESNET = Part(
    package="fdim",
    version="0.2.1",
    member="fdim/dist/checkpoints/dist_5.0.0.ckpt",
    sha256="def2615203d1bc86645bda4657068f493169c9f3d0dbb7b8224f04b1046c7eb5",
    licence="MIT",
)

CROP = 192
_RIDGE = 1e3
# What one frame can't tell: what these do to the motion.
UNSEEN = ("flicker", "stutter_x264")
# BT.601: a colour as brightness and two differences.
_YCBCR = torch.tensor([LUMA, [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])


def load_distortion_resnet(path: Path) -> ResNetModel:
    """The ResNet-18 of fdim's DIST metric, which learned from opinions on compressed video, as a `ResNetModel`."""
    config = ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", hidden_act="relu"
    )
    tower = ResNetModel(config)
    state = torch.load(path, map_location="cpu", weights_only=True)
    prefix = "backbone."
    tower.load_state_dict(
        {_resnet_name(name.removeprefix(prefix)): value for name, value in state.items() if name.startswith(prefix)}
    )
    return tower.eval()


def _resnet_name(name: str) -> str:
    """torchvision's name of a ResNet-18 parameter in transformers' naming."""
    kinds = {"conv": "convolution", "bn": "normalization"}
    parts = name.split(".")
    if parts[0] in ("conv1", "bn1"):
        return f"embedder.embedder.{kinds[parts[0].rstrip('1')]}.{parts[1]}"
    stage, block, module, *rest = parts
    home = f"encoder.stages.{int(stage.removeprefix('layer')) - 1}.layers.{block}"
    if module == "downsample":
        kind = ("convolution", "normalization")[int(rest[0])]
        return f"{home}.shortcut.{kind}.{rest[1]}"
    return f"{home}.layer.{int(module[-1]) - 1}.{kinds[module[:-1]]}.{rest[0]}"


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
        if row["rung"] in UNSEEN:
            continue
        with open_video(row["video"]) as reader:
            frames = torch.from_numpy(np.stack([chunk.key_frame for chunk in reader]))
        rating = 1.0 if row["family"] == "temporal" else float(row["mos"]) / 100
        copies.append(RatedFrames(row["content"], int(row["fold"]), row["family"], rating, frames))
    return copies


class FrameDataset(Dataset):
    """For training a crop of a random key frame of every copy, mirrored and recoloured at random: VMAF looks at brightness alone,
    so a content may have any colours. Otherwise the whole of its first key frame."""

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
            for axis in (-1, -2):
                if self.random.random() < 0.5:
                    frame = frame.flip(axis)
        frame = frame.float() / 255
        return {"frames": self._recolour(frame) if self.augment else frame, "rating": copy.rating}

    def _recolour(self, frame: torch.Tensor) -> torch.Tensor:
        """(3, height, width), 0 to 1, with the colours turned by any angle, and paler or stronger; half of the time as it is."""
        if self.random.random() < 0.5:
            return frame
        angle, strength = self.random.uniform(0, 2 * np.pi), self.random.uniform(0, 1.2)
        turn = torch.eye(3)
        turn[1:, 1:] = strength * torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return torch.einsum("ij,jhw->ihw", torch.linalg.solve(_YCBCR, turn @ _YCBCR), frame).clamp(0, 1)


class SpatialTowerWithHead(nn.Module):
    """The tower and a linear head on means and deviations of its stem and stages. The head is left behind after training."""

    def __init__(self, tower: PreTrainedModel):
        super().__init__()
        self.tower = tower
        channels = 2 * (tower.config.embedding_size + sum(tower.config.hidden_sizes))
        self.standardizer = FeatureStandardizer(channels)
        self.head = nn.Linear(channels, 1)
        self.train()

    def train(self, mode: bool = True) -> SpatialTowerWithHead:
        """The tower's batch-norm statistics stay as they are: those of a few crops are poorer."""
        super().train(mode)
        self.tower.eval()
        return self

    def moments(self, frames: torch.Tensor) -> torch.Tensor:
        """(frames, 3, height, width), 0 to 1 -> (frames, channels)"""
        maps = self.tower(frames, output_hidden_states=True).hidden_states
        moments = []
        for feature_map in maps:
            variance, mean = torch.var_mean(feature_map, dim=(2, 3))
            # The slope of a root is steepest where a channel is silent.
            moments += [mean, (variance + 1e-2).sqrt()]
        return torch.cat(moments, dim=1)

    @torch.no_grad()
    def fit_head(self, data: Dataset) -> None:
        """Ridge regression on the tower as it is. From a random head, the first steps would spoil what the tower knows."""
        items = [data[index] for index in range(len(data))]
        batches = [torch.stack([item["frames"] for item in items[start : start + 16]]) for start in range(0, len(items), 16)]
        features = torch.cat([self.moments(batch) for batch in batches])
        self.standardizer.fit(features)
        # A channel that is nearly silent would be made loud.
        self.standardizer.scale.clamp_(max=5 * self.standardizer.scale.median())
        known, ratings = self.standardizer(features), torch.tensor([item["rating"] for item in items])
        gram = known.T @ known + _RIDGE * torch.eye(known.shape[1])
        self.head.weight.copy_(torch.linalg.solve(gram, known.T @ (ratings - ratings.mean()))[None])
        self.head.bias.fill_(ratings.mean())

    def forward(self, frames: torch.Tensor, rating: torch.Tensor) -> dict[str, torch.Tensor]:
        predictions = self.head(self.standardizer(self.moments(frames)))[:, 0]
        loss = nn.functional.smooth_l1_loss(predictions, rating.float(), beta=0.1)
        return {"loss": loss, "logits": predictions}


def train_spatial_tower(
    tower: PreTrainedModel,
    copies: Sequence[RatedFrames],
    held_out: Sequence[RatedFrames],
    output: Path,
    *,
    epochs: int = 12,
    average: bool = False,
    seed: int = 0,
) -> dict[str, float]:
    """Train on `copies`, report on `held_out`, which should be of other contents.

    Args:
        tower: a `ResNetModel` that takes RGB in [0, 1]; it is changed in place.
        average: end at the mean of the weights before and after. Of a tower that knew the task it keeps what both runs agree on
            (Wortsman et al., "Robust fine-tuning of zero-shot models").
        output: folder for the tower in half precision, as `AutoModel.from_pretrained` loads it.

    Returns:
        On `held_out`, from one whole frame of each copy: "srcc" of the head with the rating over the families codec, spatial and
        pair together, and "srcc_<family>" of each.
    """
    torch.manual_seed(seed)
    model, data = SpatialTowerWithHead(tower), FrameDataset(copies, augment=True, seed=seed)
    before = [parameter.detach().clone() for parameter in tower.parameters()] if average else []
    model.fit_head(data)
    trainer = fit_tower(
        model, data, output, labels=["rating"], epochs=epochs, learning_rate=4e-5, tower_learning_rate=2e-4, seed=seed
    )
    if average:
        with torch.no_grad():
            for parameter, start in zip(tower.parameters(), before, strict=True):
                parameter.lerp_(start, 0.5)
        model.fit_head(data)
    rated = [copy for copy in held_out if copy.family != "temporal"]
    result = trainer.predict(FrameDataset(rated, augment=False))
    families = np.array([copy.family for copy in rated])
    metrics = {"srcc": spearmanr(result.predictions, result.label_ids).statistic}
    for family in np.unique(families):
        part = families == family
        metrics[f"srcc_{family}"] = spearmanr(result.predictions[part], result.label_ids[part]).statistic
    tower.half().save_pretrained(output)
    return {name: float(value) for name, value in metrics.items()}
