"""What the spatial stream takes from a tower: maps of hidden states, and a tower of several backbones."""

from collections.abc import Sequence
from itertools import chain
from math import isqrt
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .configuration_lmmvqa import LmmVqaSpatialConfig, View
from .frame_statistics import frame_statistics
from .frame_views import resized_shape, tile_places


class LmmVqaSpatialModel(PreTrainedModel):
    """Backbones that each see a frame in a way of their own; their means and deviations over parts of the frame become
    tokens.

    An artefact that fills a tenth of a part hardly moves a mean, but it moves a deviation.
    """

    config: LmmVqaSpatialConfig
    main_input_name = "pixel_values"
    input_modalities = ["image"]  # noqa: RUF012
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: LmmVqaSpatialConfig):
        super().__init__(config)
        self.views = config.parsed_views()
        self.backbones = nn.ModuleList(
            AutoModel.from_config(AutoConfig.for_model(**view.backbone), dtype=torch.get_default_dtype())
            for view in self.views
        )
        self.post_init()

    def forward(
        self, pixel_values: torch.Tensor, output_hidden_states: bool | None = None, return_dict: bool | None = None
    ) -> BaseModelOutput:
        """
        Args:
            pixel_values: (frames, 3, height, width), RGB from 0 to 1, of any size.

        Returns:
            `last_hidden_state` (frames, grid * grid, channels), row by row: for each view the means of its layers,
            their deviations and their class tokens, then the statistics of the frame. The same is the only hidden
            state.
        """
        tokens = self.describe(self.look(pixel_values), self._statistics(pixel_values))
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))

    def look(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """What each backbone sees of frames (frames, 3, height, width) from 0 to 1: (frames, 3, ...) resized, or
        (frames * grid * grid, 3, tile_size, tile_size)."""
        return [self._look(view, backbone, frames) for view, backbone in zip(self.views, self.backbones, strict=True)]

    def _look(self, view: View, backbone: Any, frames: torch.Tensor) -> torch.Tensor:
        if view.side is not None:
            patch = getattr(backbone.config, "patch_size", 1)
            shape = resized_shape(frames.shape[-2], frames.shape[-1], view.side, patch)
            # Processors have no such filter in half precision.
            resized = nn.functional.interpolate(frames.float(), shape, mode="bilinear", antialias=True)
            frames = resized.to(frames.dtype)
        if view.tile_size is not None:
            places = tile_places(frames.shape[-2], frames.shape[-1], view.tile_size, self.config.grid)
            frames = torch.stack([frames[..., rows, columns] for rows, columns in places], dim=1).flatten(0, 1)
        return frames

    def _statistics(self, frames: torch.Tensor) -> torch.Tensor | None:
        if not self.config.frame_statistics:
            return None
        # On the meta device only the shape is asked for.
        if frames.is_meta:
            return frames.new_empty(len(frames), self.config.num_frame_statistics)
        return torch.from_numpy(frame_statistics(frames.float().cpu().numpy())).to(frames)

    def describe(self, seen: Sequence[torch.Tensor], statistics: torch.Tensor | None) -> torch.Tensor:
        """Tokens (frames, grid * grid, channels) of what `look` gives, with the statistics (frames, channels) of the
        whole frames."""
        parts = [
            part
            for view, backbone, frames in zip(self.views, self.backbones, seen, strict=True)
            for part in self._describe(view, backbone, frames)
        ]
        if statistics is not None:
            parts.append(statistics[:, None].expand(-1, self.config.grid**2, -1))
        return torch.cat(parts, dim=2)

    def _describe(self, view: View, backbone: Any, seen: torch.Tensor) -> list[torch.Tensor]:
        grid = self.config.grid
        mean, std = (seen.new_tensor(values)[:, None, None] for values in (view.mean, view.std))
        seen = ((seen - mean) / std).contiguous(memory_format=torch.channels_last)
        states = backbone(seen, output_hidden_states=True, return_dict=True).hidden_states
        maps = [as_map(states[layer], seen.shape[-2:], backbone.config) for layer in view.layers]
        pooled_to = (grid, grid) if view.tile_size is None else (1, 1)
        means = [pool(layer, pooled_to) for layer in maps]
        squares = [pool(layer.square(), pooled_to) for layer in maps]
        deviations = [(square - mean.square()).clamp(min=0).sqrt() for mean, square in zip(means, squares, strict=True)]
        # A tile is a token; a map that was pooled holds the tokens of its frame.
        tokens = [torch.cat(moments, dim=1).flatten(2).transpose(1, 2) for moments in (means, deviations)]
        if view.class_token:
            classes = torch.cat([states[layer][:, 0] for layer in view.layers], dim=1)[:, None]
            tokens.append(classes if view.tile_size is not None else classes.expand(-1, grid * grid, -1))
        return [part.reshape(-1, grid * grid, part.shape[-1]) for part in tokens]


def make_spatial_tower(config: Any) -> PreTrainedModel:
    """A spatial tower of any kind, with fresh weights."""
    # Code that travels with a checkpoint is loaded once for the config and once for the model, and the Auto class of
    # the second does not know the config of the first.
    return LmmVqaSpatialModel(config) if config.model_type == "lmmvqa_spatial" else AutoModel.from_config(config)


def as_map(state: torch.Tensor, frame_size: Sequence[int], config: PreTrainedConfig) -> torch.Tensor:
    """A hidden state of any tower as (batch, channels, height, width).

    Args:
        state: (batch, channels, height, width), or tokens (batch, places, channels) of which those of the patches come
            last; what precedes them (class token, registers) is left out.
        frame_size: height and width of what the tower saw, in pixels.
        config: of the tower; its `patch_size`, where it has one, tells the shape. Otherwise the places are a square.
    """
    if state.ndim == 4:
        return state
    patch = getattr(config, "patch_size", None)
    side = isqrt(state.shape[1])
    height, width = (frame_size[0] // patch, frame_size[1] // patch) if isinstance(patch, int) else (side, side)
    # Towers that merge patches from stage to stage have fewer places than patches.
    if height * width > state.shape[1]:
        height, width = side, side
    return state[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))


def pool(feature_map: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(batch, channels, height, width) -> (batch, channels, *grid), means over the parts of the map."""
    # Of a frame of unknown size, an exported graph can't say whether the map has the size of the grid.
    if torch.compiler.is_exporting():
        rows, columns = (_shares(side, parts) for side, parts in zip(feature_map.shape[-2:], grid, strict=True))
        return rows @ feature_map @ columns.transpose(0, 1)
    return feature_map if feature_map.shape[-2:] == grid else nn.functional.adaptive_avg_pool2d(feature_map, grid)


def pool_in_time(feature_map: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    """(batch, channels, time, height, width) -> (batch, channels, *grid), means over the parts of the map."""
    if torch.compiler.is_exporting():
        frames = pool(feature_map.flatten(1, 2), grid[1:]).unflatten(1, feature_map.shape[1:3])
        return (_shares(feature_map.shape[2], grid[0]) @ frames.flatten(3)).unflatten(3, grid[1:])
    return nn.functional.adaptive_avg_pool3d(feature_map, grid)


def _shares(side: int, parts: int) -> torch.Tensor:
    """(parts, side): what each place of a map gives to the mean of each part; parts overlap where they don't divide."""
    places, part = torch.arange(side), torch.arange(parts)[:, None]
    inside = (places >= part * side // parts) & (places < ((part + 1) * side + parts - 1) // parts)
    return inside.float() / inside.sum(1, keepdim=True)


def frame_size_of(config: PreTrainedConfig) -> tuple[int, int]:
    """Height and width that a tower was made for; the paper's 224 where it takes any."""
    size: Any = getattr(config, "image_size", None) or 224
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@torch.no_grad()
def map_shape(
    tower: PreTrainedModel, layers: int | Sequence[int], frame_size: Sequence[int] | None = None
) -> tuple[int, int, int]:
    """Channels of the selected hidden states of a tower together, and height and width of the last one's map.

    Towers tell their channels in different ways, so they are measured: on the meta device, where nothing is computed.

    Args:
        frame_size: height and width of a frame; by default those that the tower was made for.
    """
    height, width = frame_size or frame_size_of(tower.config)
    weights = {name: tensor.to("meta") for name, tensor in chain(tower.named_parameters(), tower.named_buffers())}
    training = tower.training
    tower.eval()
    with torch.device("meta"):
        frames = torch.empty(1, 3, height, width, dtype=tower.dtype)
        settings = {"output_hidden_states": True, "return_dict": True}
        states = functional_call(tower, weights, (frames,), settings).hidden_states
    tower.train(training)
    selected = [states[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
    maps = [as_map(state, (height, width), tower.config) for state in selected]
    return sum(layer.shape[1] for layer in maps), maps[-1].shape[2], maps[-1].shape[3]


AutoModel.register(LmmVqaSpatialConfig, LmmVqaSpatialModel, exist_ok=True)

__all__ = ["LmmVqaSpatialModel"]
