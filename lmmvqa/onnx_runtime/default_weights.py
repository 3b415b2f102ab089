"""The weights of the default checkpoint without torch: the files that `lmmvqa.checkpoints.assembling` makes it of, as
arrays named like the parameters of the model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lmmvqa.checkpoints.default_files import ADAPTER, DECODER, SPATIAL_TOWER, TEMPORAL_TOWER
from lmmvqa.checkpoints.parts import fetch

# The decoder's parameters, by what a GGUF file calls them.
_LAYER = "model.language_model.layers"
_DECODER_NAMES = {
    "token_embd": "model.language_model.embed_tokens",
    "output_norm": "model.language_model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

# transformers keeps the parameters of DINOv2 in files under older names than in memory.
_NAMES_IN_MEMORY = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def default_weights() -> Iterator[tuple[str, np.ndarray]]:
    """Every parameter and buffer of the default checkpoint as float32, by its name in the model.

    Raises:
        PartError: the decoder can't be fetched.
    """
    for folder, name in ((SPATIAL_TOWER, "vision_tower"), (TEMPORAL_TOWER, "temporal_tower")):
        for key, value in _safetensors(folder / "model.safetensors").items():
            for old, new in _NAMES_IN_MEMORY.items():
                key = key.replace(old, new)
            yield f"model.{name}.{key}", value.astype(np.float32)
    adapter = _safetensors(ADAPTER / "adapter_model.safetensors")
    adapter = {key.removeprefix("base_model.model."): value for key, value in adapter.items()}
    settings = json.loads((ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    scale = settings["lora_alpha"] / settings["r"]
    for key, value in adapter.items():
        if "_projector." in key:
            yield key, value
    for key, value in _decoder(fetch(DECODER)):
        update = key.removesuffix(".weight")
        if f"{update}.lora_A.weight" in adapter:
            value = value + scale * (adapter[f"{update}.lora_B.weight"] @ adapter[f"{update}.lora_A.weight"])
        yield key, value


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(path)


def _decoder(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Dequantised, as transformers does it."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(path)
    heads, key_heads = (
        int(reader.fields[f"llama.attention.{name}"].contents()) for name in ("head_count", "head_count_kv")
    )
    for tensor in reader.tensors:
        value = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
        match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", tensor.name)
        assert match is not None, tensor.name
        layer, name = match.groups()
        if name == "token_embd":
            # The placeholder of the visual tokens has a row of its own, as `compose` adds it.
            value = np.concatenate([value, value.mean(0, keepdims=True, dtype=np.float64).astype(np.float32)])
        # llama.cpp keeps pairs of a head's channels side by side that the rotary embedding turns together.
        if name in ("attn_q", "attn_k"):
            count = heads if name == "attn_q" else key_heads
            pairs = value.reshape(count, value.shape[0] // count // 2, 2, value.shape[1])
            value = pairs.swapaxes(1, 2).reshape(value.shape)
        known = _DECODER_NAMES[name]
        yield f"{known}.weight" if layer is None else f"{_LAYER}.{layer}.{known}.weight", value
