"""From pretrained parts to a checkpoint: load, convert, join, describe."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from math import ceil, isqrt
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from lmmvqa.checkpoints.parts import fetch_address
from modeling_lmmvqa import LmmVqaConfig, LmmVqaForConditionalGeneration, LmmVqaTemporalConfig, LmmVqaTemporalModel
from modeling_lmmvqa.configuration_lmmvqa import TEMPORAL_GRIDS
from modeling_lmmvqa.spatial_tower import frame_size_of, map_shape
from processing.errors import LmmVqaError
from processing.processing_lmmvqa import LmmVqaProcessor, video_chat_template
from processing.quality_prompts import TASKS, conversation, level_question
from processing.video_processing_lmmvqa import LmmVqaVideoProcessor

logger = logging.getLogger(__name__)

VIDEO_TOKEN = "<video>"
# The paper's parts. The temporal tower is pytorchvideo's SlowFast R50 8 x 8 of Kinetics-400, where its authors publish
# it; they publish no hash of it.
CLIP_VIT_L = "openai/clip-vit-large-patch14"
SLOWFAST_R50 = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/SLOWFAST_8x8_R50.pyth"
LLAMA_3 = "meta-llama/Meta-Llama-3-8B-Instruct"


class ComposeError(LmmVqaError, ValueError):
    """Parts that can't be joined. The message names the part and the remedy."""


def compose(
    *,
    vision_tower: PreTrainedModel,
    decoder: PreTrainedModel,
    tokenizer: Any,
    temporal_tower: LmmVqaTemporalModel | None = None,
    config: Mapping[str, Any] | None = None,
    video_processor: Mapping[str, Any] | None = None,
    questions: Sequence[str | Mapping[str, Any]] = TASKS,
) -> tuple[LmmVqaForConditionalGeneration, LmmVqaProcessor]:
    """Join a spatial tower, a temporal tower and a decoder; the projectors between them are fresh.

    Args:
        vision_tower, decoder, tokenizer, temporal_tower: the parts, as the `load_*` functions give them. Without a
            temporal tower the model has no temporal tokens.
        config: fields of `LmmVqaConfig` that differ from the paper's. Without `num_spatial_tokens` and
            `num_temporal_tokens`, towers with fewer places than the paper's give as many tokens as they can.
        video_processor: settings of `LmmVqaVideoProcessor` that differ from those of the tower's own image processor,
            or from the paper's where it has none.
        questions: what it is to answer, as `question_of` takes it; training adds its own.

    Returns:
        Model (in eval mode, parts in the precision they came in) and processor, ready for `save_pretrained`.

    Raises:
        ComposeError: a field is unknown or has a value that can't be, the tower does not take frames, more tokens are
            asked for than it has places, the decoder's context is too short for them, it gives other logits inside the
            model than alone, or it has no chat template that takes our questions.
    """
    if tokenizer.chat_template is None:
        raise ComposeError(
            f"The tokenizer of {decoder.config.name_or_path or 'the decoder'} has no chat template: use an "
            "instruction-tuned decoder."
        )
    fields = _checked_fields(config or {})
    settings = {**_frame_settings(vision_tower), **(video_processor or {})}
    places = _places(vision_tower, fields.get("vision_feature_layer", -2), settings["size"])
    fields.setdefault("num_spatial_tokens", min(LmmVqaConfig.num_spatial_tokens, isqrt(places) ** 2))
    possible: list[int] = []
    if temporal_tower is None:
        fields["num_temporal_tokens"] = 0
    else:
        fields["temporal_config"] = temporal_tower.config.to_dict()
        possible = _possible_temporal_tokens(temporal_tower.config)
        fields.setdefault("num_temporal_tokens", possible[-1])
    video_token = _placeholder(tokenizer)
    _make_room(decoder, len(tokenizer))
    try:
        model_config = LmmVqaConfig(
            vision_config=vision_tower.config.to_dict(),
            text_config=decoder.config.to_dict(),
            video_token_id=tokenizer.convert_tokens_to_ids(video_token),
            **fields,
        )
        # On the meta device, so that an 8B decoder is never in memory twice.
        with torch.device("meta"):
            model = LmmVqaForConditionalGeneration(model_config)
    # A value out of range, and one of another type.
    except (ValueError, StrictDataclassError) as error:
        raise ComposeError(str(error)) from error
    if model_config.spatial_projector_type != "perceiver" and model_config.num_spatial_tokens > places:
        raise ComposeError(
            f"num_spatial_tokens={model_config.num_spatial_tokens}, but the spatial tower has {places} places, so some "
            f"tokens would be copies: ask for at most {isqrt(places) ** 2}."
        )
    if (count := model_config.num_temporal_tokens) and count not in possible:
        shape = " x ".join(map(str, _temporal_places(model_config.temporal_config)))
        raise ComposeError(
            f"num_temporal_tokens={count} is a grid of {' x '.join(map(str, TEMPORAL_GRIDS[count]))}, but the temporal "
            f"tower has {shape} places (time, height, width), so some tokens would be copies: ask for "
            f"{' or '.join(map(str, possible))}."
        )
    model.model.vision_tower = vision_tower
    model.model.language_model = decoder.base_model
    model.lm_head = decoder.get_output_embeddings()
    if temporal_tower is not None:
        model.model.temporal_tower = temporal_tower
    embeddings = model.get_input_embeddings()
    for name in ("spatial_projector", "temporal_projector"):
        if (projector := getattr(model.model, name, None)) is not None:
            projector.to_empty(device=embeddings.weight.device)
            projector.apply(model._init_weights)
            projector.match_scale(embeddings)
            projector.to(vision_tower.dtype)
    model.tie_weights()
    model.eval()
    model.generation_config = decoder.generation_config
    # Greedy answers need no sampling settings, and the library refuses to save settings that are not in use.
    model.generation_config.update(do_sample=False, temperature=None, top_p=None, top_k=None)
    _check_logits(model, decoder, tokenizer)

    if temporal_tower is None:
        settings["temporal_size"] = None
    else:
        side = temporal_tower.config.image_size
        settings |= {
            "temporal_size": {"height": side, "width": side},
            "temporal_num_frames": temporal_tower.config.num_frames,
        }
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    processor = LmmVqaProcessor(
        LmmVqaVideoProcessor(**settings),
        tokenizer,
        video_token=video_token,
        tokens_per_chunk=model_config.tokens_per_chunk,
        frame_fusion=model_config.frame_fusion,
        questions=[level_question(model_config.levels) if entry == "level" else entry for entry in questions],
        chat_template=_chat_template(tokenizer, video_token),
    )
    check_window(model_config, processor.video_processor.max_chunks)
    # Some decoders end a turn with another token than a text.
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    end = tokenizer.convert_tokens_to_ids(processor.end_of_turn)
    if end not in ends:
        model.generation_config.eos_token_id = [*ends, end]
    return model, processor


def check_window(config: LmmVqaConfig, max_chunks: int) -> None:
    """
    Raises:
        ComposeError: a video of so many seconds has more tokens than the decoder reads.
    """
    limit = getattr(config.text_config, "max_position_embeddings", None)
    chunks = 1 if config.frame_fusion != "concat" else max_chunks
    # Questions and the words around them take at most about a hundred tokens.
    if limit is not None and (need := config.tokens_per_chunk * chunks + 100) > limit:
        raise ComposeError(
            f"A video of {chunks} seconds gives {need} tokens, the decoder reads {limit}: compose the model with fewer "
            "tokens (--set num_spatial_tokens=64, --set num_temporal_tokens=16), or with max_chunks lowered in its "
            "processor."
        )


def _checked_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields_of(LmmVqaConfig) if field.name in LmmVqaConfig.__annotations__}
    known -= {"vision_config", "temporal_config", "text_config", "video_token_id", "tie_word_embeddings"}
    for name in config:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "nothing is named like it"
            raise ComposeError(
                f"LmmVqaConfig has no field {name} to set ({hint}). Known are {', '.join(sorted(known))}."
            )
    return dict(config)


def _frame_settings(vision_tower: PreTrainedModel) -> dict[str, Any]:
    """Size and statistics of the frames that a tower was trained on, by its own image processor where it has one."""
    height, width = frame_size_of(vision_tower.config)
    settings: dict[str, Any] = {"size": {"height": height, "width": width}}
    if not vision_tower.name_or_path:
        return settings
    try:
        own, _ = BaseImageProcessor.get_image_processor_dict(vision_tower.name_or_path)
    except OSError:
        if vision_tower.config.model_type not in ("clip_vision_model", "lmmvqa_spatial"):
            logger.warning(
                "%s has no image processor: its key frames are normalised with CLIP's mean and deviation.",
                vision_tower.name_or_path,
            )
        return settings
    names = ("image_mean", "image_std", "do_normalize")
    return settings | {name: own[name] for name in names if own.get(name) is not None}


def _places(vision_tower: PreTrainedModel, layers: int | list[int], size: Mapping[str, int]) -> int:
    """Places of a tower's map of a frame."""
    try:
        _, height, width = map_shape(vision_tower, layers, (size["height"], size["width"]))
    # Towers refuse what they can't take in many ways.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        kind = vision_tower.config.model_type
        raise ComposeError(
            f"A spatial tower of type {kind!r} does not give maps of whole frames ({reason}): "
            "use another one, such as CLIP, SigLIP, DINOv2, ViT, ConvNeXt or ResNet, and layers that it has "
            "(--set vision_feature_layer=...)."
        ) from error
    return height * width


def _temporal_places(config: LmmVqaTemporalConfig) -> tuple[int, int, int]:
    """Time, height and width of the fast map, the finer one of the two that a temporal token joins."""
    side = ceil(config.image_size / 32)
    return config.num_frames, side, side


def _possible_temporal_tokens(config: LmmVqaTemporalConfig) -> list[int]:
    """Numbers of temporal tokens that a tower gives without copies, the fewest first: along each axis every cell of
    the pooling grid averages other places."""

    def differ(places: int, cells: int) -> bool:
        return len({(i * places // cells, ceil((i + 1) * places / cells)) for i in range(cells)}) == cells

    places = _temporal_places(config)
    return [count for count, grid in TEMPORAL_GRIDS.items() if all(map(differ, places, grid))]


def _chat_template(tokenizer: Any, video_token: str) -> str:
    """The decoder's chat template, made to understand our messages."""
    for has_system in (True, False):
        template = video_chat_template(tokenizer.chat_template, video_token, has_system=has_system)
        try:
            tokenizer.apply_chat_template(conversation("", answer=""), chat_template=template, tokenize=False)
        except TemplateError as error:
            reason = error
        else:
            return template
    raise ComposeError(f"The decoder's chat template does not take our questions ({reason}): use another decoder.")


def load_vision_tower(name_or_path: str, **kwargs: Any) -> PreTrainedModel:
    """Any vision model of a Hub id or folder; of a model with a text side, such as CLIP, its vision side.

    Raises:
        ComposeError: it can't be had.
    """
    try:
        config = AutoConfig.from_pretrained(name_or_path)
        config = getattr(config, "vision_config", config)
        return AutoModel.from_pretrained(name_or_path, config=config, **kwargs).eval()
    # A folder that isn't there, one without weights, a model type that the library doesn't know.
    except (OSError, ValueError) as error:
        raise _not_loaded("vision model", name_or_path, error) from error


def load_decoder(name_or_path: str, **kwargs: Any) -> tuple[PreTrainedModel, Any]:
    """Decoder and tokenizer of a Hub id, a folder, or a GGUF file (its weights are dequantised).

    Raises:
        ComposeError: it can't be had, or a GGUF file can't be read.
    """
    path = Path(name_or_path)
    if path.suffix != ".gguf":
        try:
            decoder = AutoModelForCausalLM.from_pretrained(name_or_path, **kwargs).eval()
            return decoder, AutoTokenizer.from_pretrained(name_or_path)
        except (OSError, ValueError) as error:
            raise _not_loaded("language model", name_or_path, error) from error
    try:
        decoder = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, **kwargs).eval()
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    # The reader under the library raises errors of many kinds for a broken file.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ComposeError(
            f"{path} can't be read as a GGUF file ({reason}): it may be cut or damaged, so fetch it again."
        ) from error
    # Dequantised weights are plain weights; with the entry left in, the library refuses to save them.
    del decoder.config.quantization_config
    return decoder, tokenizer


def _not_loaded(what: str, name: str, error: Exception) -> ComposeError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return ComposeError(f"{name} can't be loaded as a {what} ({reason}): name its folder or its Hub id.")


def load_temporal_tower(source: str, config: LmmVqaTemporalConfig | None = None) -> LmmVqaTemporalModel:
    """A temporal tower from a folder of ours, or from a public SlowFast checkpoint (`.pyth`, `.pt`, `.safetensors`): a
    file, or an https:// address such as `SLOWFAST_R50`.

    Public checkpoints name their parameters `blocks.0` to `blocks.6`, sometimes under "model_state"; the last two
    blocks pool and classify, and stay behind.

    Raises:
        ComposeError: the file is not a SlowFast checkpoint of the shape that `config` states; by default R50 (8 x 8) or
            R101 (16 x 8), as the file tells.
        PartError: the address can't be reached.
    """
    path = str(fetch_address(source)) if source.startswith(("https://", "http://")) else source
    if Path(path).is_dir():
        if not (Path(path) / "config.json").is_file():
            raise ComposeError(
                f"{path} holds no config.json: name a folder of `lmmvqa train-tower`, or a SlowFast file."
            )
        return LmmVqaTemporalModel.from_pretrained(path).eval()
    if not Path(path).is_file():
        raise ComposeError(
            f"{path} is neither a folder nor a file: give a SlowFast checkpoint or its https:// address, or none for a "
            "model without temporal tokens."
        )
    if path.endswith(".safetensors"):
        state = load_file(path)
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        # The reader raises errors of many kinds for what is no file of torch.
        except Exception as error:
            raise ComposeError(f"{path} is no checkpoint of torch ({error}): fetch it again.") from error
        state = state.get("model_state", state)
    state = {key: value for key, value in state.items() if key.startswith(tuple(f"blocks.{i}." for i in range(5)))}
    tower = LmmVqaTemporalModel(config or _temporal_config(state))
    try:
        tower.load_state_dict(state)
    except RuntimeError as error:
        reason = "\n".join(str(error).splitlines()[:4])
        raise ComposeError(f"{path} is not a SlowFast checkpoint of the configured shape:\n{reason}") from error
    return tower.eval()


def _temporal_config(state: Mapping[str, torch.Tensor]) -> LmmVqaTemporalConfig:
    """The published network that weights are of."""
    fusion = next((weight for name, weight in state.items() if "fusion" in name and weight.ndim == 5), None)
    if fusion is None or fusion.shape[2] == LmmVqaTemporalConfig.fusion_kernel_size:
        return LmmVqaTemporalConfig()
    return LmmVqaTemporalConfig(depth=101, num_frames=64, fusion_kernel_size=fusion.shape[2])


def _placeholder(tokenizer: Any) -> str:
    """A token that no text uses: one that the vocabulary keeps in reserve, else a new one."""
    reserved = sorted(token for token in tokenizer.get_added_vocab() if "reserved_special_token" in token)
    if reserved:
        # Its text is how a person would meet it, so the order must be that of the numbers in the names.
        return min(reserved, key=lambda token: (len(token), token))
    tokenizer.add_tokens([VIDEO_TOKEN], special_tokens=True)
    return VIDEO_TOKEN


def _make_room(decoder: Any, num_tokens: int) -> None:
    """Add rows to the embeddings for new tokens. They start at the mean, so that their logits stay in the crowd."""
    old = decoder.get_input_embeddings().weight.shape[0]
    if num_tokens <= old:
        return
    decoder.resize_token_embeddings(num_tokens, mean_resizing=False)
    with torch.no_grad():
        for embeddings in (decoder.get_input_embeddings(), decoder.get_output_embeddings()):
            embeddings.weight[old:] = embeddings.weight[:old].mean(0)


@torch.no_grad()
def _check_logits(model: LmmVqaForConditionalGeneration, decoder: PreTrainedModel, tokenizer: Any) -> None:
    """Some decoders scale or cap their logits, or add a bias, outside of the parts that we take over."""
    input_ids = tokenizer("The quality of this video is", return_tensors="pt")["input_ids"].to(decoder.device)
    expected, found = decoder(input_ids).logits.float(), model(input_ids=input_ids).logits.float()
    if not torch.allclose(expected, found, atol=1e-3, rtol=1e-3):
        raise ComposeError(
            f"A decoder of type {decoder.config.model_type!r} changes its logits behind its output embeddings (largest "
            f"difference {(expected - found).abs().max():.3g}), which LMM-VQA does not do: use another decoder."
        )


@dataclass(frozen=True)
class Description:
    """Size of a model. Parameters by part; visual tokens; bytes in bfloat16.

    `tokens_per_second` counts visual tokens per second of video (per video where `frame_fusion` is not "concat");
    `cache_bytes` is what one second of video takes in the key-value cache.
    """

    parameters: dict[str, int]
    trained_parameters: int
    tokens_per_second: int
    weight_bytes: int
    cache_bytes_per_second: int


def describe(config: LmmVqaConfig) -> Description:
    """Count without allocating: the model is built on the meta device."""
    with torch.device("meta"):
        model = LmmVqaForConditionalGeneration(config)
    names = ("vision_tower", "temporal_tower", "spatial_projector", "temporal_projector", "language_model")
    parts: dict[str, nn.Module] = {name: getattr(model.model, name) for name in names if hasattr(model.model, name)}
    if not config.tie_word_embeddings:
        parts["lm_head"] = model.lm_head
    parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    text = config.text_config
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    cache_per_token = 2 * 2 * text.num_hidden_layers * heads * head_size
    return Description(
        parameters=parameters,
        trained_parameters=sum(count for name, count in parameters.items() if name.endswith("projector")),
        tokens_per_second=config.tokens_per_chunk,
        weight_bytes=2 * sum(parameters.values()),
        cache_bytes_per_second=cache_per_token * config.tokens_per_chunk,
    )
