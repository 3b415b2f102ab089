"""Tiny networks with random weights, for shapes and contracts; real weights and clips where behaviour counts."""

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lmmvqa.checkpoints.composing import compose
from modeling_lmmvqa import (
    LmmVqaSpatialConfig,
    LmmVqaSpatialModel,
    LmmVqaTemporalConfig,
    LmmVqaTemporalModel,
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(digits_per_token: int) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that cuts numbers as SmolLM2 does (1 digit) or as Llama 3 does (up to 3 digits)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate(alphabet)}
    merges = []
    if digits_per_token == 3:
        for length in (2, 3):
            for number in range(10**length):
                text = f"{number:0{length}d}"
                merges.append((text[:-1], text[-1]))
                vocabulary[text] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(rf"\p{{N}}{{1,{digits_per_token}}}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_decoder(tokenizer: PreTrainedTokenizerFast, **config) -> LlamaForCausalLM:
    shape = dict(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    decoder = LlamaForCausalLM(
        LlamaConfig(
            **shape, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, initializer_range=0.3, **config
        )
    )
    decoder.generation_config.pad_token_id = tokenizer.pad_token_id
    return decoder.eval()


def make_vision_tower(image_size: int = 56) -> CLIPVisionModel:
    """A ViT with a place for every 14 x 14 pixels."""
    shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
    return CLIPVisionModel(CLIPVisionConfig(**shape, image_size=image_size, patch_size=14)).eval()


def make_spatial_tower(*views: dict, grid: int = 2) -> LmmVqaSpatialModel:
    """A tower of as many tiny backbones as there are views."""
    views = [{"backbone": make_vision_tower().config.to_dict()} | view for view in views]
    return LmmVqaSpatialModel(LmmVqaSpatialConfig(views=views, grid=grid)).eval()


def make_temporal_tower(image_size: int = 64) -> LmmVqaTemporalModel:
    """A SlowFast whose fast map has 8 x 2 x 2 places, and 8 x 7 x 7 of frames of 224 pixels."""
    config = LmmVqaTemporalConfig(num_frames=8, image_size=image_size, depth=18, slow_channels=4, fast_channels=2)
    return LmmVqaTemporalModel(config).eval()


def make_tiny(
    digits_per_token: int = 1,
    decoder_config: dict | None = None,
    temporal: bool = True,
    temporal_size: int = 64,
    **config,
):
    """A tiny model and its processor, composed as a real one is."""
    torch.manual_seed(0)
    tokenizer = make_tokenizer(digits_per_token)
    settings = dict(num_spatial_tokens=4, num_temporal_tokens=4, projector_num_heads=4) | config
    if not temporal:
        settings.pop("num_temporal_tokens")
    return compose(
        vision_tower=make_vision_tower(),
        temporal_tower=make_temporal_tower(temporal_size) if temporal else None,
        decoder=make_decoder(tokenizer, **(decoder_config or {})),
        tokenizer=tokenizer,
        config=settings,
        video_processor=dict(size={"height": 56, "width": 56}, max_chunks=4),
    )
