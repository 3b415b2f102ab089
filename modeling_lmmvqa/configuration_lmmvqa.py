"""Configuration of the LMM-VQA network: two frozen towers, two projectors, a language model."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import isqrt
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .answers import calibration_by_question
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
        fusion_kernel_size: frames of the fast pathway that each connection to the slow one sees; 7 in the published
            R50, 5 in R101.

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
    fusion_kernel_size: int = 7

    def __post_init__(self, **kwargs: Any):
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


@dataclass(frozen=True)
class View:
    """How one backbone of `LmmVqaSpatialConfig` sees a frame, and what is taken from it.

    Args:
        backbone: the config of any vision model that `AutoModel` loads.
        layers: which of its hidden states are taken.
        side: the frame is resized, its shape kept, to about as many pixels as a square of this side has, in whole
            patches of the backbone; None leaves it as it is.
        tile_size: the backbone sees square tiles of this side, one for each place of the grid, cut from the frame;
            None shows it the whole frame.
        mean, std: of each colour; what the backbone sees is (colour - mean) / std.
        class_token: whether each token also carries the first token of the selected hidden states.
    """

    backbone: dict[str, Any]
    layers: Sequence[int]
    side: int | None = None
    tile_size: int | None = None
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    class_token: bool = False


@strict
class LmmVqaSpatialConfig(PreTrainedConfig):
    """A spatial tower of backbones that each see the frame in a way of their own, and of frame statistics.

    The paper's tower is a single model that `AutoModel` loads; this one is for seeing small faults, of which means over
    a patch tell little. It takes frames between 0 and 1 and gives `grid` x `grid` tokens.

    Args:
        views: each a mapping with the fields of `View`.
        grid: tokens along each side of the frame.
        frame_statistics: whether each token also carries, as its last channels, quantiles of the whole frame's
            brightness, and how its detail falls from scale to scale (`frame_statistics`).

    Raises:
        ValueError: a value out of range; the message shows it and what is allowed.
    """

    model_type = "lmmvqa_spatial"

    views: list[dict] | tuple[dict, ...] = ()
    grid: int = 2
    frame_statistics: bool = True

    def __post_init__(self, **kwargs: Any):
        super().__post_init__(**kwargs)
        if self.grid < 1:
            raise ValueError(f"grid={self.grid} must be at least 1.")
        known = {field.name for field in fields(View)}
        for view in self.views:
            if unknown := sorted(set(view) - known):
                raise ValueError(f"A view has no field {', '.join(unknown)}: known are {', '.join(sorted(known))}.")
            if missing := sorted({"backbone", "layers"} - set(view)):
                raise ValueError(f"A view lacks {' and '.join(missing)}: name a backbone and its layers.")

    def parsed_views(self) -> list[View]:
        """The views, in the order of the backbones."""
        return [View(**view) for view in self.views]

    @property
    def num_frame_statistics(self) -> int:
        """How many of a token's channels, the last ones, are statistics of its frame."""
        return NUM_FRAME_STATISTICS if self.frame_statistics else 0


_CALIBRATES = ("answer_map", "interval_scale", "temperature")


@strict
class LmmVqaConfig(PreTrainedConfig):
    """LMM-VQA (Ge et al.). The defaults are the paper's: CLIP ViT-L/14, SlowFast R50, Llama-3-8B-Instruct.

    Args:
        vision_config: the spatial tower, any model that `AutoModel` loads.
        temporal_config: the temporal tower; not built where `num_temporal_tokens` is 0.
        text_config: the decoder, any model that `AutoModelForCausalLM` loads.
        video_token_id: the placeholder that visual tokens replace.
        vision_feature_layer: which hidden state of the spatial tower to take; several are joined along their channels.
        spatial_projector_type: "vit" (one ViT layer and one linear layer, the paper), "mlp" or "perceiver" (ablations).
        num_spatial_tokens: spatial tokens of a key frame, a square number; the tower's map is pooled to so many.
        num_temporal_tokens: temporal tokens of a chunk: 0 (the ablation), 1, 4, 16, 64 or 256 (Table VIII).
        frame_fusion: "concat" keeps the tokens of every second (eq. 8); "mean" averages the features over time first.
            "joint" averages them too, and each projector also sees the other stream, averaged over its tokens: how much
            a stutter shows depends on the picture, and how much a blur shows on the motion.
        projector_hidden_size: width inside the projectors; by default the tower's (vit, perceiver) or the decoder's
            (mlp).
        projector_num_heads: attention heads of the "vit" and "perceiver" projectors.
        levels: the level words, worst first.
        calibration: by the question's name, keywords of its read-out as `lmmvqa calibrate` finds them: `answer_map` and
            `interval_scale` of a number, `temperature` of words. None leaves answers as they are. Older checkpoints
            state `score_map`, `interval_scale` and `level_temperature`.

    Raises:
        ValueError: a value out of range; the message shows it and what is allowed.
    """

    model_type = "lmmvqa"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {
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

    # Mappings or None as they are given, configs afterwards.
    vision_config: Any = None
    temporal_config: Any = None
    text_config: Any = None
    # Llama 3 keeps reserved special tokens; its first one serves as the placeholder, so its vocabulary stays as it is.
    video_token_id: int = 128002
    vision_feature_layer: int | list[int] = -2
    spatial_projector_type: Literal["vit", "mlp", "perceiver"] = "vit"
    num_spatial_tokens: int = 256
    num_temporal_tokens: int = 256
    frame_fusion: Literal["concat", "mean", "joint"] = "concat"
    projector_hidden_size: int | None = None
    projector_num_heads: int = 16
    levels: list[str] | tuple[str, ...] = ("poor", "fair", "good")
    calibration: dict | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any):
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
                f"num_spatial_tokens={self.num_spatial_tokens} is not a square number of at least 1, for example 1, "
                "4, 64 or 256."
            )
        if len(self.levels) < 2 or len(set(self.levels)) != len(self.levels) or not all(self.levels):
            raise ValueError(f"levels={self.levels} must be at least two different words, worst first.")
        self._check_calibration()

    def _check_calibration(self) -> None:
        self.calibration = calibration_by_question(self.calibration)
        for question, entries in (self.calibration or {}).items():
            for name, value in entries.items():
                if name not in _CALIBRATES:
                    raise ValueError(
                        f"calibration of {question} has no entry {name!r}: known are {', '.join(_CALIBRATES)}."
                    )
                if name != "answer_map" and value <= 0:
                    raise ValueError(f"calibration of {question}: {name}={value} must be above 0.")
            pairs = entries.get("answer_map")
            if pairs is not None and (
                len(pairs) < 2
                or any(before >= after for column in zip(*pairs, strict=True) for before, after in pairwise(column))
            ):
                raise ValueError(
                    f"calibration of {question}: answer_map={pairs} must be at least two pairs of rising numbers."
                )

    def save_pretrained(self, save_directory: str | PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """The library's, and beside it all that a stranger needs: our code, and what the checkpoint learned from. Every
        way of saving a model comes through here."""
        name_classes(self)
        copy_code(Path(save_directory))
        copy_record(self.name_or_path or "", Path(save_directory))
        super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved: without the paths that its parts were loaded from."""
        return without_paths(super().to_diff_dict())

    def calibration_of(self, question: str) -> dict[str, Any]:
        """The keywords of a question's read-out."""
        return (self.calibration or {}).get(question, {})

    @property
    def num_frame_statistics(self) -> int:
        """How many of the channels of a spatial feature, the last ones, are statistics of its key frame."""
        return getattr(self.vision_config, "num_frame_statistics", 0)

    @property
    def is_joint(self) -> bool:
        """Whether each projector sees both streams; without temporal tokens there is no other."""
        return self.frame_fusion == "joint" and self.num_temporal_tokens > 0

    @property
    def tokens_per_chunk(self) -> int:
        """Visual tokens for one second of video (for the whole video where `frame_fusion` is not "concat")."""
        return self.num_spatial_tokens + self.num_temporal_tokens


# Here and not in the package alone, because code that travels with a checkpoint must know its tower, too.
AutoConfig.register("lmmvqa_spatial", LmmVqaSpatialConfig, exist_ok=True)

__all__ = ["LmmVqaConfig", "LmmVqaSpatialConfig", "LmmVqaTemporalConfig"]
