"""Projectors: features of the towers in, tokens of the language model out (paper, eqs. 6 and 7)."""

from collections.abc import Callable

import torch
from torch import nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from .configuration_lmmvqa import LmmVqaConfig


class FeatureStandardizer(nn.Module):
    """Shifts and scales every channel to mean 0 and deviation 1 over the training set, and cuts what lies far out.

    Channels of a convolutional tower differ by orders of magnitude, and a quality difference may lie in a small one. As
    long as `fit` was not called it passes features on as they are. It computes in float32, whatever the precision of
    the model: half precision can't hold the scale of a silent channel.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    limit: torch.Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("limit", torch.full((channels,), torch.inf))

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "FeatureStandardizer":
        """Moves go as everywhere; a change of precision leaves the buffers as they are."""
        before = {name: buffer for name, buffer in self.named_buffers() if not buffer.is_meta}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            moved = self.get_buffer(name)
            if moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self

    @torch.no_grad()
    def fit(self, features: torch.Tensor, few: int = 0, limit: float = torch.inf) -> None:
        """Measure mean and deviation.

        Args:
            features: (..., channels), those of the training set.
            few: so many last channels are not a tower's. They are made so large that together they weigh as much as all
                before them, because a handful among thousands would be learned from too late; and they are cut at two
                deviations, because a frame darker or smoother than all of the training set would drown what the towers
                say.
            limit: at how many deviations the others are cut. A channel behind a rectifier has a long tail, and a video
                far out in one would be judged by it alone.
        """
        features = features.reshape(-1, features.shape[-1]).double()
        self.mean.copy_(features.mean(0))
        self.scale.copy_(1 / features.std(0).clamp(min=1e-6))
        self.limit.fill_(limit)
        if few:
            weight = (len(self.scale) / few - 1) ** 0.5
            self.scale[-few:] *= weight
            self.limit[-few:] = 2 * weight

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(..., channels) of any precision -> the same in float32"""
        return ((features.float() - self.mean) * self.scale).clamp_(-self.limit, self.limit)


class Projector(nn.Module):
    """What all projectors share: standardised features in, tokens of the decoder's width and scale out.

    The final LayerNorm's gain starts at the deviation of the decoder's word embeddings (`match_scale`): visual tokens
    many times larger or smaller than words drown or vanish in a frozen decoder.

    Args:
        in_features: channels of a feature.
        hidden_size: width inside.
    """

    def __init__(self, config: LmmVqaConfig, in_features: int, hidden_size: int):
        super().__init__()
        self.standardizer = FeatureStandardizer(in_features)
        # Of the features, and inside an MLP; `lmmvqa train` sets it.
        self.dropout = nn.Dropout(0.0)
        self.linear = nn.Linear(hidden_size, config.text_config.hidden_size)
        self.norm = nn.LayerNorm(config.text_config.hidden_size)

    def mix(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, in_features) -> (batch, tokens, hidden_size)"""
        raise NotImplementedError

    def match_scale(self, embeddings: nn.Embedding) -> None:
        """
        Args:
            embeddings: of words, as the decoder applies them: some scale their weights.
        """
        weight = embeddings.weight
        some = torch.arange(0, len(weight), 1 + len(weight) // 4096, device=weight.device)
        scale = embeddings(some).float().std() / weight[some].float().std()
        nn.init.constant_(self.norm.weight, (scale * weight.float().std()).item())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, tokens, in_features) -> (batch, tokens, hidden size of the language model)"""
        standardized = self.standardizer(features).to(self.linear.weight.dtype)
        return self.norm(self.linear(self.mix(self.dropout(standardized))))


def check_heads(config: LmmVqaConfig, hidden_size: int) -> None:
    """
    Raises:
        ValueError: the width can't be shared out among the attention heads.
    """
    if hidden_size % config.projector_num_heads:
        raise ValueError(
            f"projector_num_heads={config.projector_num_heads} does not divide the width {hidden_size} of the "
            f"{config.spatial_projector_type!r} projector: choose a divisor."
        )


class MlpProjector(Projector):
    """Two linear layers with a GELU between them; the temporal projector of the paper."""

    def __init__(self, config: LmmVqaConfig, in_features: int, hidden_size: int):
        super().__init__(config, in_features, hidden_size)
        self.input = nn.Linear(in_features, hidden_size)

    def mix(self, features: torch.Tensor) -> torch.Tensor:
        return self.dropout(nn.functional.gelu(self.input(features)))


class VitProjector(Projector):
    """One ViT layer over the tokens of a key frame, then one linear layer; the spatial projector of the paper."""

    def __init__(self, config: LmmVqaConfig, in_features: int, hidden_size: int):
        super().__init__(config, in_features, hidden_size)
        self.input = nn.Identity() if in_features == hidden_size else nn.Linear(in_features, hidden_size)
        check_heads(config, hidden_size)
        layer = CLIPVisionConfig(
            hidden_size=hidden_size, intermediate_size=4 * hidden_size, num_attention_heads=config.projector_num_heads
        )
        layer._attn_implementation = "sdpa"
        self.layer = CLIPEncoderLayer(layer)

    def mix(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(self.input(features), attention_mask=None)


class PerceiverProjector(Projector):
    """Learned queries attend to the features of a key frame; as many tokens as there are queries."""

    def __init__(self, config: LmmVqaConfig, in_features: int, hidden_size: int):
        super().__init__(config, in_features, hidden_size)
        check_heads(config, hidden_size)
        self.queries = nn.Parameter(torch.empty(config.num_spatial_tokens, hidden_size))
        self.input = nn.Linear(in_features, hidden_size)
        self.query_norm, self.key_norm, self.mlp_norm = (nn.LayerNorm(hidden_size) for _ in range(3))
        self.attention = nn.MultiheadAttention(hidden_size, config.projector_num_heads, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, 4 * hidden_size), nn.GELU(), nn.Linear(4 * hidden_size, hidden_size)
        )

    def mix(self, features: torch.Tensor) -> torch.Tensor:
        keys = self.key_norm(self.input(features))
        queries = self.queries.expand(features.shape[0], -1, -1)
        tokens = queries + self.attention(self.query_norm(queries), keys, keys, need_weights=False)[0]
        return tokens + self.mlp(self.mlp_norm(tokens))


SPATIAL_PROJECTORS: dict[str, type[Projector]] = {
    "vit": VitProjector,
    "mlp": MlpProjector,
    "perceiver": PerceiverProjector,
}
