"""Warms fresh projectors up before the language model sees a token of theirs.

Through a frozen language model a step is slow, and says little to a random projector. A small head on the same visual tokens
learns the ratings in a minute; it is left behind, and the projectors start with tokens that tell quality.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lmmvqa.training.adapters import PROJECTORS
from modeling_lmmvqa.feature_batches import Features, stack_features

_BATCH = 16
_HEAD_SIZE = 256
_LEARNING_RATE = 1e-3
# Far more than in the training that follows: a head learns few contents by heart. Chosen on the validation contents of the ladder (.5: .809, 2: .821).
_WEIGHT_DECAY = 2.0


class RatingHead(nn.Module):
    """The rating from the mean of a video's visual tokens."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, _HEAD_SIZE), nn.GELU(), nn.Linear(_HEAD_SIZE, 1))

    def forward(self, tokens: list[torch.Tensor]) -> torch.Tensor:
        """One tensor (tokens, width) a video -> (videos,)"""
        return self.layers(torch.stack([video.mean(0) for video in tokens]))[:, 0]


def warm_up_projectors(model: Any, features: list[Features], ratings: torch.Tensor, *, epochs: int, seed: int) -> RatingHead:
    """Train both projectors with a small head on the ratings.

    Args:
        model: a `LmmVqaForConditionalGeneration` whose standardisers are fitted; its projectors are changed in place.
        features: of each video, from the frozen towers.
        ratings: (videos,), 0 to 100.
        epochs: how often every video is seen.

    Returns:
        The head, for who wants to know what it learned.
    """
    torch.manual_seed(seed)
    base = model.model
    head = RatingHead(base.config.text_config.hidden_size)
    projectors = [getattr(base, name) for name in PROJECTORS if hasattr(base, name)]
    parameters = [parameter for module in (head, *projectors) for parameter in module.parameters()]
    steps = epochs * -(-len(features) // _BATCH)
    optimizer = torch.optim.AdamW(parameters, lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps, pct_start=0.05)
    for module in projectors:
        module.train()
    for _ in range(epochs):
        for part in torch.randperm(len(features)).split(_BATCH):
            tokens = base.project_features(**stack_features([features[index] for index in part]))
            loss = nn.functional.smooth_l1_loss(head(tokens), ratings[part] / 100, beta=0.05)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
    return head.eval()
