"""Small parts with random weights in the very layout of those that the paper takes: CLIP, SlowFast R50, Llama-3."""

import warnings
from pathlib import Path

import torch
from tiny_models import make_decoder, make_tokenizer
from tokenizers import processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

with warnings.catch_warnings():
    # It uses what torch is about to leave behind.
    warnings.simplefilter("ignore", FutureWarning)
    from pytorchvideo.models.slowfast import create_slowfast

# Llama 3's own, but for its tools: it writes the BOS token, as the tokenizer does too.
LLAMA_3_TEMPLATE = (
    "{% for message in messages %}{% if loop.index0 == 0 %}{{ bos_token }}{% endif %}"
    "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
SPECIAL_TOKENS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    *(f"<|reserved_special_token_{number}|>" for number in range(4)),
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]


def write_clip(folder: Path) -> Path:
    """A whole CLIP, with its text side: 16 patches of key frames of 56 x 56."""
    sides = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
    config = CLIPConfig(
        text_config=sides | {"vocab_size": 99}, vision_config=sides | {"image_size": 56, "patch_size": 14}
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    return folder


def write_slowfast(file: Path) -> Path:
    """SlowFast R50 8 x 8 with its head, as pytorchvideo publishes it."""
    torch.manual_seed(0)
    network = create_slowfast().eval()
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model_state": network.state_dict()}, file)
    return file


def llama_3_tokenizer() -> PreTrainedTokenizerFast:
    """Numbers of up to three digits are one token; a BOS token before every text; turns end with another token than
    texts."""
    tokenizer = make_tokenizer(digits_per_token=3)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>"
    )
    fast.add_tokens(SPECIAL_TOKENS, special_tokens=True)
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", fast.bos_token_id)]
    )
    fast.chat_template = LLAMA_3_TEMPLATE
    return fast


def write_llama_3(folder: Path) -> Path:
    """A Llama with 8,192 positions, its tokenizer and its template."""
    torch.manual_seed(0)
    tokenizer = llama_3_tokenizer()
    decoder = make_decoder(tokenizer, max_position_embeddings=8192, bos_token_id=tokenizer.bos_token_id)
    tokenizer.save_pretrained(folder)
    decoder.save_pretrained(folder)
    return folder
