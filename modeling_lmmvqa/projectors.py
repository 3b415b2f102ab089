"""Projectors: features of the towers in, tokens of the language model out (paper, eqs. 6 and 7)."""

import torch
from torch import nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from .configuration_lmmvqa import LmmVqaConfig


class FeatureStandardizer(nn.Module):
    """Shifts and scales every channel to mean 0 and deviation 1 over the training set.

    Channels of a convolutional tower differ by orders of magnitude, and a quality difference may lie in a small one. As
    long as `fit` was not called it passes features on as they are.

    Args:
        channels: of the features.
        few: the last of them, which are not a tower's. `fit` makes them so large that together they weigh as much as
            all before them, because a handful among thousands would be learned from too late; and they are cut at two
            deviations, because a frame darker or smoother than all of the training set would drown what the towers say.
        limit: at how many deviations the others are cut; None does not cut them.
    """

    def __init__(self, channels: int, few: int = 0, limit: float | None = None):
        super().__init__()
        self.few, self.limit = few, limit
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))

    @torch.no_grad()
    def fit(self, features: torch.Tensor) -> None:
        """Measure mean and deviation on `features` (..., channels)."""
        features = features.reshape(-1, features.shape[-1]).double()
        self.mean.copy_(features.mean(0))
        self.scale.copy_(1 / features.std(0).clamp(min=1e-6))
        if self.few:
            self.scale[-self.few :] *= self._weight

    @property
    def _weight(self) -> float:
        return (len(self.scale) / self.few - 1) ** 0.5

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        standardized = (features - self.mean) * self.scale
        many = standardized.shape[-1] - self.few
        if self.limit is not None:
            standardized[..., :many].clamp_(-self.limit, self.limit)
        if self.few:
            standardized[..., many:].clamp_(-2 * self._weight, 2 * self._weight)
        return standardized


class Projector(nn.Module):
    """What all projectors share: standardised features in, tokens of the decoder's width and scale out.

    The final LayerNorm's gain starts at the deviation of the decoder's word embeddings (`match_scale`): visual tokens
    many times larger or smaller than words drown or vanish in a frozen decoder.

    Args:
        in_features: channels of a feature.
        hidden_size: width inside.
        few: as `FeatureStandardizer` takes it.
    """

    def __init__(self, config: LmmVqaConfig, in_features: int, hidden_size: int, few: int = 0):
        super().__init__()
        self.standardizer = FeatureStandardizer(in_features, few, config.feature_limit)
        self.dropout = nn.Dropout(config.projector_dropout)
        self.linear = nn.Linear(hidden_size, config.text_config.hidden_size)
        self.norm = nn.LayerNorm(config.text_config.hidden_size)

    def mix(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, in_features) -> (batch, tokens, hidden_size)"""
        raise NotImplementedError

    def match_scale(self, embeddings: torch.Tensor) -> None:
        nn.init.constant_(self.norm.weight, embeddings.float().std().item())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, in_features) -> (batch, tokens, hidden size of the language model)"""
        return self.norm(self.linear(self.mix(self.dropout(self.standardizer(features)))))


class MlpProjector(Projector):
    """Two linear layers with a GELU between them; the temporal projector of the paper."""

    def __init__(self, config: LmmVqaConfig, in_features: int, hidden_size: int, few: int = 0):
        super().__init__(config, in_features, hidden_size, few)
        self.input = nn.Linear(in_features, hidden_size)

    def mix(self, features: torch.Tensor) -> torch.Tensor:
        return self.dropout(nn.functional.gelu(self.input(features)))


class VitProjector(Projector):
    """One ViT layer over the tokens of a key frame, then one linear layer; the spatial projector of the paper."""

    def __init__(self, config: LmmVqaConfig, in_features: int, hidden_size: int, few: int = 0):
        super().__init__(config, in_features, hidden_size, few)
        self.input = nn.Identity() if in_features == hidden_size else nn.Linear(in_features, hidden_size)
        self.layer = CLIPEncoderLayer(
            CLIPVisionConfig(
                hidden_size=hidden_size,
                intermediate_size=4 * hidden_size,
                num_attention_heads=config.projector_num_heads,
                attn_implementation="sdpa",
            )
        )

    def mix(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(self.input(features), attention_mask=None)


class PerceiverProjector(Projector):
    """Learned queries attend to the features of a key frame; as many tokens as there are queries."""

    def __init__(self, config: LmmVqaConfig, in_features: int, hidden_size: int, few: int = 0):
        super().__init__(config, in_features, hidden_size, few)
        self.queries = nn.Parameter(torch.empty(config.num_spatial_tokens, hidden_size))
        self.input = nn.Linear(in_features, hidden_size)
        self.query_norm, self.key_norm, self.mlp_norm = (nn.LayerNorm(hidden_size) for _ in range(3))
        self.attention = nn.MultiheadAttention(hidden_size, config.projector_num_heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size), nn.GELU(), nn.Linear(4 * hidden_size, hidden_size)
        )

    def mix(self, features: torch.Tensor) -> torch.Tensor:
        keys = self.key_norm(self.input(features))
        queries = self.queries.expand(len(features), -1, -1)
        tokens = queries + self.attention(self.query_norm(queries), keys, keys, need_weights=False)[0]
        return tokens + self.mlp(self.mlp_norm(tokens))


SPATIAL_PROJECTORS: dict[str, type[Projector]] = {
    "vit": VitProjector,
    "mlp": MlpProjector,
    "perceiver": PerceiverProjector,
}
