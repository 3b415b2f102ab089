"""The temporal tower: SlowFast (Feichtenhofer et al., 2019) without its classification head."""

import warnings

import torch
from transformers import PreTrainedModel

from .configuration_lmmvqa import LmmVqaTemporalConfig


class LmmVqaTemporalModel(PreTrainedModel):
    """Turns a chunk of frames into a slow map (few frames, many channels) and a fast map (all frames, few channels).

    The parameters are named as in the public checkpoints (`blocks.0` to `blocks.4`).
    """

    config: LmmVqaTemporalConfig
    main_input_name = "temporal_values"
    input_modalities = ["video"]  # noqa: RUF012
    # Nothing here attends, so every attention implementation that is asked of the whole model suits this part too.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True
    _supports_attention_backend = True
    # pytorchvideo hands lists from block to block, which device hooks do not follow.
    _no_split_modules = ["LmmVqaTemporalModel"]  # noqa: RUF012

    def __init__(self, config: LmmVqaTemporalConfig):
        super().__init__(config)
        # Imported here because the library looks for the top-level imports of remote code before a model is asked for.
        with warnings.catch_warnings():
            # It scripts a function that is of no use here, in a way that torch is about to drop.
            warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
            from pytorchvideo.models.slowfast import create_slowfast

        network = create_slowfast(
            model_depth=config.depth,
            slowfast_channel_reduction_ratio=(config.slow_channels // config.fast_channels,),
            slowfast_fusion_conv_kernel_size=(config.fusion_kernel_size, 1, 1),
            slowfast_fusion_conv_stride=(config.slow_stride, 1, 1),
            stem_dim_outs=(config.slow_channels, config.fast_channels),
        )
        # The last two blocks pool the maps and classify actions.
        self.blocks = network.blocks[:5]
        self.post_init()

    def forward(self, temporal_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            temporal_values: frames of shape (chunks, num_frames, 3, height, width), normalised.

        Returns:
            The slow map (chunks, 32 * slow_channels, num_frames / slow_stride, height / 32, width / 32) and the fast
            map (chunks, 32 * fast_channels, num_frames, height / 32, width / 32).
        """
        fast = temporal_values.transpose(1, 2)
        # linspace over the frames, both ends included, is how the public checkpoints were trained.
        num_slow = fast.shape[2] // self.config.slow_stride
        slow_index = torch.linspace(0, fast.shape[2] - 1, num_slow, device=fast.device).long()
        # A fresh list each time: the blocks write into the one that they are given.
        maps = [fast.index_select(2, slow_index), fast]
        for block in self.blocks:
            maps = block(maps)
        slow, fast = maps
        return slow, fast


__all__ = ["LmmVqaTemporalModel"]
