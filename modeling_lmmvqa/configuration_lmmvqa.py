"""Configuration of the LMM-VQA network: two frozen towers, two projectors, a language model."""

from itertools import pairwise
from math import isqrt
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .frame_statistics import NUM_FRAME_STATISTICS
from .saved_folders import copy_code, copy_record, name_classes, without_paths

# Pooling grids (time, height, width) of the slow map for each token length of the paper's Table VIII.
TEMPORAL_GRIDS: dict[int, tuple[int, int, int]] = {
    1: (1, 1, 1),
    4: (1, 2, 2),
    16: (1, 4, 4),
    64: (4, 4, 4),
    256: (4, 8, 8),
}


@strict
class LmmVqaTemporalConfig(PreTrainedConfig):
    """The temporal tower: a SlowFast network without its head. The defaults are SlowFast 8x8 R50 (Kinetics-400).

    Args:
        num_frames: frames of a chunk that the fast pathway sees.
        slow_stride: the slow pathway sees every `slow_stride`-th of them (alpha of the SlowFast paper).
        image_size: height and width of a frame in pixels.
        depth: depth of the residual network, as pytorchvideo counts it (18, 50, 101 or 152).
        slow_channels: channels after the slow stem; the slow map has 32 times as many.
        fast_channels: channels after the fast stem; the fast map has 32 times as many.

    Raises:
        ValueError: a value out of range; the message shows it and what is allowed.
    """

    model_type = "lmmvqa_temporal"
    base_config_key = "temporal_config"

    num_frames: int = 32
    slow_stride: int = 4
    image_size: int = 224
    depth: int = 50
    slow_channels: int = 64
    fast_channels: int = 8

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.slow_stride < 1 or self.num_frames % self.slow_stride:
            raise ValueError(
                f"slow_stride={self.slow_stride} does not divide num_frames={self.num_frames}: choose a divisor of it."
            )
        if self.depth not in (18, 50, 101, 152):
            raise ValueError(f"depth={self.depth} is not a SlowFast depth: choose 18, 50, 101 or 152.")
        if self.slow_channels < 1 or self.fast_channels < 1 or self.slow_channels % self.fast_channels:
            raise ValueError(
                f"fast_channels={self.fast_channels} must divide slow_channels={self.slow_channels}; "
                "the published network has 8 and 64."
            )
        if self.image_size < 32:
            raise ValueError(f"image_size={self.image_size} is too small: the tower shrinks a frame 32 times.")

    @property
    def feature_size(self) -> int:
        """Channels of a temporal token: the slow map's and the fast map's together (2048 + 256 in the paper)."""
        return 32 * (self.slow_channels + self.fast_channels)


@strict
class LmmVqaConfig(PreTrainedConfig):
    """LMM-VQA (Ge et al.). The defaults are the paper's: CLIP ViT-L/14, SlowFast R50, Llama-3-8B-Instruct.

    Args:
        vision_config: the spatial tower, any model that `AutoModel` loads.
        temporal_config: the temporal tower; not built where `num_temporal_tokens` is 0.
        text_config: the decoder, any model that `AutoModelForCausalLM` loads.
        video_token_id: the placeholder that visual tokens replace.
        vision_feature_layer: which hidden state of the spatial tower to take; several are joined along their channels.
        vision_feature_size: channels of that feature; needed where the tower has no single `hidden_size`
            (`lmmvqa compose` measures it).
        spatial_projector_type: "vit" (one ViT layer and one linear layer, the paper), "mlp" or "perceiver" (ablations).
        num_spatial_tokens: spatial tokens of a key frame, a square number; fewer than the tower gives are pooled.
        spatial_pooling: what a pooled token keeps of its part of the frame: the "mean" of each channel, or the
            "mean_and_deviation", which doubles the channels. An artefact that fills a tenth of a patch hardly moves a
            mean.
        frame_statistics: whether each spatial feature also carries quantiles of its key frame's brightness, and how its
            detail falls from scale to scale (`frame_statistics`); meant for a processor that leaves key frames between
            0 and 1.
        num_temporal_tokens: temporal tokens of a chunk: 0 (the ablation), 1, 4, 16, 64 or 256 (Table VIII).
        frame_fusion: "concat" keeps the tokens of every second (eq. 8); "mean" averages the features over time first.
        joint_streams: whether each projector also sees the other stream, averaged over its tokens: how much a stutter
            shows depends on the picture, and how much a blur shows on the motion. In the paper each sees its own;
            without temporal tokens there is no other.
        feature_limit: at how many deviations from their mean standardised features are cut; None does not cut them. A
            channel behind a rectifier has a long tail, and a video far out in one would be judged by it alone.
        projector_hidden_size: width inside the projectors; by default the tower's (vit, perceiver) or the decoder's
            (mlp).
        projector_num_heads: attention heads of the "vit" and "perceiver" projectors.
        projector_dropout: dropout on the features that enter a projector and inside an MLP.
        levels: the level words, worst first.
        score_calibration: pairs (expected answer, score), both rising: the expectation of an uncertain answer shrinks
            towards the middle of the scale, and this piecewise linear map undoes it. None leaves it as it is.
        interval_scale: by how much the 90 % interval and the standard deviation are wider than those of the answer's
            distribution.
        level_temperature: what the log-probabilities of the levels are divided by, so that they are as sure as they are
            right.

    Raises:
        ValueError: a value out of range; the message shows it and what is allowed.
    """

    model_type = "lmmvqa"
    sub_configs_defaults = {  # noqa: RUF012 - the library's own class attribute
        "vision_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="clip_vision_model",
            init_kwargs={
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "patch_size": 14,
                "image_size": 224,
                "projection_dim": 768,
            },
        ),
        "temporal_config": LmmVqaTemporalConfig,
        "text_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="llama",
            init_kwargs={
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "vocab_size": 128256,
                "max_position_embeddings": 8192,
                "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
                "bos_token_id": 128000,
                "eos_token_id": 128009,
            },
        ),
    }

    vision_config: dict | PreTrainedConfig | None = None
    temporal_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    # Llama 3 keeps reserved special tokens; its first one serves as the placeholder, so its vocabulary stays as it is.
    video_token_id: int = 128002
    vision_feature_layer: int | list[int] = -2
    vision_feature_size: int | None = None
    spatial_projector_type: Literal["vit", "mlp", "perceiver"] = "vit"
    num_spatial_tokens: int = 256
    spatial_pooling: Literal["mean", "mean_and_deviation"] = "mean"
    frame_statistics: bool = False
    num_temporal_tokens: int = 256
    frame_fusion: Literal["concat", "mean"] = "concat"
    joint_streams: bool = False
    feature_limit: float | None = None
    projector_hidden_size: int | None = None
    projector_num_heads: int = 16
    projector_dropout: float = 0.0
    levels: list[str] | tuple[str, ...] = ("poor", "fair", "good")
    score_calibration: list[list[float]] | None = None
    interval_scale: float = 1.0
    level_temperature: float = 1.0
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        # Decoders that tie their embeddings say so in their own config; the head is ours, so we must say it too.
        self.tie_word_embeddings = self.tie_word_embeddings or getattr(self.text_config, "tie_word_embeddings", False)
        self.levels = list(self.levels)
        if self.num_temporal_tokens not in (0, *TEMPORAL_GRIDS):
            raise ValueError(
                f"num_temporal_tokens={self.num_temporal_tokens} is not possible: choose 0 or one of "
                f"{', '.join(map(str, TEMPORAL_GRIDS))}."
            )
        if self.num_spatial_tokens < 1 or isqrt(self.num_spatial_tokens) ** 2 != self.num_spatial_tokens:
            raise ValueError(
                f"num_spatial_tokens={self.num_spatial_tokens} is not a square number of at least 1, for example 1, 4, 64 or 256."
            )
        if not 0 <= self.projector_dropout < 1:
            raise ValueError(f"projector_dropout={self.projector_dropout} must be at least 0 and below 1.")
        if len(self.levels) < 2 or len(set(self.levels)) != len(self.levels) or not all(self.levels):
            raise ValueError(f"levels={self.levels} must be at least two different words, worst first.")
        if self.score_calibration is not None:
            rising = all(
                before < after
                for column in zip(*self.score_calibration, strict=True)
                for before, after in pairwise(column)
            )
            if len(self.score_calibration) < 2 or not rising:
                raise ValueError(
                    f"score_calibration={self.score_calibration} must be at least two pairs of rising numbers."
                )
        for name in ("feature_limit", "interval_scale", "level_temperature"):
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0.")
        if self.spatial_projector_type == "perceiver" and self.spatial_pooling != "mean":
            raise ValueError(
                "A perceiver reads every place of the tower's map, so nothing is pooled: leave spatial_pooling at 'mean'."
            )
        if self.spatial_projector_type != "mlp" and self.spatial_hidden_size % self.projector_num_heads:
            raise ValueError(
                f"projector_num_heads={self.projector_num_heads} does not divide the width {self.spatial_hidden_size} of "
                f"the {self.spatial_projector_type!r} projector: choose a divisor."
            )

    def save_pretrained(self, save_directory: str | PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """The library's, and beside it all that a stranger needs: our code, and what the checkpoint learned from. Every
        way of saving a model comes through here."""
        name_classes(self)
        copy_code(Path(save_directory))
        copy_record(self.name_or_path, Path(save_directory))
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved: without the paths that its parts were loaded from."""
        return without_paths(super().to_diff_dict())

    @property
    def spatial_feature_size(self) -> int:
        """Channels of a spatial feature before its projector."""
        channels = self.vision_feature_size
        if channels is None:
            channels = getattr(self.vision_config, "hidden_size", None)
            if channels is None:
                raise ValueError(
                    f"vision_feature_size is not set and a tower of type {self.vision_config.model_type!r} does not tell it: set it "
                    "to the number of channels of the selected hidden states."
                )
            channels *= len(self.vision_feature_layer) if isinstance(self.vision_feature_layer, list | tuple) else 1
        channels *= 2 if self.spatial_pooling == "mean_and_deviation" else 1
        return channels + self.num_frame_statistics

    @property
    def num_frame_statistics(self) -> int:
        """How many of the channels of a spatial feature, the last ones, are statistics of its key frame."""
        return NUM_FRAME_STATISTICS if self.frame_statistics else 0

    @property
    def joint_feature_size(self) -> int | None:
        """Channels of what each projector sees where two streams are joined: temporal ones, then spatial ones."""
        if not (self.joint_streams and self.num_temporal_tokens):
            return None
        return self.temporal_config.feature_size + self.spatial_feature_size

    @property
    def spatial_hidden_size(self) -> int:
        """Width inside the spatial projector."""
        if self.projector_hidden_size is not None:
            return self.projector_hidden_size
        return self.text_config.hidden_size if self.spatial_projector_type == "mlp" else self.spatial_feature_size

    @property
    def tokens_per_chunk(self) -> int:
        """Visual tokens for one second of video (for the whole video where `frame_fusion` is "mean")."""
        return self.num_spatial_tokens + self.num_temporal_tokens


__all__ = ["LmmVqaConfig", "LmmVqaTemporalConfig"]
