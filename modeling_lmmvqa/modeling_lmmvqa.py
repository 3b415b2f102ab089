"""LMM-VQA (Ge et al., "LMM-VQA: Advancing Video Quality Assessment with Large Multimodal Models").

The path of a batch: `vision_tower`, `temporal_tower` -> pooled features -> `spatial_projector`, `temporal_projector` ->
visual tokens in the place of the placeholders -> `language_model` -> `lm_head` -> answer, or the read-out of `assess`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from math import isqrt
from typing import Any, Literal, TypeVar, cast

import torch
from torch import nn
from transformers import AutoModel, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MultimodalBaseModelOutputWithPast,
    MultimodalCausalLMOutputWithPast,
)
from transformers.modeling_utils import slice_logits_to_keep
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from .answer_tries import AnswerTrie, Branches, lay_out_answers
from .answers import NumberAnswer, QualityOutput, UndefinedScore, WordAnswer, read_answers
from .configuration_lmmvqa import TEMPORAL_GRIDS, LmmVqaConfig
from .projectors import SPATIAL_PROJECTORS, FeatureStandardizer, MlpProjector, PerceiverProjector, Projector
from .quality_read_out import AskedQuestion, calibrated_number, lay_out_batch, read_number, read_words
from .saved_folders import refuse_local_base
from .spatial_tower import as_map, make_spatial_tower, map_shape, pool, pool_in_time
from .temporal_tower import LmmVqaTemporalModel


@dataclass(frozen=True)
class TemplateCache:
    """What the language model makes of the text in front of every video: see `cache_template`.

    Args:
        token_ids: (length,), the tokens of that text.
        layers: keys and values of each layer, (1, heads, length, channels).
    """

    token_ids: torch.Tensor
    layers: list[tuple[torch.Tensor, torch.Tensor]]


class LmmVqaPreTrainedModel(PreTrainedModel):
    config: LmmVqaConfig
    base_model_prefix = "model"
    input_modalities = ["video", "text"]  # noqa: RUF012
    supports_gradient_checkpointing = True
    _no_split_modules = ["VitProjector", "MlpProjector", "PerceiverProjector"]  # noqa: RUF012
    # Half precision can't hold the scale of a silent channel.
    _keep_in_fp32_modules_strict = ["standardizer"]  # noqa: RUF012
    # Only the decoder is worth quantising; the library reads here what a quantiser must leave alone, and matches it
    # from the start of a name.
    _keep_in_fp32_modules = [".*vision_tower", ".*temporal_tower", ".*spatial_projector", ".*temporal_projector"]  # noqa: RUF012
    _supports_flash_attn = _supports_sdpa = _supports_flex_attn = True
    _supports_attention_backend = True

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("push_to_hub"):
            refuse_local_base(self)
        super().save_pretrained(*args, **kwargs)

    # The library's is decorated, so no signature is like it.
    def push_to_hub(self, *args: Any, **kwargs: Any) -> str:  # type: ignore[override]
        refuse_local_base(self)
        return super().push_to_hub(*args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, FeatureStandardizer):
            init.zeros_(module.mean)
            init.ones_(module.scale)
            init.constant_(module.limit, torch.inf)
        elif isinstance(module, PerceiverProjector):
            init.normal_(module.queries, std=0.02)


class LmmVqaModel(LmmVqaPreTrainedModel):
    """Towers, projectors and language model, without the language-modelling head."""

    def __init__(self, config: LmmVqaConfig):
        super().__init__(config)
        self.vision_tower = make_spatial_tower(config.vision_config)
        self.spatial_feature_size = map_shape(self.vision_tower, config.vision_feature_layer)[0]
        text_size, temporal_size = config.text_config.hidden_size, config.temporal_config.feature_size
        joint_size = temporal_size + self.spatial_feature_size
        spatial_size = joint_size if config.is_joint else self.spatial_feature_size
        width = text_size if config.spatial_projector_type == "mlp" else self.spatial_feature_size
        self.spatial_projector: Projector = SPATIAL_PROJECTORS[config.spatial_projector_type](
            config, spatial_size, config.projector_hidden_size or width
        )
        if config.num_temporal_tokens:
            self.temporal_tower = LmmVqaTemporalModel(config.temporal_config)
            self.temporal_projector: Projector = MlpProjector(
                config, joint_size if config.is_joint else temporal_size, config.projector_hidden_size or text_size
            )
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def train(self, mode: bool = True) -> "LmmVqaModel":
        """Frozen towers stay in eval mode: their batch-norm statistics would drift with every training batch."""
        super().train(mode)
        for name in ("vision_tower", "temporal_tower"):
            tower = getattr(self, name, None)
            if tower is not None and not any(parameter.requires_grad for parameter in tower.parameters()):
                tower.eval()
        return self

    def encode_key_frames(self, key_frames: torch.Tensor) -> torch.Tensor:
        """Spatial features of key frames, from the frozen tower, pooled to the number of tokens asked for.

        Args:
            key_frames: (frames, 3, height, width), normalised.

        Returns:
            (frames, tokens, channels): `num_spatial_tokens` tokens, or every place of the tower's map for a Perceiver.
        """
        # Convolutions on a processor are an eighth faster with colours innermost (benchmarks/towers.py).
        frames = key_frames.to(self.vision_tower.dtype, memory_format=torch.channels_last)
        states = self.vision_tower(frames, output_hidden_states=True, return_dict=True).hidden_states
        return self.pool_states(states, frames.shape[-2:])

    def pool_states(self, states: Sequence[torch.Tensor], frame_size: Sequence[int]) -> torch.Tensor:
        """Spatial features (frames, tokens, channels) from the hidden states of the tower for frames of this height and
        width."""
        layers = self.config.vision_feature_layer
        maps = [
            as_map(states[layer], frame_size, self.config.vision_config)
            for layer in ([layers] if isinstance(layers, int) else layers)
        ]
        if self.config.spatial_projector_type == "perceiver":
            height, width = maps[-1].shape[-2:]
        else:
            height = width = isqrt(self.config.num_spatial_tokens)
        return torch.cat([pool(layer, (height, width)) for layer in maps], dim=1).flatten(2).transpose(1, 2)

    def encode_chunks(self, chunks: torch.Tensor) -> torch.Tensor:
        """Temporal features of chunks, from the frozen tower: slow and fast map pooled to one grid and joined.

        Args:
            chunks: (chunks, num_frames, 3, height, width), normalised.

        Returns:
            (chunks, num_temporal_tokens, 32 * (slow_channels + fast_channels))
        """
        grid = TEMPORAL_GRIDS[self.config.num_temporal_tokens]
        maps = self.temporal_tower(chunks.to(self.temporal_tower.dtype))
        pooled = torch.cat([pool_in_time(feature_map, grid) for feature_map in maps], dim=1)
        return pooled.flatten(2).transpose(1, 2)

    def encode_videos(
        self,
        pixel_values_videos: torch.Tensor,
        temporal_values: torch.Tensor | None = None,
        chunk_counts: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features of whole videos from the frozen towers: what a cache may keep, since training never changes it.

        Args:
            pixel_values_videos: (videos, chunks, 3, height, width), a key frame for each chunk.
            temporal_values: (videos, chunks, num_frames, 3, height, width), if the model has a temporal tower.
            chunk_counts: (videos,), how many of the chunks are not padding; all by default.

        Returns:
            Spatial features (videos, chunks, tokens, channels) and temporal features (videos, chunks, tokens, channels)
            or None; zeros for padding.

        Raises:
            ValueError: `temporal_values` is missing.
        """
        present = self._present_chunks(pixel_values_videos, chunk_counts)
        spatial = _scatter(self.encode_key_frames(pixel_values_videos[present]), present)
        if not self.config.num_temporal_tokens:
            return spatial, None
        if temporal_values is None:
            raise ValueError(
                "This model has temporal tokens and needs `temporal_values`: use the processor that is saved with it."
            )
        # Chunk by chunk: a chunk is a batch of frames already, and the maps of many would fill the memory.
        chunks = [self.encode_chunks(chunk[None]) for chunk in temporal_values[present]]
        return spatial, _scatter(torch.cat(chunks), present)

    def project_features(
        self,
        spatial_features: torch.Tensor,
        temporal_features: torch.Tensor | None = None,
        chunk_counts: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Visual tokens of each video, in the order of the placeholders (eq. 8): for each second its spatial tokens,
        then its temporal tokens.

        Args:
            spatial_features, temporal_features: as `encode_videos` returns them.
            chunk_counts: (videos,), how many of the chunks are not padding; all by default.

        Returns:
            One tensor (tokens, hidden size of the language model) a video.
        """
        inputs = self.projector_inputs(spatial_features, temporal_features, chunk_counts)
        rows = torch.cat([getattr(self, name)(features) for name, features in inputs.items()], dim=1)
        if self.config.frame_fusion != "concat":
            return list(rows)
        present = self._present_chunks(spatial_features, chunk_counts)
        return [video.flatten(0, 1) for video in rows.split(present.sum(1).tolist())]

    def projector_inputs(
        self,
        spatial_features: torch.Tensor,
        temporal_features: torch.Tensor | None = None,
        chunk_counts: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """What each projector sees, by its name; arguments as in `project_features`.

        Returns:
            "spatial_projector" and, if the model has a temporal tower, "temporal_projector": (chunks of all videos, or
            videos where `frame_fusion` is not "concat"; tokens; channels).
        """
        present = self._present_chunks(spatial_features, chunk_counts)
        streams = {"spatial_projector": spatial_features}
        if self.config.num_temporal_tokens:
            if temporal_features is None:
                raise ValueError(
                    "This model has temporal tokens and needs `temporal_features` beside the spatial ones."
                )
            streams["temporal_projector"] = temporal_features
        if self.config.frame_fusion == "concat":
            streams = {name: stream[present] for name, stream in streams.items()}
        else:
            weights = present / present.sum(1, keepdim=True)
            streams = {
                name: torch.einsum("vc,vc...->v...", weights.to(stream.dtype), stream)
                for name, stream in streams.items()
            }
        if self.config.is_joint:
            spatial, temporal = streams.values()
            # Statistics of the frame stay the last channels.
            streams = {
                "spatial_projector": torch.cat(
                    [temporal.mean(1, keepdim=True).expand(-1, spatial.shape[1], -1), spatial], dim=2
                ),
                "temporal_projector": torch.cat(
                    [temporal, spatial.mean(1, keepdim=True).expand(-1, temporal.shape[1], -1)], dim=2
                ),
            }
        return streams

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        temporal_values: torch.Tensor | None = None,
        chunk_counts: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        """Both streams of a batch of videos as visual tokens. Shapes are those of `encode_videos`.

        Returns:
            An output whose `pooler_output` is a list with one tensor (tokens, hidden size) a video.
        """
        spatial, temporal = self.encode_videos(pixel_values_videos, temporal_values, chunk_counts)
        tokens = self.project_features(spatial, temporal, chunk_counts)
        return _encoded(tokens)

    @can_return_tuple
    # The library's keywords hold position_ids, too.
    def forward(  # type: ignore[misc]
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        temporal_values: torch.Tensor | None = None,
        chunk_counts: torch.Tensor | None = None,
        spatial_features: torch.Tensor | None = None,
        temporal_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MultimodalBaseModelOutputWithPast:
        """One pass of the language model over text in which visual tokens take the place of the placeholders.

        Args:
            input_ids: (batch, length); every placeholder stands for one visual token.
            pixel_values_videos, temporal_values, chunk_counts: the videos, as `encode_videos` takes them.
            spatial_features, temporal_features: in their stead, what `encode_videos` returned for them.
            mm_encoder_outputs: in their stead, {"video": what `get_video_features` returned for them}.

        Returns:
            The language model's output; `video_outputs.pooler_output` has one tensor (tokens, hidden size) a video.

        Raises:
            ValueError: not exactly one of `input_ids` and `inputs_embeds`, more than one form of the videos, or another
                number of visual tokens than of placeholders.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)

        encoded = (mm_encoder_outputs or {}).get("video")
        if sum(form is not None for form in (pixel_values_videos, spatial_features, encoded)) > 1:
            raise ValueError(
                "Give the videos in one form: pixel_values_videos, or spatial_features, or mm_encoder_outputs."
            )
        if spatial_features is not None:
            tokens = self.project_features(spatial_features, temporal_features, chunk_counts)
            encoded = _encoded(tokens)
        elif pixel_values_videos is not None:
            encoded = self.get_video_features(pixel_values_videos, temporal_values, chunk_counts)
        if encoded is not None:
            inputs_embeds = self._place_tokens(input_ids, inputs_embeds, torch.cat(list(encoded.pooler_output or [])))

        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        return MultimodalBaseModelOutputWithPast(**outputs, video_outputs=encoded)

    def _place_tokens(
        self, input_ids: torch.LongTensor | None, inputs_embeds: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        if input_ids is None:
            placeholder = self.get_input_embeddings()(
                torch.tensor(self.config.video_token_id, device=inputs_embeds.device)
            )
            mask = (inputs_embeds == placeholder).all(-1)
        else:
            mask = input_ids == self.config.video_token_id
        if mask.sum() != len(tokens):
            raise ValueError(
                f"The text has {mask.sum()} placeholders, but the videos give {len(tokens)} visual tokens: make both "
                "with the processor that is saved with this model, and do not truncate the text."
            )
        mask = mask.unsqueeze(-1).to(inputs_embeds.device)
        return inputs_embeds.masked_scatter(mask, tokens.to(inputs_embeds.device, inputs_embeds.dtype))

    @staticmethod
    def _present_chunks(videos: torch.Tensor, chunk_counts: torch.Tensor | None) -> torch.Tensor:
        """(videos, chunks) bool: which chunks are not padding."""
        num_videos, num_chunks = videos.shape[:2]
        if chunk_counts is None:
            return torch.ones(num_videos, num_chunks, dtype=torch.bool, device=videos.device)
        return torch.arange(num_chunks, device=videos.device) < chunk_counts.to(videos.device)[:, None]


Result = TypeVar("Result")


def _in_eval_mode(method: Callable[..., Result]) -> Callable[..., Result]:
    """Dropout has no place in a score: a model that is being trained leaves that mode for the call."""

    @wraps(method)
    def wrapper(self: nn.Module, *args: Any, **kwargs: Any) -> Result:
        training = self.training
        if training:
            self.eval()
        try:
            return method(self, *args, **kwargs)
        finally:
            if training:
                self.train()

    return wrapper


class LmmVqaForConditionalGeneration(LmmVqaPreTrainedModel, GenerationMixin):
    """LMM-VQA with its language-modelling head: `forward` for training, `generate` for text, `assess` for quality."""

    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012

    def __init__(self, config: LmmVqaConfig):
        super().__init__(config)
        self.model = LmmVqaModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        # Decoders name their embeddings differently (`embed_tokens`, `wte`, ...).
        embeddings = next(name for name, module in self.named_modules() if module is self.get_input_embeddings())
        self._tied_weights_keys = {"lm_head.weight": f"{embeddings}.weight"}
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor,
        temporal_values: torch.Tensor | None = None,
        chunk_counts: torch.Tensor | None = None,
    ) -> BaseModelOutputWithPooling:
        """As `LmmVqaModel.get_video_features`."""
        return self.model.get_video_features(pixel_values_videos, temporal_values, chunk_counts)

    @can_return_tuple
    # The library's keywords hold position_ids, too.
    def forward(  # type: ignore[misc]
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        temporal_values: torch.Tensor | None = None,
        chunk_counts: torch.Tensor | None = None,
        spatial_features: torch.Tensor | None = None,
        temporal_features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> MultimodalCausalLMOutputWithPast:
        """Logits, and the loss where labels are given. Arguments beyond these are those of `LmmVqaModel.forward`.

        Args:
            labels: (batch, length), or (batch, `logits_to_keep`) for the last positions; -100 is left out of the loss.
            logits_to_keep: how many last positions get logits, or which; 0 for all. Answers are short and vocabularies
                large, so training asks for the answer's positions only.
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values_videos=pixel_values_videos,
            temporal_values=temporal_values,
            chunk_counts=chunk_counts,
            spatial_features=spatial_features,
            temporal_features=temporal_features,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            mm_encoder_outputs=mm_encoder_outputs,
            # The loss alone needs it; a decoder may not know the word.
            **{key: value for key, value in kwargs.items() if key != "num_items_in_batch"},
        )
        logits = self.lm_head(slice_logits_to_keep(outputs.last_hidden_state, logits_to_keep))
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return MultimodalCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_outputs=outputs.video_outputs,
        )

    @torch.no_grad()
    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, with the videos in any form that `forward` takes."""
        if kwargs.get("spatial_features") is not None and kwargs.get("pixel_values_videos") is None:
            # The library counts `chunk_counts` among what only frames need, and would drop it.
            names = ("spatial_features", "temporal_features", "chunk_counts")
            features = {name: kwargs.pop(name) for name in names if name in kwargs}
            kwargs["mm_encoder_outputs"] = {"video": _encoded(self.model.project_features(**features))}
        return super().generate(*args, **kwargs)

    @torch.no_grad()
    @_in_eval_mode
    def assess(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor,
        questions: Sequence[AskedQuestion],
        *,
        mode: Literal["distribution", "generate"] = "distribution",
        processor: Any = None,
        template_cache: TemplateCache | None = None,
        **video_inputs: torch.Tensor,
    ) -> QualityOutput:
        """The answers to questions about each video: `model.assess(**processor(videos=[...], return_tensors="pt"))`.

        Args:
            input_ids, attention_mask: (videos, length), the prefix up to the last visual token, padded on the left.
            questions: in tokens, from `processor.ask()`. The video is read once for all of them.
            mode: "distribution" reads the probability of every allowed answer, in one pass over the video and all
                questions. "generate" is the paper's way: greedy text, parsed strictly; an answer that is none is an
                error of its own video.
            processor: needed by mode "generate", to turn tokens into text and parse it.
            template_cache: from `cache_template`, to spare mode "distribution" the text that every prefix begins with.
            video_inputs: the videos or their features, as `forward` takes them.

        Returns:
            `QualityOutput` with the answers to `questions`. Both modes are calibrated as the model's config says.

        Raises:
            ValueError: the inputs don't fit the model or the cached template, or its attention can't be masked (flash
                attention, a window that is shorter than the text).
            AnswerError: in mode "generate", an answer that doesn't parse.
        """
        for question in questions:
            if question.name == "level" and list(question.answers) != self.config.levels:
                raise ValueError(
                    f"The processor knows the levels {list(question.answers)}, the model {self.config.levels}: use the "
                    "processor that is saved with this model."
                )
        if "spatial_features" not in video_inputs:
            encoded = self.model.get_video_features(**video_inputs)
        else:
            encoded = _encoded(self.model.project_features(**video_inputs))
        prefix = {"input_ids": input_ids, "attention_mask": attention_mask, "mm_encoder_outputs": {"video": encoded}}
        if mode == "generate":
            return self._generate_quality(prefix, questions, processor)
        if mode != "distribution":
            raise ValueError(f"mode={mode!r} is not a read-out: choose 'distribution' or 'generate'.")
        tries, branches = lay_out_answers(
            tuple(question.token_ids for question in questions), tuple(question.answer_ids for question in questions)
        )
        read = self._answer_log_probabilities(prefix, tries, branches, template_cache)
        if not all(answers.isfinite().all() for answers in read):
            raise UndefinedScore(
                f"The model's answers are not finite in {self.lm_head.weight.dtype}: load it with dtype='float32' or "
                "'bfloat16'."
            )
        return read_answers(questions, read, self.config.calibration, read_number, read_words)

    @torch.no_grad()
    @_in_eval_mode
    def cache_template(self, input_ids: torch.LongTensor) -> TemplateCache:
        """Read the text in front of the video once, for all calls of `assess` with the same template and weights.

        Args:
            input_ids: (length,), a prefix as `assess` takes it, without padding; what comes before its first visual
                token counts.
        """
        placeholders = (input_ids == self.config.video_token_id).nonzero()
        template = input_ids[: int(placeholders[0])] if len(placeholders) else input_ids
        cache = DynamicCache()
        self.model(input_ids=template[None].to(self.device), cache=cache, use_cache=True)
        layers: list[Any] = cache.layers
        return TemplateCache(template, [(layer.keys, layer.values) for layer in layers])

    def _answer_log_probabilities(
        self,
        prefix: dict[str, Any],
        tries: Sequence[AnswerTrie],
        branches: Branches,
        template: TemplateCache | None,
    ) -> list[torch.Tensor]:
        """One pass over prefix and branches; (videos, answers) for each trie."""
        input_ids, attention_mask = prefix["input_ids"], prefix["attention_mask"]
        self._check_maskable(input_ids.shape[1] + len(branches.token_ids))
        cache, cached = None, 0
        if template is not None:
            cached = len(template.token_ids)
            in_template = attention_mask.bool() & (attention_mask.cumsum(1) <= cached)
            if not torch.equal(input_ids[in_template], template.token_ids.to(input_ids.device).repeat(len(input_ids))):
                raise ValueError(
                    "The prefix does not begin with the cached template: make the cache with the same processor."
                )
            cache = DynamicCache(
                [tuple(part.expand(len(input_ids), -1, -1, -1) for part in layer) for layer in template.layers]
            )
        states = self.model(
            **lay_out_batch(input_ids, attention_mask, branches, dtype=self.lm_head.weight.dtype, cached=cached),
            mm_encoder_outputs=prefix["mm_encoder_outputs"],
            cache=cache,
            use_cache=cache is not None,
        ).last_hidden_state[:, -len(branches.token_ids) :]
        return [
            trie.log_probabilities(self.lm_head(states[:, nodes]))
            for trie, nodes in zip(tries, branches.nodes, strict=True)
        ]

    def _check_maskable(self, length: int) -> None:
        """Raise a ValueError if the decoder's attention can't take the mask of the read-out."""
        text_config = self.config.text_config
        if text_config._attn_implementation not in ("sdpa", "eager"):
            raise ValueError(
                f"The read-out masks branches, which attn_implementation={text_config._attn_implementation!r} can't "
                "do: load the model with attn_implementation={'text_config': 'sdpa'}, or use mode='generate'."
            )
        window = getattr(text_config, "sliding_window", None)
        if window is not None and length > window:
            raise ValueError(
                f"The decoder attends to the last {window} tokens only and the read-out has {length}: use fewer chunks "
                "(max_chunks) or fewer visual tokens, or mode='generate'."
            )

    def _generate_quality(
        self, prefix: dict[str, Any], questions: Sequence[AskedQuestion], processor: Any
    ) -> QualityOutput:
        if processor is None:
            raise ValueError(
                "mode='generate' needs the processor to parse the answers: assess(..., processor=processor)."
            )
        said: dict[str, list[Any]] = {}
        errors: list[str | None] = [None] * len(prefix["input_ids"])
        for question in questions:
            suffix = torch.tensor(question.token_ids, device=prefix["input_ids"].device)
            suffix = suffix.expand(len(prefix["input_ids"]), -1)
            input_ids = torch.cat([prefix["input_ids"], suffix], dim=1)
            generated = self.generate(
                input_ids=input_ids,
                attention_mask=torch.cat([prefix["attention_mask"], torch.ones_like(suffix)], dim=1),
                # generate() takes the encoded videos out of the dictionary that it is given.
                mm_encoder_outputs=dict(prefix["mm_encoder_outputs"]),
                do_sample=False,
                max_new_tokens=max(8, *map(len, question.answer_ids)),
            )
            texts = processor.batch_decode(generated[:, input_ids.shape[1] :], skip_special_tokens=True)
            said[question.name] = []
            for video, text in enumerate(texts):
                try:
                    said[question.name].append(processor.question(question.name).parse(text))
                # The processor's AnswerError; a processor that came with a checkpoint has a class of its own.
                except ValueError as fault:
                    said[question.name].append(None)
                    errors[video] = errors[video] or str(fault)
        answers: dict[str, NumberAnswer | WordAnswer] = {}
        for question in questions:
            # Of a video with an error nothing counts.
            values = [None if error else value for value, error in zip(said[question.name], errors, strict=True)]
            if question.kind == "number":
                numbers = torch.tensor([torch.nan if value is None else value for value in values], device=self.device)
                answer_map = self.config.calibration_of(question.name).get("answer_map")
                answers[question.name] = NumberAnswer(calibrated_number(numbers, answer_map).float())
            else:
                answers[question.name] = WordAnswer(question.answers, values)
        return QualityOutput(answers, errors)


def _encoded(tokens: list[torch.Tensor]) -> BaseModelOutputWithPooling:
    """The library's models, too, put a list there where videos differ in length."""
    return BaseModelOutputWithPooling(pooler_output=cast(Any, tokens))


def _scatter(rows: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Put one row a present chunk back into its place, zeros elsewhere."""
    padded = rows.new_zeros(*present.shape, *rows.shape[1:])
    padded[present] = rows
    return padded


__all__ = [
    "LmmVqaForConditionalGeneration",
    "LmmVqaModel",
    "LmmVqaPreTrainedModel",
]
