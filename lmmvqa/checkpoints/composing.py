"""From pretrained parts to a checkpoint: load, convert, join, describe."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from lmmvqa.checkpoints.parts import fetch_address
from modeling_lmmvqa import LmmVqaConfig, LmmVqaForConditionalGeneration, LmmVqaTemporalConfig, LmmVqaTemporalModel
from modeling_lmmvqa.spatial_tower import frame_size_of
from processing.errors import LmmVqaError
from processing.processing_lmmvqa import LmmVqaProcessor, video_chat_template
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
) -> tuple[LmmVqaForConditionalGeneration, LmmVqaProcessor]:
    """Join a spatial tower, a temporal tower and a decoder; the projectors between them are fresh.

    Args:
        vision_tower, decoder, tokenizer, temporal_tower: the parts, as the `load_*` functions give them. Without a
            temporal tower the model has no temporal tokens.
        config: fields of `LmmVqaConfig` that differ from the paper's.
        video_processor: settings of `LmmVqaVideoProcessor` that differ from the paper's.

    Returns:
        Model (in eval mode, parts in the precision they came in) and processor, ready for `save_pretrained`.

    Raises:
        ComposeError: the decoder gives other logits inside the model than alone, or has no chat template.
    """
    if tokenizer.chat_template is None:
        raise ComposeError(
            f"The tokenizer of {decoder.config.name_or_path or 'the decoder'} has no chat template: use an "
            "instruction-tuned decoder."
        )
    fields = dict(config or {})
    if temporal_tower is None:
        fields["num_temporal_tokens"] = 0
    else:
        fields["temporal_config"] = temporal_tower.config.to_dict()
    video_token = _placeholder(tokenizer)
    _make_room(decoder, len(tokenizer))
    model_config = _checked_config(
        vision_config=vision_tower.config.to_dict(),
        text_config=decoder.config.to_dict(),
        video_token_id=tokenizer.convert_tokens_to_ids(video_token),
        **fields,
    )
    # On the meta device, so that an 8B decoder is never in memory twice.
    with torch.device("meta"):
        model = LmmVqaForConditionalGeneration(model_config)
    model.model.vision_tower = vision_tower
    model.model.language_model = decoder.base_model
    model.lm_head = decoder.get_output_embeddings()
    if temporal_tower is not None:
        model.model.temporal_tower = temporal_tower
    embeddings = model.get_input_embeddings().weight
    for name in ("spatial_projector", "temporal_projector"):
        if (projector := getattr(model.model, name, None)) is not None:
            projector.to_empty(device=embeddings.device)
            projector.apply(model._init_weights)
            projector.match_scale(embeddings)
            projector.to(vision_tower.dtype)
    model.tie_weights()
    model.eval()
    model.generation_config = decoder.generation_config
    # Greedy answers need no sampling settings, and the library refuses to save settings that are not in use.
    model.generation_config.update(do_sample=False, temperature=None, top_p=None, top_k=None)
    _check_logits(model, decoder, tokenizer)

    settings = {
        "size": dict(zip(("height", "width"), frame_size_of(vision_tower.config), strict=True)),
        **(video_processor or {}),
    }
    if temporal_tower is None:
        settings["temporal_size"] = None
    else:
        side = temporal_tower.config.image_size
        settings |= {
            "temporal_size": {"height": side, "width": side},
            "temporal_num_frames": temporal_tower.config.num_frames,
        }
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    template = video_chat_template(tokenizer.chat_template, video_token)
    processor = LmmVqaProcessor(
        LmmVqaVideoProcessor(**settings),
        tokenizer,
        video_token=video_token,
        tokens_per_chunk=model_config.tokens_per_chunk,
        frame_fusion=model_config.frame_fusion,
        levels=model_config.levels,
        chat_template=template,
    )
    return model, processor


def load_vision_tower(name_or_path: str, **kwargs: Any) -> PreTrainedModel:
    """Any vision model of a Hub id or folder; of a model with a text side, such as CLIP, its vision side."""
    config = AutoConfig.from_pretrained(name_or_path)
    return AutoModel.from_pretrained(name_or_path, config=getattr(config, "vision_config", config), **kwargs).eval()


def load_decoder(name_or_path: str, **kwargs: Any) -> tuple[PreTrainedModel, Any]:
    """Decoder and tokenizer of a Hub id, a folder, or a GGUF file (its weights are dequantised).

    Raises:
        ComposeError: a GGUF file can't be read.
    """
    path = Path(name_or_path)
    if path.suffix != ".gguf":
        return AutoModelForCausalLM.from_pretrained(name_or_path, **kwargs).eval(), AutoTokenizer.from_pretrained(
            name_or_path
        )
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


def load_temporal_tower(source: str, config: LmmVqaTemporalConfig | None = None) -> LmmVqaTemporalModel:
    """A temporal tower from a folder of ours, or from a public SlowFast checkpoint (`.pyth`, `.pt`, `.safetensors`): a
    file, or an https:// address such as `SLOWFAST_R50`.

    Public checkpoints name their parameters `blocks.0` to `blocks.6`, sometimes under "model_state"; the last two
    blocks pool and classify, and stay behind.

    Raises:
        ComposeError: the file is not a SlowFast checkpoint of the shape that `config` (default: R50, 8 x 8) states.
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
    tower = LmmVqaTemporalModel(config or LmmVqaTemporalConfig())
    try:
        tower.load_state_dict(state)
    except RuntimeError as error:
        reason = "\n".join(str(error).splitlines()[:4])
        raise ComposeError(f"{path} is not a SlowFast checkpoint of the configured shape:\n{reason}") from error
    return tower.eval()


def _placeholder(tokenizer: Any) -> str:
    """A token that no text uses: one that the vocabulary keeps in reserve, else a new one."""
    reserved = sorted(token for token in tokenizer.get_added_vocab() if "reserved_special_token" in token)
    if reserved:
        # Its text is how a person would meet it, so the order must be that of the numbers in the names.
        return min(reserved, key=lambda token: (len(token), token))
    tokenizer.add_tokens([VIDEO_TOKEN], special_tokens=True)
    return VIDEO_TOKEN


def _make_room(decoder: PreTrainedModel, num_tokens: int) -> None:
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


def _checked_config(**fields: Any) -> LmmVqaConfig:
    try:
        return LmmVqaConfig(**fields)
    # The library checks types of fields with errors of its own.
    except Exception as error:
        raise ComposeError(f"The parts and settings don't make a model: {error}") from error


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
