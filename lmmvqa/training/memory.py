"""Memory of one GPU in training, counted on the meta device: nothing is loaded or allocated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from lmmvqa.training.adapters import make_trainable
from modeling_lmmvqa import LmmVqaConfig, LmmVqaForConditionalGeneration
from processing.errors import InputError

STRATEGIES = ("ddp", "fsdp", "zero3")
_MASTER, _COMPUTE = 4, 2
# Bytes that one decoder layer keeps for its backward pass, for each token and channel, in 16 bit and with an attention
# that does not store its matrix (Korthikanti et al., "Reducing activation recomputation", eq. 2 without the attention
# term).
_LAYER_ACTIVATIONS = 34


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one GPU.

    Args:
        weights, gradients, optimizer: what this GPU holds of them (AdamW: two moments).
        gathered: whole layers that a sharded model puts together while it computes; buckets of gradients under DDP.
        activations: of a batch, with every layer but one recomputed in the backward pass if checkpointing is on.
    """

    weights: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


def estimate_memory(
    config: LmmVqaConfig,
    *,
    trains: str,
    strategy: str,
    gpus: int = 8,
    batch_size: int = 4,
    seconds: int = 10,
    checkpointing: bool = True,
    lora_rank: int = 16,
) -> MemoryEstimate:
    """Estimate one GPU's memory from features that are cached (the towers hold memory but no activations).

    Args:
        config: of the model; its decoder and towers are taken as bfloat16, what trains as float32.
        trains: as in the settings.
        strategy: "ddp", "fsdp" (everything float32 shards, computed in bfloat16) or "zero3" (bfloat16 shards, float32
            copies of what trains).
        batch_size: videos on one GPU; each of `seconds` chunks.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"strategy={strategy!r} is unknown: choose one of {', '.join(STRATEGIES)}.")
    with torch.device("meta"):
        model: Any = LmmVqaForConditionalGeneration(config)
        model = make_trainable(model, trains, rank=lora_rank)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters()) - trained
    text = config.text_config
    layer = max(
        sum(p.numel() for p in module.parameters())
        for module in model.modules()
        if type(module).__name__.endswith("DecoderLayer")
    )
    shards = 1 if strategy == "ddp" else gpus
    if strategy == "zero3":
        weights = (_COMPUTE * (trained + frozen) + _MASTER * trained) // shards
    else:
        weights = (_MASTER * trained + (_COMPUTE if strategy == "ddp" else _MASTER) * frozen) // shards
    # Two layers at once: one computes while the next is fetched. The embeddings and the head are not split further.
    gathered = (
        _MASTER * trained if strategy == "ddp" else _COMPUTE * (2 * layer + 2 * text.vocab_size * text.hidden_size)
    )
    chunks = 1 if config.frame_fusion != "concat" else seconds
    tokens = batch_size * (config.tokens_per_chunk * chunks + 64)
    per_layer = tokens * text.hidden_size
    layers = text.num_hidden_layers
    activations = per_layer * (_COMPUTE * layers + _LAYER_ACTIVATIONS if checkpointing else _LAYER_ACTIVATIONS * layers)
    return MemoryEstimate(
        weights=weights,
        gradients=_MASTER * trained // shards,
        optimizer=2 * _MASTER * trained // shards,
        gathered=gathered,
        activations=activations,
    )
