"""Trains the spatial tower of the default checkpoint to see what compression, scaling, blur and noise do to a frame.

A tower that learned from opinions on whole videos keeps little of the distortion in any one frame. It learns on here,
to tell how tiles were rated each by itself; then it is frozen, as the paper freezes its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, ResNetConfig, ResNetModel

from lmmvqa.checkpoints.parts import Part
from lmmvqa.default_making.rated_tiles import MEASURES, RatedTiles, tells_its_rating
from lmmvqa.default_making.tower_training import copy_rows, fit_tower, remove_checkpoints
from modeling_lmmvqa.projectors import FeatureStandardizer
from processing.errors import InputError
from processing.video_reader import open_video

# Where the training starts.
DISTORTION_RESNET = Part(
    package="fdim",
    version="0.2.1",
    member="fdim/dist/checkpoints/dist_5.0.0.ckpt",
    sha256="def2615203d1bc86645bda4657068f493169c9f3d0dbb7b8224f04b1046c7eb5",
    licence="MIT",
)

_RIDGE, _HEAD_TILES = 1e3, 6000


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


def first_key_frame(video: str) -> torch.Tensor:
    """(3, height, width), RGB from 0 to 1, as `SpatialTowerWithHead` takes it.

    Raises:
        VideoError: the video can't be read.
    """
    with open_video(video, max_chunks=1) as reader:
        return torch.as_tensor(next(iter(reader)).key_frame).float() / 255


class KeyFrames(Dataset):
    """The first key frames, whole, of the copies of one fold: "frames" (3, height, width) from 0 to 1, and
    the copy's VMAF as the last of the "rating", whose others are not known.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, ratings: Path, fold: int):
        self.rows = [row for row in copy_rows(ratings) if int(row["fold"]) == fold and tells_its_rating(row)]
        if not self.rows:
            raise InputError(
                f"{ratings} has no copies of fold {fold} to test a tower on: add contents, or choose with "
                "--held-out-fold."
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        row = self.rows[index]
        return {
            "frames": first_key_frame(row["video"]),
            "rating": torch.full((len(MEASURES),), float(row["mos"]) / 100),
        }


class SpatialTowerWithHead(nn.Module):
    """The tower and a linear head on means and deviations of its stem and stages, for each of `MEASURES`. The head is
    left behind after training.

    Args:
        bf16: multiply in bfloat16 while it trains; its weights, the statistics and the head stay in float32.
    """

    def __init__(self, tower: PreTrainedModel, *, bf16: bool = False):
        super().__init__()
        self.tower = tower
        self.bf16 = bf16
        channels = 2 * (tower.config.embedding_size + sum(tower.config.hidden_sizes))
        self.standardizer = FeatureStandardizer(channels)
        self.head = nn.Linear(channels, len(MEASURES))
        self.train()

    def train(self, mode: bool = True) -> SpatialTowerWithHead:
        """The tower's batch-norm statistics stay as they are: those of a few tiles are poorer."""
        super().train(mode)
        self.tower.eval()
        return self

    def moments(self, frames: torch.Tensor) -> torch.Tensor:
        """(frames, 3, height, width), 0 to 1 -> (frames, channels)"""
        with torch.autocast(frames.device.type, torch.bfloat16, enabled=self.bf16 and self.training):
            maps = self.tower(
                frames.contiguous(memory_format=torch.channels_last), output_hidden_states=True
            ).hidden_states
        moments = []
        for feature_map in maps:
            variance, mean = torch.var_mean(feature_map.float(), dim=(2, 3))
            # The slope of a root is steepest where a channel is silent.
            moments += [mean, (variance + 1e-2).sqrt()]
        return torch.cat(moments, dim=1)

    @torch.no_grad()
    def fit_head(self, data: Dataset) -> None:
        """Ridge regression on the tower as it is. From a random head, the first steps would spoil what the tower
        knows."""
        chosen = np.random.default_rng(0).permutation(len(data))[:_HEAD_TILES]
        features, ratings = [], []
        for indices in np.array_split(chosen, -(-len(chosen) // 32)):
            items = [data[int(index)] for index in indices]
            features.append(self.moments(torch.stack([item["frames"] for item in items])))
            ratings += [item["rating"] for item in items]
        known, wanted = torch.cat(features), torch.stack(ratings)
        self.standardizer.fit(known)
        # A channel that is nearly silent would be made loud.
        self.standardizer.scale.clamp_(max=5 * self.standardizer.scale.median())
        known = self.standardizer(known).asinh()
        gram = known.T @ known + _RIDGE * torch.eye(known.shape[1])
        self.head.weight.copy_(torch.linalg.solve(gram, known.T @ (wanted - wanted.mean(0))).T)
        self.head.bias.copy_(wanted.mean(0))

    def forward(self, frames: torch.Tensor, rating: torch.Tensor) -> dict[str, torch.Tensor]:
        predictions = self.head(self.standardizer(self.moments(frames)).asinh())
        loss = nn.functional.smooth_l1_loss(predictions, rating.float(), beta=0.1)
        return {"loss": loss, "logits": predictions}


def train_spatial_tower(
    tower: PreTrainedModel,
    tiles: RatedTiles,
    held_out: KeyFrames,
    output: Path,
    *,
    epochs: int = 1,
    bf16: bool = False,
    seed: int = 0,
) -> dict[str, float]:
    """Train on `tiles`, report on `held_out`, which should be of other contents.

    Args:
        tower: a `ResNetModel` that takes RGB in [0, 1]; it is changed in place.
        output: folder for the tower in half precision, as `AutoModel.from_pretrained` loads it.
        bf16: multiply in bfloat16: faster where the processor has it (AVX512-BF16, AMX), several times slower where
            not.

    Returns:
        On `held_out`: "srcc" of the head's VMAF with that of the copy, over all, and "srcc_<family>" of each family.
    """
    torch.manual_seed(seed)
    model = SpatialTowerWithHead(tower, bf16=bf16)
    model.fit_head(tiles)
    trainer = fit_tower(
        model,
        tiles,
        output,
        labels=["rating"],
        epochs=epochs,
        learning_rate=2e-5,
        tower_learning_rate=1e-4,
        batch_size=32,
        seed=seed,
    )
    result = trainer.predict(held_out)
    predicted, rated = result.predictions[:, -1], result.label_ids[:, -1]
    families = np.array([row["family"] for row in held_out.rows])
    metrics = {"srcc": spearmanr(predicted, rated).statistic}
    for family in np.unique(families):
        part = families == family
        metrics[f"srcc_{family}"] = spearmanr(predicted[part], rated[part]).statistic
    tower.half().save_pretrained(output)
    remove_checkpoints(output)
    return {name: float(value) for name, value in metrics.items()}
